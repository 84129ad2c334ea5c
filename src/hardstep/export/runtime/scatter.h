/* A scattering front end: a small program on planes of numbers, one sample after the other; see hard_scatter.py.
 *
 * Included after bytes.h for every instruction set. Rows lie in whole blocks of 8 numbers: what is behind a row's last
 * number is computed too, and never read. Numbers are unsigned, so that none overflows; 1 << 31 is flipped to compare.
 */

#define SIGN_BIT 0x80000000u
#define SIZE(u) (((u) ^ (0u - ((u) >> 31))) + ((u) >> 31))
#define ABOVE(type, u, v) ((type)(((u) ^ SIGN_BIT) > ((v) ^ SIGN_BIT)) & 1u)
#define LARGER(type, u, v) ((v) ^ (((u) ^ (v)) & (0u - ABOVE(type, u, v))))
#define IN_BLOCKS(what) \
    for (size_t j = 0; j < n; j += sizeof(block) / sizeof(cell)) what
#define GIVEN(p) (*(const block *)(const void *)((p) + j))
#define MADE(p) (*(block *)(void *)((p) + j))

/* out = t a + u b, or that more, over whole blocks. */
static inline void HS_AS(blend)(cell *out, const cell *a, cell t, const cell *b, cell u, size_t n, int more) {
    if (more)
        IN_BLOCKS(MADE(out) += t * GIVEN(a) + u * GIVEN(b));
    else if (t == 1 && u == 1)
        IN_BLOCKS(MADE(out) = GIVEN(a) + GIVEN(b));
    else if (t == 1 && u + 1 == 0)
        IN_BLOCKS(MADE(out) = GIVEN(a) - GIVEN(b));
    else
        IN_BLOCKS(MADE(out) = t * GIVEN(a) + u * GIVEN(b));
}

/* Where a row or column of a reflected plane comes from. */
static inline size_t HS_AS(mirrored)(size_t at, size_t edge, size_t length) {
    return at < edge ? edge - at : at < edge + length ? at - edge : 2 * (length - 1) + edge - at;
}

/* A channel, zeros behind it, reflected on all sides. */
static void HS_AS(load)(const step *s, const uint8_t *codes, const cell *program, cell *out) {
    const size_t height = program[1], width = program[2], edge = program[3];
    for (size_t y = 0; y < height; y++, out += pitch_of(width))
        for (size_t x = 0; x < width; x++) {
            const size_t row = HS_AS(mirrored)(y, edge, height - 2 * edge), column = HS_AS(mirrored)(x, edge, width - 2 * edge);
            out[x] = row < s->h && column < s->w ? codes[row * s->w + column] : 0;
        }
}

/* Two taps more (k > 0), of one tap itself: rows on end as long as none of the two goes round. */
static void HS_AS(two_taps)(const cell *p, size_t k, const cell *in, cell *out, size_t rows, size_t n) {
    const cell *one = p + 7 + 2 * k, *two = k + 1 < p[6] ? one + 2 : one;
    for (size_t y = 0; y < rows;) {
        const size_t a = (y + one[1]) % rows, b = (y + two[1]) % rows, last = a > b ? a : b;
        const size_t many = rows - last < rows - y ? rows - last : rows - y;
        HS_AS(blend)(out + y * n, in + a * n, one[0], in + b * n, two == one ? 0 : two[0], many * n, k > 0);
        y += many;
    }
}

/* Taps along y; or along x, a row lying twice in `around`, so that no tap has to go round. */
static void HS_AS(filter)(const cell *p, const cell *in, cell *out, cell *around) {
    const size_t h = p[3], w = p[4], pitch = pitch_of(w);
    if (p[5] == 0) {
        for (size_t k = 0; k < p[6]; k += 2) HS_AS(two_taps)(p, k, in, out, h, pitch);
        return;
    }
    for (size_t y = 0; y < h; y++, in += pitch, out += pitch) {
        memcpy(around, in, w * sizeof(cell));
        memcpy(around + w, in, w * sizeof(cell));
        for (size_t k = 0; k < p[6]; k += 2) {
            const cell *one = p + 7 + 2 * k, *two = k + 1 < p[6] ? one + 2 : one;
            HS_AS(blend)(out, around + one[1], one[0], around + two[1], two == one ? 0 : two[0], pitch, k > 0);
        }
    }
}

static void HS_AS(activate)(const cell *p, const cell *in, cell *out) {
    const size_t n = p[3] * pitch_of(p[4]);
    const cell at = p[6];
    if (p[5] == 0)
        IN_BLOCKS(MADE(out) = SIZE(GIVEN(in)));
    else if (p[5] == 1)
        IN_BLOCKS(MADE(out) = GIVEN(in) & ((GIVEN(in) >> 31) - 1u));
    else if (p[5] == 2)
        IN_BLOCKS(MADE(out) = ABOVE(block, GIVEN(in), at));
    else
        IN_BLOCKS(MADE(out) = ABOVE(block, SIZE(GIVEN(in)), at));
}

/* The largest number or the sum of each window: of its rows first, then of its columns. */
static void HS_AS(pool_plane)(const cell *p, const cell *in, cell *out, cell *around) {
    const size_t h = p[3], w = p[4], window = p[6], stride = p[7], n = pitch_of(w);
    for (size_t y = 0; y < h; y += stride, out += pitch_of(w / stride)) {
        memcpy(around, in + y * n, n * sizeof(cell));
        for (size_t i = 1; i < window; i++) {
            const cell *row = in + (y + i) % h * n;
            if (p[5] == 1)
                IN_BLOCKS(MADE(around) += GIVEN(row));
            else
                IN_BLOCKS(MADE(around) = LARGER(block, GIVEN(row), GIVEN(around)));
        }
        for (size_t x = 0; x < w; x += stride) {
            cell best = around[x];
            for (size_t i = 1; i < window; i++) {
                const cell u = around[x + i < w ? x + i : x + i - w];
                best = p[5] == 1 ? best + u : LARGER(cell, u, best);
            }
            out[x / stride] = best;
        }
    }
}

static void HS_AS(emit_codes)(const cell *p, const cell *in, uint8_t *out) {
    const size_t w = p[4], pitch = pitch_of(w);
    for (const cell *at = p + 8; at < p + 8 + 2 * (size_t)p[7]; at += 2)
        out[at[1]] = (uint8_t)((in[at[0] / w * pitch + at[0] % w] - p[5]) >> p[6]);
}

static void HS_AS(front)(const step *s, const work *w) {
    const cell *program = (const cell *)(const void *)(w->data + s->weights), *end = program + s->weights_bytes / 4;
    const size_t plane = program[1] * pitch_of(program[2]);
    cell *const planes_ = (cell *)(void *)w->lists, *const around = planes_ + program[0] * plane;
    uint8_t *out = (uint8_t *)w->out;
    memset(out, 0, w->n * s->units);
    for (size_t i = 0; i < w->n; i++, out += s->units)
        for (const cell *p = program + FRONT_HEAD; p < end; p += instruction_words(p)) {
            const cell *in = planes_ + p[1] * plane;
            cell *target = planes_ + p[2] * plane;
            switch (p[0]) {
            case LOAD_CODES: HS_AS(load)(s, w->codes + i * w->inputs + p[1] * (size_t)s->h * s->w, program, target); break;
            case FILTER: HS_AS(filter)(p, in, target, around); break;
            case ACTIVATE: HS_AS(activate)(p, in, target); break;
            case POOL_PLANE: HS_AS(pool_plane)(p, in, target, around); break;
            default: HS_AS(emit_codes)(p, in, out); break;
            }
        }
}

#undef SIGN_BIT
#undef SIZE
#undef ABOVE
#undef LARGER
#undef IN_BLOCKS
#undef GIVEN
#undef MADE

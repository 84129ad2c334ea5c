/* A scattering front end: a small program on planes of numbers, one sample after the other; see hard_scatter.py.
 *
 * Included after bytes.h for every instruction set. Rows lie in whole blocks of 8 numbers: what is behind a row's last
 * number is computed too, and never read. Numbers are unsigned, so that none overflows; 1 << 31 is flipped to compare.
 */

#define SIGN_BIT 0x80000000u

/* out = t a + u b, or that more, over whole blocks. */
static void HS_AS(blend)(cell *restrict out, const cell *restrict a, cell t, const cell *restrict b, cell u, size_t n,
                         int more) {
    if (more)
        for (size_t i = 0; i < n; i += 8)
            for (size_t j = i; j < i + 8; j++) out[j] += t * a[j] + u * b[j];
    else
        for (size_t i = 0; i < n; i += 8)
            for (size_t j = i; j < i + 8; j++) out[j] = t * a[j] + u * b[j];
}

/* A channel, zeros behind it, reflected on all sides. */
static void HS_AS(load)(const step *s, const uint8_t *codes, const cell *program, cell *out) {
    const size_t height = program[1], width = program[2], edge = program[3];
    for (size_t y = 0; y < height; y++, out += pitch_of(width))
        for (size_t x = 0; x < width; x++) {
            const size_t row = mirrored(y, edge, height - 2 * edge), column = mirrored(x, edge, width - 2 * edge);
            out[x] = row < s->h && column < s->w ? codes[row * s->w + column] : 0;
        }
}

/* Taps, two at a time, along y or along x; a row lies twice in `around`, so that no tap has to go round. */
static void HS_AS(filter)(const cell *p, const cell *in, cell *out, cell *around) {
    const size_t h = p[3], w = p[4], across = p[5], taps = p[6], pitch = pitch_of(w);
    for (size_t y = 0; y < h; y++) {
        if (across) {
            memcpy(around, in + y * pitch, w * sizeof(cell));
            memcpy(around + w, in + y * pitch, w * sizeof(cell));
        }
        for (size_t k = 0; k < taps; k += 2) {
            const cell *one = p + 7 + 2 * k, *two = k + 1 < taps ? one + 2 : one;
            const cell *a = across ? around + one[1] : in + (y + one[1]) % h * pitch;
            const cell *b = across ? around + two[1] : in + (y + two[1]) % h * pitch;
            HS_AS(blend)(out + y * pitch, a, one[0], b, two == one ? 0 : two[0], pitch, k > 0);
        }
    }
}

static void HS_AS(activate)(const cell *p, const cell *in, cell *out) {
    const size_t n = p[3] * pitch_of(p[4]);
    const uint32_t kind = p[5], at = p[6] ^ SIGN_BIT;
    for (size_t i = 0; i < n; i += 8)
        for (size_t j = i; j < i + 8; j++) {
            const cell u = in[j], size = u & SIGN_BIT ? 0 - u : u;
            out[j] = kind == 0 ? size : kind == 1 ? (u & SIGN_BIT ? 0 : u) : ((kind == 2 ? u : size) ^ SIGN_BIT) > at;
        }
}

/* The largest number or the sum of each window: of its rows first, then of its columns. */
static void HS_AS(pool_plane)(const cell *p, const cell *in, cell *out, cell *around) {
    const size_t h = p[3], w = p[4], window = p[6], stride = p[7], pitch = pitch_of(w);
    const int sum = p[5] == 1;
    for (size_t y = 0; y < h; y += stride, out += pitch_of(w / stride)) {
        memcpy(around, in + y * pitch, pitch * sizeof(cell));
        for (size_t i = 1; i < window; i++) {
            const cell *row = in + (y + i) % h * pitch;
            for (size_t j = 0; j < pitch; j++)
                around[j] = sum ? around[j] + row[j] : (row[j] ^ SIGN_BIT) > (around[j] ^ SIGN_BIT) ? row[j] : around[j];
        }
        for (size_t x = 0; x < w; x += stride) {
            cell best = around[x];
            for (size_t i = 1; i < window; i++) {
                const cell u = around[x + i < w ? x + i : x + i - w];
                best = sum ? best + u : (u ^ SIGN_BIT) > (best ^ SIGN_BIT) ? u : best;
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

/* Lanes are samples: sums of a tile at once, in codes or scores, and the way from lanes of outputs and back.
 *
 * Included after lanes.h for every width and instruction set.
 */

#ifndef HS_NO_SAMPLES
/* Transpose 64 x 64 bits in every word of 64 vectors, halves first. */
static void HS_AS(transpose)(VEC *m) {
    uint64_t mask = 0x00000000ffffffffu;
    for (uint32_t j = 32; j; j >>= 1, mask ^= mask << j)
        for (uint32_t k = 0; k < 64; k = ((k | j) + 1) & ~j) {
            const VEC t = ((m[k] >> j) ^ m[k | j]) & mask;
            m[k] ^= t << j;
            m[k | j] ^= t;
        }
}

/* Lanes of outputs to lanes of samples: words of 64 channels, one sample each, become rows of one channel each. */
static void HS_AS(turn)(const step *s, const work *w) {
    const size_t fy = s->frame >> 16, fx = s->frame & 0xffffu, pitch = s->w + 2 * fx, rows = rows_in(s);
    const size_t next = (size_t)s->in_planes * s->in_words, sample = next * s->h * s->w;
    memset(w->out, 0, (s->h + 2 * fy) * pitch * rows * s->out_words * sizeof(word));
    for (size_t at = 0; at < (size_t)s->h * s->w; at++) {
        VEC *out = (VEC *)w->out + ((at / s->w + fy) * pitch + at % s->w + fx) * rows;
        for (size_t p = 0; p < s->in_planes; p++)
            for (size_t k = 0; k < s->in_words; k++) {
                VEC block[64];
                word *const words = (word *)block;
                for (size_t i = 0; i < LANES; i++)
                    words[i % 64 * WORDS + i / 64] = i < w->n ? w->in[i * sample + at * next + p * s->in_words + k] : 0;
                HS_AS(transpose)(block);
                for (size_t i = 0; i < 64 && k * 64 + i < s->c; i++) out[p * s->c + k * 64 + i] = block[i];
            }
    }
}

/* Lanes of samples to lanes of outputs. */
static void HS_AS(back)(const step *s, const work *w) {
    const size_t rows = rows_in(s), next = (size_t)s->in_planes * s->out_words, sample = next * s->h * s->w;
    for (size_t at = 0; at < (size_t)s->h * s->w; at++)
        for (size_t p = 0; p < s->in_planes; p++)
            for (size_t k = 0; k < s->out_words; k++) {
                const VEC *in = (const VEC *)w->in + at * rows + p * s->c + k * 64;
                VEC block[64];
                const word *const words = (const word *)block;
                for (size_t i = 0; i < 64; i++) block[i] = k * 64 + i < s->c ? in[i] : (VEC){0};
                HS_AS(transpose)(block);
                for (size_t i = 0; i < w->n; i++)
                    w->out[i * sample + at * next + p * s->out_words + k] = words[i % 64 * WORDS + i / 64];
            }
}

/* The sums of one unit, less what its bias holds, to scores. */
static void HS_AS(scores)(const step *s, const work *w, const VEC *acc, size_t unit, int32_t bias) {
    VEC block[64];
    const word *const words = (const word *)block;
    for (uint32_t j = 0; j < 64; j++) block[j] = j < s->acc_planes ? acc[j] : (VEC){0};
    HS_AS(transpose)(block);
    for (size_t i = 0; i < w->n; i++)
        w->scores[i * s->units + unit] = (int32_t)((uint32_t)words[i % 64 * WORDS + i / 64] + (uint32_t)bias);
}

/* The codes of one unit: how many of its thresholds the sums are above. */
static void HS_AS(codes)(const step *s, const VEC *acc, const sum32 *threshold, VEC *out) {
    VEC code[8];
    for (uint32_t j = 0; j < s->out_planes; j++) code[j] = (VEC){0};
    for (uint32_t i = 0; i < s->stairs; i++) {
        const uint32_t t = ~(uint32_t)threshold[i];
        VEC above = (VEC){0};
        for (uint32_t j = 0; j < s->acc_planes; j++) {
            const VEC clear = SPLAT((t >> j) & 1u);
            above = MAJORITY(acc[j], clear, above);
        }
        RIPPLE(code, 0, s->out_planes, above);
    }
    for (uint32_t j = 0; j < s->out_planes; j++) out[j * s->units] = code[j];
}

/* One digit of a unit's weights: rows that count -1, then rows that count +1; `list` moves behind them. */
static void HS_AS(digit)(VEC *acc, uint32_t top, const VEC *rows, const entry **list, int alone) {
    const size_t minus = (*list)[0], plus = (*list)[1 + minus];
    const entry *less = *list + 1, *more = *list + 2 + minus;
    VEC part[24];
    *list = more + plus;
    if (minus == 0 && alone) {
        HS_AS(count)(acc, top, rows, more, plus);
        return;
    }
    uint32_t given = bit_length((uint32_t)(minus + plus)) + 1;
    if (given < 5) given = 5;
    for (uint32_t j = 0; j < given; j++) part[j] = (VEC){0};
    if (minus) {
        HS_AS(count)(part, given, rows, less, minus);
        for (uint32_t j = 0; j < given; j++) part[j] = ~part[j]; /* -1 - count; thresholds know of the 1 */
    }
    HS_AS(count)(part, given, rows, more, plus);
    HS_AS(add)(acc, top, part, given, 1);
}

/* Lanes are samples: all of a tile at once, work goes with the digits of the weights that are not zero. */
static void HS_AS(samples)(const step *s, const work *w) {
    const size_t pitch = s->w + 2u * s->px, fy = s->frame >> 16, fx = s->frame & 0xffffu;
    const size_t out_pitch = s->ow + 2 * fx, out_rows = (size_t)s->out_planes * s->units + 1;
    const entry *place = (const entry *)(w->data + s->places);
    if (s->frame) memset(w->out, 0, (s->oh + 2 * fy) * out_pitch * out_rows * WORDS * sizeof(word));
    for (size_t at = 0; at < (size_t)s->oh * s->ow; at++) {
        const size_t y = at / s->ow, x = at % s->ow;
        const VEC *rows = (const VEC *)w->in + (y * s->sy * pitch + x * s->sx) * rows_in(s);
        VEC *out = (VEC *)w->out + ((y + fy) * out_pitch + x + fx) * out_rows;
        const sum32 *threshold = (const sum32 *)(w->data + s->thresholds)
            + (s->classes > 1 ? place[at] : 0u) * (size_t)s->units * s->stairs; /* or biases, of a read-out */
        const entry *list = (const entry *)(w->data + s->weights);
        VEC begin[40], acc[40];
        for (uint32_t j = 0; j < s->acc_planes; j++) begin[j] = SPLAT(((uint32_t)s->start >> j) & 1u);
        if (s->offset) { /* -1: start - sum of all rows = start + 1 + ~sum */
            VEC all[24];
            const uint32_t given = bit_length(list[0]) + 4; /* the top plane stays 0 and becomes the sign */
            for (uint32_t j = 0; j < given; j++) all[j] = (VEC){0};
            HS_AS(count)(all, given, rows, list + 1, list[0]);
            for (uint32_t j = 0; j < given; j++) all[j] = ~all[j];
            for (uint32_t j = 0; j < s->acc_planes; j++) begin[j] = SPLAT((((uint32_t)s->start + 1u) >> j) & 1u);
            HS_AS(add)(begin, s->acc_planes, all, given, 1);
            list += 1 + list[0];
        }
        for (size_t unit = 0; unit < s->units; unit++) {
            const uint32_t digits = *list++;
            for (uint32_t j = 0; j < s->acc_planes; j++) acc[j] = begin[j];
            for (uint32_t j = s->acc_planes; j < s->acc_planes + 5; j++) acc[j] = (VEC){0};
            for (uint32_t i = 0; i < digits; i++) {
                const uint32_t low = *list++;
                HS_AS(digit)(acc + low, s->acc_planes - low, rows, &list, digits == 1);
            }
            if (s->stairs == 0)
                HS_AS(scores)(s, w, acc, unit, threshold[unit]);
            else
                HS_AS(codes)(s, acc, threshold + unit * s->stairs, out + unit);
        }
        if (s->stairs) out[out_rows - 1] = (VEC){0};
    }
}
#endif

#undef VEC
#undef WORDS
#undef SPLAT
#undef TERNARY
#undef XOR3
#undef MAJORITY
#undef ADD3
#undef RIPPLE
#undef FOUR
#undef COUNT
#undef HS_PASTE
#undef HS_PASTED
#undef HS_AS
#undef LANES

/* Sums of codes or of numbers in cells of one width, modulo 2^width: whole sums are known to fit, parts need not.
 *
 * Included by sums.h with CELL, MANY of them in a vector, and SUM_AS.
 */

#define STEP (sizeof(MANY) / sizeof(CELL))
#define AT(p) (*(const MANY *)(const void *)(p))

/* What the numbers stand for, with zeros around, parted by the strides. */
static void SUM_AS(part)(const cell *p, const layout *v, const word *in, CELL *planes) {
    const size_t h = p[5], w = p[6], sy = p[10], sx = p[11], py = p[12], px = p[13];
    memset(planes, 0, (size_t)(v->cells + v->span) * sizeof(CELL));
    for (size_t c = 0; c < p[4]; c++) {
        const word gain = WIDE(p[SUM_WORDS + 2 * c]), zero = WIDE(p[SUM_WORDS + 2 * c + 1]);
        for (size_t y = py; y < py + h; y++, in += w)
            for (size_t part = 0; part < sx; part++) {
                const size_t first = (part + sx - px % sx) % sx;
                CELL *to = planes + ((c * sy + y % sy) * sx + part) * v->plane + y / sy * v->pitch + (first + px) / sx;
                for (size_t x = first; x < w; x += sx) *to++ = (CELL)(gain * in[x] - zero);
            }
    }
}

/* Sums of some units at all positions, two vectors of them at a time; `tap` says where each term's plane begins. */
static void SUM_AS(add)(const layout *v, const cell *tap, const CELL *planes, const CELL *weight, CELL *out) {
    const size_t span = (size_t)v->span, terms_ = (size_t)v->terms;
    for (size_t at = 0; at < span; at += 2 * STEP) {
        MANY a = {0}, b = {0}, c = {0}, d = {0}, e = {0}, f = {0}, g = {0}, h = {0};
        const CELL *w = weight;
        for (size_t t = 0; t < terms_; t++, w += UNITS) {
            const MANY one = AT(planes + tap[t] + at), two = AT(planes + tap[t] + at + STEP);
            a += TIMES(w[0], one), b += TIMES(w[0], two);
            c += TIMES(w[1], one), d += TIMES(w[1], two);
            e += TIMES(w[2], one), f += TIMES(w[2], two);
            g += TIMES(w[3], one), h += TIMES(w[3], two);
        }
        MANY *const to[UNITS] = {(MANY *)(void *)(out + at), (MANY *)(void *)(out + span + at),
                                 (MANY *)(void *)(out + 2 * span + at), (MANY *)(void *)(out + 3 * span + at)};
        to[0][0] = a, to[0][1] = b, to[1][0] = c, to[1][1] = d;
        to[2][0] = e, to[2][1] = f, to[3][0] = g, to[3][1] = h;
    }
}

/* Sums of a unit in fixed point: multiplied, moved, shifted, cut off. */
static void SUM_AS(rescale)(const cell *p, const layout *v, const cell *unit, const CELL *sums_, word *out) {
    const word half = (word)1 << (8 * sizeof(CELL) - 1), times = PAIR(unit), offset = PAIR(unit + 2);
    const word low = FLIPPED(WIDE(unit[4])), high = FLIPPED(WIDE(unit[5]));
    const size_t oh = (size_t)v->oh, ow = (size_t)v->ow;
    const uint32_t shift = p[17];
    for (size_t y = 0; y < oh; y++, sums_ += v->pitch)
        for (size_t x = 0; x < ow; x++)
            *out++ = HS_AS(clipped)(SHIFTED(times * (((word)sums_[x] ^ half) - half) + offset, shift), low, high);
}

static void SUM_AS(sum)(const cell *p, const unsigned char *weights, const word *in, word *out, word *room) {
    const layout v = layout_of(p);
    const size_t terms_ = (size_t)v.terms, places = (size_t)(v.oh * v.ow);
    cell *const tap = (cell *)(void *)room, *at = tap;
    CELL *const planes = (CELL *)(void *)(room + (terms_ + 1) / 2), *const sums_ = planes + v.cells + v.span;
    CELL *const weight = sums_ + UNITS * v.span;
    const cell *unit = p + SUM_WORDS + 2 * (size_t)p[4];
    const int narrow = p[15] == 1;
    weights += p[16];
    for (size_t c = 0; c < p[4]; c++)
        for (size_t i = 0; i < p[8]; i++)
            for (size_t j = 0; j < p[9]; j++)
                *at++ = (cell)(((c * p[10] + i % p[10]) * p[11] + j % p[11]) * v.plane + i / p[10] * v.pitch + j / p[11]);
    SUM_AS(part)(p, &v, in, planes);
    for (size_t k = 0; k < p[7]; k += UNITS) {
        for (size_t t = 0; narrow && t < UNITS * terms_; t++, weights++) weight[t] = (CELL)(((word)*weights ^ 128u) - 128u);
        for (size_t t = 0; !narrow && t < UNITS * terms_; t++, weights += 2) weight[t] = (CELL)WIDE16(weights);
        SUM_AS(add)(&v, tap, planes, weight, sums_);
        for (size_t u = 0; u < UNITS && k + u < p[7]; u++, unit += UNIT_WORDS, out += places)
            SUM_AS(rescale)(p, &v, unit, sums_ + u * v.span, out);
    }
}

#undef STEP
#undef AT
#undef CELL
#undef MANY
#undef SUM_AS

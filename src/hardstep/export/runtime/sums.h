/* A network with real sums: numbers in fixed point, a small program on them, one sample after the other; see hard_sums.py.
 *
 * Included after scatter.h for every instruction set. Numbers are unsigned of 64 bits, so that none overflows; their
 * highest bit is flipped to compare, and what is shifted to the right turned over where it is negative.
 */

#define WIDE(u) (((word)(u) ^ 0x80000000u) - 0x80000000u)
#define WIDE16(p) ((((word)(p)[0] | (word)(p)[1] << 8) ^ 0x8000u) - 0x8000u)
#define PAIR(p) ((word)(p)[0] | (word)(p)[1] << 32)
#define FLIPPED(u) ((u) ^ (word)1 << 63)
#define ABOVE(u, v) (FLIPPED(u) > FLIPPED(v))
#define TURNED(u) (0u - ((u) >> 63))
#if defined(__AVX2__) || defined(HS_PAIRS)
#define VECTOR_BYTES 32
#else
#define VECTOR_BYTES 16
#endif
#if defined(__GNUC__)
#define TIMES(w, many) ((w) * (many))
typedef uint16_t HS_AS(many16) __attribute__((vector_size(VECTOR_BYTES), aligned(2), may_alias));
typedef uint32_t HS_AS(many32) __attribute__((vector_size(VECTOR_BYTES), aligned(4), may_alias));
typedef uint64_t HS_AS(many64) __attribute__((vector_size(VECTOR_BYTES), aligned(8), may_alias));
#else
#define TIMES(w, many) ((word)(w) * (many))
typedef entry HS_AS(many16);
typedef cell HS_AS(many32);
typedef word HS_AS(many64);
#endif

static inline word HS_AS(shifted)(word u, uint32_t by) { return ((u ^ TURNED(u)) >> by) ^ TURNED(u); }

#define SHIFTED(u, by) HS_AS(shifted)(u, by)

/* A number no less than `low` and no more than `high`, which are flipped. */
static inline word HS_AS(clipped)(word u, word low, word high) {
    u = FLIPPED(u);
    u = u < low ? low : u;
    return FLIPPED(u > high ? high : u);
}

#define CELL entry
#define MANY HS_AS(many16)
#define SUM_AS(name) HS_AS(name##_16)
#include "cells.h"
#define CELL cell
#define MANY HS_AS(many32)
#define SUM_AS(name) HS_AS(name##_32)
#include "cells.h"
#define CELL word
#define MANY HS_AS(many64)
#define SUM_AS(name) HS_AS(name##_64)
#include "cells.h"

static void HS_AS(count)(const cell *p, const word *in, word *out) {
    const size_t stairs = p[7];
    const cell *threshold = p + SUMS_HEAD + 1;
    for (size_t c = 0; c < p[4]; c++, threshold += stairs)
        for (size_t left = (size_t)p[5] * p[6]; left; left--, in++, out++) {
            const word u = FLIPPED(*in);
            word code = 0;
            for (size_t i = 0; i < stairs; i++) code += u > FLIPPED(WIDE(threshold[i]));
            *out = code;
        }
}

/* Where a place of a plane with a repeated border lies. */
static inline size_t HS_AS(nearest)(size_t at, size_t before, size_t length) {
    return at < before ? 0 : at - before < length ? at - before : length - 1;
}

static void HS_AS(windows)(const cell *p, const word *in, word *out) {
    const size_t h = p[5], w = p[6], oh = (h + p[11] + p[12] - p[7]) / p[9] + 1, ow = (w + p[13] + p[14] - p[8]) / p[10] + 1;
    for (size_t c = 0; c < p[4]; c++, in += h * w)
        for (size_t y = 0; y < oh; y++)
            for (size_t x = 0; x < ow; x++) {
                word found = p[15] ? 0 : (word)1 << 63;
                for (size_t i = 0; i < p[7]; i++) {
                    const word *row = in + HS_AS(nearest)(y * p[9] + i, p[11], h) * w;
                    for (size_t j = 0; j < p[8]; j++) {
                        const word u = row[HS_AS(nearest)(x * p[10] + j, p[13], w)];
                        found = p[15] ? found + u : ABOVE(u, found) ? u : found;
                    }
                }
                *out++ = found;
            }
}

static void HS_AS(carry)(const cell *p, const word *in, word *out) {
    const size_t h = p[5], w = p[6], step_ = p[7], plane = ((h + step_ - 1) / step_) * ((w + step_ - 1) / step_);
    memset(out, 0, p[8] * plane * sizeof *out);
    out += p[8] * plane;
    for (size_t c = 0; c < p[4]; c++, in += h * w)
        for (size_t y = 0; y < h; y += step_)
            for (size_t x = 0; x < w; x += step_) *out++ = in[y * w + x];
    memset(out, 0, p[9] * plane * sizeof *out);
}

static void HS_AS(bend)(const cell *p, const word *in, word *out) {
    const word half = (word)1 << p[7] >> 1;
    const cell *of = p + SUMS_HEAD + 1;
    for (size_t c = 0; c < p[4]; c++, of += 3)
        for (size_t left = (size_t)p[5] * p[6]; left; left--) {
            const word t = *in++ - WIDE(of[0]);
            *out++ = (ABOVE(t, 0) ? t : SHIFTED(WIDE(of[1]) * t + half, p[7])) + WIDE(of[2]);
        }
}

static void HS_AS(clip)(size_t n, word low, word high, const word *in, word *out) {
    for (size_t j = 0; j < n; j++) out[j] = HS_AS(clipped)(in[j], low, high);
}

static void HS_AS(add)(size_t n, const word *in, const word *other, word *out) {
    for (size_t j = 0; j < n; j++) out[j] = in[j] + other[j];
}

static void HS_AS(sums)(const step *s, const work *w) {
    const cell *program = (const cell *)(const void *)(w->data + s->weights), *end = program + s->weights_bytes / 4;
    const unsigned char *weights = w->data + s->thresholds;
    word *const numbers = (word *)(void *)w->lists, *const room = numbers + program[0];
    const size_t inputs = w->inputs, outputs = w->outputs;
    for (size_t i = 0; i < w->n; i++)
        for (const cell *p = program + 1; p < end; p += p[1]) {
            const word *in = numbers + p[2];
            const size_t n = (size_t)p[4] * p[5] * p[6];
            word *out = numbers + p[3];
            switch (p[0]) {
            case LOAD:
                for (size_t j = 0; j < n; j++) out[j] = w->codes[i * inputs + j];
                break;
            case SUM: (p[14] == 2 ? HS_AS(sum_16) : p[14] == 4 ? HS_AS(sum_32) : HS_AS(sum_64))(p, weights, in, out, room); break;
            case COUNT: HS_AS(count)(p, in, out); break;
            case WINDOWS: HS_AS(windows)(p, in, out); break;
            case CARRY: HS_AS(carry)(p, in, out); break;
            case CLIP: HS_AS(clip)(n, FLIPPED(WIDE(p[7])), FLIPPED(WIDE(p[8])), in, out); break;
            case BEND: HS_AS(bend)(p, in, out); break;
            case ADD: HS_AS(add)(n, in, numbers + p[7], out); break;
            default:
                for (size_t j = 0; j < n; j++) ((cell *)(void *)w->scores)[i * outputs + j] = (cell)in[j];
                break;
            }
        }
}

#undef WIDE
#undef WIDE16
#undef PAIR
#undef FLIPPED
#undef ABOVE
#undef TURNED
#undef TIMES
#undef VECTOR_BYTES
#undef SHIFTED

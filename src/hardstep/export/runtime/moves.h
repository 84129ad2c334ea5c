/* What moves bits without summing, in plain C: pooling, what is packed already. */
#ifndef HS_MOVES_H
#define HS_MOVES_H

#include "program.h"

/* Packed input as it is, without what lies beyond the last channel. */
static void bits(const step *s, const work *w) {
    const size_t many = w->n * s->h * s->w;
    const uint64_t last = s->c % 64 ? ((uint64_t)1 << (s->c % 64)) - 1 : ~(uint64_t)0;
    memcpy(w->out, w->codes, many * s->out_words * sizeof(word));
    for (size_t i = 0; i < many; i++) w->out[(i + 1) * s->out_words - 1] &= last;
}

static void emit(const step *s, const work *w) {
    memcpy(w->scores, w->in, w->n * s->h * s->w * s->in_planes * s->in_words * sizeof(word));
}

/* best = max(best, with), codes in planes `stride` words apart: where the highest differing plane is set in `with`. */
static void largest(word *best, const word *with, size_t planes_, size_t stride) {
    uint64_t open = ~(uint64_t)0, take = 0;
    for (size_t p = planes_; p-- > 0;) {
        const uint64_t differs = best[p * stride] ^ with[p * stride];
        take |= open & differs & with[p * stride];
        open &= ~differs;
    }
    for (size_t p = 0; p < planes_; p++) best[p * stride] ^= (best[p * stride] ^ with[p * stride]) & take;
}

/* The largest code of each window. A position's planes lie `stride` words apart, positions `next` words. */
static void pool(const step *s, const work *w) {
    const size_t of_samples = s->lanes ? s->in_words : 0, stride = s->lanes ? of_samples * s->c : s->in_words;
    const size_t next = s->in_planes * stride + of_samples, many = s->lanes ? 1 : w->n;
    const size_t fy = s->frame >> 16, fx = s->frame & 0xffffu, pitch = s->ow + 2 * fx;
    const size_t given = (s->oh + 2 * fy) * pitch * next;
    if (s->frame) memset(w->out, 0, given * sizeof(word));
    for (size_t i = 0; i < many; i++)
        for (size_t at = 0; at < (size_t)s->oh * s->ow; at++) {
            const size_t y = at / s->ow, x = at % s->ow;
            word *out = w->out + i * given + ((y + fy) * pitch + x + fx) * next;
            for (size_t tap = 0; tap < (size_t)s->kh * s->kw; tap++) {
                const size_t row = y * s->sy + tap / s->kw, column = x * s->sx + tap % s->kw;
                const word *in = w->in + ((i * s->h + row) * s->w + column) * next;
                if (tap == 0)
                    memcpy(out, in, next * sizeof(word));
                else if (s->in_planes == 1)
                    for (size_t k = 0; k < stride; k++) out[k] |= in[k];
                else
                    for (size_t k = 0; k < stride; k++) largest(out + k, in + k, s->in_planes, stride);
            }
        }
}

#endif

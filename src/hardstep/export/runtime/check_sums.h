/* The program of a network with real sums: every instruction stays in its room, its words and its weights. */
#ifndef HS_CHECK_SUMS_H
#define HS_CHECK_SUMS_H

#include "program.h"

/* So many numbers from there on, in a room of so many; sizes below 2^60. */
static int inside(uint64_t from, uint64_t many, uint64_t room) { return many <= room && from <= room - many; }

static int between_(uint32_t x, uint32_t low, uint32_t high) { return x >= low && x <= high; }

/* A sum: kernel, strides and padding belong together; weights of whole groups of units; room to work in. */
static int good_sum(const cell *p, uint64_t weights, uint64_t room) {
    if (!between_(p[7], 1, 65528) || !between_(p[10], 1, 255) || !between_(p[11], 1, 255) || p[12] > 255 || p[13] > 255) return 0;
    if (!between_(p[8], 1, p[5] + 2 * p[12]) || !between_(p[9], 1, p[6] + 2 * p[13]) || p[17] > 62) return 0;
    if ((p[14] != 2 && p[14] != 4 && p[14] != 8) || !between_(p[15], 1, 2)) return 0;
    const layout v = layout_of(p);
    const uint64_t groups = (p[7] + UNITS - 1) / UNITS;
    if (v.terms > 1u << 24 || v.cells > 1u << 28 || v.span > 1u << 28) return 0;
    return inside(p[16], groups * UNITS * v.terms * p[15], weights) && room_of(&v, p[14]) <= room;
}

/* Words of an instruction, of which those before `left` are there; 0 if it is none. */
static uint64_t sums_words(const cell *p, uint64_t left) {
    static const uint32_t heads[] = {SUMS_HEAD, SUM_WORDS, 8, 16, 10, 9, 8, 8, SUMS_HEAD};
    if (left < SUMS_HEAD || p[0] > SCORES || left < heads[p[0]]) return 0;
    const uint64_t c = p[4];
    if (p[0] == SUM) return SUM_WORDS + 2 * c + UNIT_WORDS * (uint64_t)p[7];
    return heads[p[0]] + (p[0] == COUNT ? c * p[7] : p[0] == BEND ? 3 * c : 0);
}

/* Numbers that an instruction makes; 0 if it is not sound. */
static uint64_t sums_made(const step *s, uint32_t outputs, const cell *p, uint64_t room) {
    const uint64_t c = p[4], h = p[5], w = p[6], n = c * h * w;
    if (p[0] == LOAD) return n == (uint64_t)s->c * s->h * s->w ? n : 0;
    if (p[0] == SCORES) return n == outputs ? n : 0;
    if (p[0] == SUM) {
        if (!good_sum(p, s->thresholds_bytes, room)) return 0;
        const layout v = layout_of(p);
        return p[7] * v.oh * v.ow;
    }
    if (p[0] == WINDOWS) {
        for (size_t i = 11; i < 15; i++)
            if (p[i] > 255) return 0;
        const uint64_t high = h + p[11] + p[12], wide = w + p[13] + p[14];
        if (p[7] < 1 || p[7] > high || p[8] < 1 || p[8] > wide || p[9] < 1 || p[10] < 1 || p[15] > 1) return 0;
        return c * ((high - p[7]) / p[9] + 1) * ((wide - p[8]) / p[10] + 1);
    }
    if (p[0] == CARRY) {
        if (!between_(p[7], 1, 65528) || p[8] > 65528 || p[9] > 65528) return 0;
        return (c + p[8] + p[9]) * ((h + p[7] - 1) / p[7]) * ((w + p[7] - 1) / p[7]);
    }
    return p[0] == BEND && p[7] > 62 ? 0 : n;
}

/* All instructions: `shift` are the numbers of its room, those that travel and what a sum works in; scores come last. */
static int good_program(const step *s, uint32_t outputs, const cell *p, uint64_t words) {
    if (words < 1 || p[0] > s->shift || s->shift > 1u << 28) return 0;
    const uint64_t numbers = p[0], room = s->shift - numbers;
    const cell *at = p + 1, *const end = p + words;
    uint32_t last = LOAD;
    for (; at < end; at += at[1]) {
        const uint64_t wanted = sums_words(at, (uint64_t)(end - at));
        if (wanted == 0 || at[1] != wanted || wanted > (uint64_t)(end - at) || last == SCORES) return 0;
        for (size_t i = 4; i < SUMS_HEAD; i++)
            if (!between_(at[i], 1, 65528)) return 0;
        const uint64_t read = (uint64_t)at[4] * at[5] * at[6], made = sums_made(s, outputs, at, room);
        if (made == 0 || (at[0] != LOAD && !inside(at[2], read, numbers))) return 0;
        if (at[0] != SCORES && !inside(at[3], made, numbers)) return 0;
        if (at[0] == ADD && !inside(at[7], read, numbers)) return 0;
        last = at[0];
    }
    return last == SCORES;
}

#endif

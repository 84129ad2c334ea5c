/* The steps of a model as they lie in its buffer, what they read and write, and the table of kernels. */
#ifndef HS_PROGRAM_H
#define HS_PROGRAM_H

#include <string.h>

#include "hardstep.h"
#ifndef HS_SMALL
#include "positions.h"
#endif

#define HS_MAGIC 0x50545348u /* "HSTP" */
#define HS_VERSION 1u
#define HS_STEPS 64u      /* most steps of a model */
#define HS_HEAD 64u       /* bytes of the head */
#define HS_STEP_BYTES 128u
#ifndef __GNUC__
#undef HS_MAX_LANES
#define HS_MAX_LANES 64 /* other compilers have no vectors */
#elif !defined(HS_MAX_LANES)
#define HS_MAX_LANES 512 /* widest lanes that are compiled */
#endif

#if defined(__GNUC__)
#define HS_ALIAS __attribute__((may_alias))
#else
#define HS_ALIAS
#endif

typedef uint64_t HS_ALIAS word;
typedef uint16_t HS_ALIAS entry;
typedef int16_t HS_ALIAS weight16;
typedef int32_t HS_ALIAS sum32;
typedef uint32_t HS_ALIAS cell; /* of a plane of a front end, or a word of its program */
#if defined(__GNUC__)
typedef uint32_t block __attribute__((vector_size(32), aligned(4), may_alias)); /* 8 of them */
#else
typedef cell block;
#endif

enum {
    PLANES = 1,  /* input bytes to bit planes, one position */
    BYTES = 2,   /* input bytes times weights, to bits or scores */
    OUTPUTS = 3, /* bits to bits, lanes are outputs */
    SAMPLES = 4, /* bits to bits or scores, lanes are samples */
    POOL = 5,    /* the largest code of each window, in either layout */
    TURN = 6,    /* lanes of outputs to lanes of samples */
    BACK = 7,    /* and back */
    ROWS = 8,    /* bits to bits or scores, rows of weights are added */
    BITS = 9,    /* input that is packed already: [position][words] */
    EMIT = 10,   /* bits as they lie in place of scores: [position][plane][words] */
    FRONT = 11,  /* input bytes to bytes that stand for them, by a program on planes of numbers */
    SUMS = 12    /* input bytes to scores, by a program on numbers in fixed point */
};

/* One step. Bits lie as [sample][position][plane][words], or with lanes of samples as
 * [position, with a frame][plane and channel, then one row of zeros][words]. */
typedef struct {
    uint32_t kind, lanes;
    uint32_t c, h, w, in_planes, in_words; /* what it reads; words of a plane or of a row */
    uint32_t units, kh, kw, sy, sx, py, px, oh, ow;
    uint32_t stairs, out_planes, out_words; /* what it gives; stairs 0 are scores */
    uint32_t acc_planes, weight_planes, shift;
    int32_t offset, start; /* weight = (planes << shift) + offset; a sum starts at `start` */
    uint32_t classes;      /* sets of thresholds */
    uint32_t weights, weights_bytes, thresholds, thresholds_bytes, places, places_bytes; /* in the buffer */
    uint32_t frame; /* lanes of samples: the reader's padding around what is given, y << 16 | x */
} step;

/* What a weight on bytes has beyond what 16-bit sums of two products hold; the count of a group's list comes first. */
typedef struct HS_ALIAS {
    uint32_t term;
    uint16_t unit;
    int16_t more;
} excess;

/* What a step works on: the buffer, the two maps, samples in this tile, and room for lists. */
typedef struct {
    const unsigned char *data;
    const uint8_t *codes;
    const word *in;
    word *out;
    entry *lists;
    int32_t *scores;
    uint32_t inputs, outputs;
    size_t n;
} work;

typedef void (*kernel)(const step *, const work *);

typedef struct {
    kernel planes, bytes, rows, front, sums, outputs[4], samples[4], turn[4], back[4]; /* lanes 64, 128, 256, 512 */
} kernels;

/* Entries that a list takes: 8 for its length, then its own padded to 8; building and reading ahead go past the end. */
#define LIST_ROOM(count) (((size_t)(count) + 7u) / 8u * 8u + 24u)

/* A position whose kernel is the whole image needs no gathering: all its rows are one list. */
static inline int flat(const step *s) { return s->kh == s->h && s->kw == s->w && s->py == 0 && s->px == 0; }

static inline size_t sites(const step *s) { return flat(s) ? 1 : (size_t)s->h * s->w; }

static inline size_t site_codes(const step *s) { return flat(s) ? (size_t)s->c * s->h * s->w : s->c; }

static inline size_t terms(const step *s) { return (size_t)s->c * s->kh * s->kw; }

/* Four bytes of input, or two numbers of 16 bits, that a product of bytes takes in one step. */
static inline size_t byte_steps(const step *s) { return s->weight_planes == 8 ? (terms(s) + 3) / 4 : (terms(s) + 1) / 2; }

/* Positions whose bytes are gathered together, in fours: many only if they share weights of more than one vector. */
static inline size_t byte_rows(const step *s, size_t samples) {
    const uint64_t all = (uint64_t)samples * s->oh * s->ow, most = s->units > 16 ? 64 : 8;
    return all >= most ? (size_t)most : (size_t)(all + 3) / 4 * 4;
}

/* Rows of a position with lanes of samples: one a plane and channel, and one of zeros. */
static inline size_t rows_in(const step *s) { return (size_t)s->in_planes * s->c + 1; }

/* The instructions of a front end's program; it begins with registers, height and width of a plane, reflection. */
enum { LOAD_CODES = 0, FILTER = 1, ACTIVATE = 2, POOL_PLANE = 3, EMIT_CODES = 4, FRONT_HEAD = 4 };

static inline size_t instruction_words(const cell *p) {
    return p[0] == FILTER ? 7 + 2 * (size_t)p[6] : p[0] == EMIT_CODES ? 8 + 2 * (size_t)p[7] : p[0] == LOAD_CODES ? 5
        : p[0] == ACTIVATE ? 7 : 8;
}

/* Numbers of a row of a plane, in whole blocks. */
static inline size_t pitch_of(size_t width) { return (width + 7) / 8 * 8; }

/* The instructions of a network with real sums. The program begins with how many numbers of 64 bits it has room for; each
 * instruction with its code, its words, where the numbers that it reads lie, where what it makes, channels, height and
 * width of what it reads. Then come, for a
 *   SUM: units, kernel, stride, padding, bytes of a cell, bytes of a weight, where its weights begin, shift; for each
 *        channel gain and zero; for each unit multiplier and offset, 64 bits, and two bounds
 *   COUNT: stairs; for each channel its thresholds        WINDOWS: size, stride, padding on four sides, whether a total
 *   CARRY: stride, channels before and behind             CLIP: two bounds
 *   BEND: shift; for each channel knee, slope and lift     ADD: where the other numbers lie
 */
enum { LOAD = 0, SUM, COUNT, WINDOWS, CARRY, CLIP, BEND, ADD, SCORES, SUMS_HEAD = 7, SUM_WORDS = 18, UNIT_WORDS = 6, UNITS = 4 };

/* What a sum works with: the value 0 stands around the planes; a stride parts each into as many as it has places. */
typedef struct {
    uint64_t pitch, plane, cells, terms, oh, ow, span; /* a plane's row, numbers; all planes', of a sum, positions */
} layout;

static inline layout layout_of(const cell *p) {
    const uint64_t h = (uint64_t)p[5] + 2 * (uint64_t)p[12], w = (uint64_t)p[6] + 2 * (uint64_t)p[13], many = 64 / p[14];
    layout v;
    v.pitch = (w + p[11] - 1) / p[11];
    v.plane = (h + p[10] - 1) / p[10] * v.pitch;
    v.cells = (uint64_t)p[4] * p[10] * p[11] * v.plane;
    v.terms = (uint64_t)p[4] * p[8] * p[9];
    v.oh = (h - p[8]) / p[10] + 1;
    v.ow = (w - p[9]) / p[11] + 1;
    v.span = ((v.oh - 1) * v.pitch + v.ow + many - 1) / many * many;
    return v;
}

/* Numbers of 64 bits that a sum has to work in: where its terms lie, planes, sums and weights of some units. */
static inline uint64_t room_of(const layout *v, uint64_t bytes) {
    return (v->terms + 1) / 2 + (bytes * (v->cells + (UNITS + 1) * v->span + UNITS * v->terms) + 7) / 8;
}

static inline uint32_t bit_length(uint32_t x) {
    uint32_t n = 0;
    while (x) n++, x >>= 1;
    return n;
}

#endif

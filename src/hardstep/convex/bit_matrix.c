/* hardstep: products of packed 0/1 columns. See bit_matrix.h; the vector kernels are in bit_lanes.h. */

#include "bit_matrix.h"

#include <math.h>
#include <string.h>

#if defined(__GNUC__)
#define HS_ALIAS __attribute__((may_alias))
#else
#define HS_ALIAS
#endif

#if defined(__GNUC__)
#define FETCH(from) __builtin_prefetch(from)
#else
#define FETCH(from) ((void)(from))
#endif

#define COLUMNS 128u /* of a group */
#define ROWS 512u    /* of a step: one line of the cache of every column */
#define LINES 128u   /* of a step: 4 rows each */
#define TABLE_ROWS 8u /* of a table of the baseline */

static const unsigned char nothing[64];

#if defined(__GNUC__) && defined(__x86_64__)
#define HS_X86
#include <immintrin.h>

/* both[16 a + b] = bits that a and b share. */
static const unsigned char both[256] = {
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1,
    0, 0, 1, 1, 0, 0, 1, 1, 0, 0, 1, 1, 0, 0, 1, 1, 0, 1, 1, 2, 0, 1, 1, 2, 0, 1, 1, 2, 0, 1, 1, 2,
    0, 0, 0, 0, 1, 1, 1, 1, 0, 0, 0, 0, 1, 1, 1, 1, 0, 1, 0, 1, 1, 2, 1, 2, 0, 1, 0, 1, 1, 2, 1, 2,
    0, 0, 1, 1, 1, 1, 2, 2, 0, 0, 1, 1, 1, 1, 2, 2, 0, 1, 1, 2, 1, 2, 2, 3, 0, 1, 1, 2, 1, 2, 2, 3,
    0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 0, 1, 0, 1, 0, 1, 0, 1, 1, 2, 1, 2, 1, 2, 1, 2,
    0, 0, 1, 1, 0, 0, 1, 1, 1, 1, 2, 2, 1, 1, 2, 2, 0, 1, 1, 2, 0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3,
    0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 0, 1, 0, 1, 1, 2, 1, 2, 1, 2, 1, 2, 2, 3, 2, 3,
    0, 0, 1, 1, 1, 1, 2, 2, 1, 1, 2, 2, 2, 2, 3, 3, 0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4};

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,bmi,bmi2,popcnt"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,bmi,bmi2,popcnt")
#endif
#define ISA avx2
#define BYTES 32u
#define EACH(x) x(0) x(1) x(2) x(3)
#define QUARTER(from, part) _mm_loadu_si128((const __m128i *)(const void *)((from) + (part)))
#define GATHER(lines, part) \
    ((VEC)_mm256_inserti128_si256(_mm256_castsi128_si256(QUARTER((lines)[0], part)), QUARTER((lines)[16], part), 1))
#define LOW(a, b) ((VEC)_mm256_unpacklo_epi8((__m256i)(a), (__m256i)(b)))
#define HIGH(a, b) ((VEC)_mm256_unpackhi_epi8((__m256i)(a), (__m256i)(b)))
#define TABLE(from) ((VEC)_mm256_broadcastsi128_si256(QUARTER(from, 0)))
#define SHUFFLE(table, idx) ((VEC)_mm256_shuffle_epi8((__m256i)(table), (__m256i)(idx)))
#include "bit_lanes.h"
#if defined(__clang__)
#pragma clang attribute pop
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512vl,avx2,bmi,bmi2,popcnt"))), apply_to = function)
#else
#pragma GCC pop_options
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512vl,avx2,bmi,bmi2,popcnt")
#endif
#define ISA avx512
#define BYTES 64u
#define EACH(x) x(0) x(1)
#define GATHER(lines, part)                                                                                    \
    ((VEC)_mm512_inserti32x4(                                                                                  \
        _mm512_inserti32x4(_mm512_inserti32x4(_mm512_castsi128_si512(QUARTER((lines)[0], part)),               \
                                              QUARTER((lines)[16], part), 1),                                  \
                           QUARTER((lines)[32], part), 2),                                                     \
        QUARTER((lines)[48], part), 3))
#define LOW(a, b) ((VEC)_mm512_unpacklo_epi8((__m512i)(a), (__m512i)(b)))
#define HIGH(a, b) ((VEC)_mm512_unpackhi_epi8((__m512i)(a), (__m512i)(b)))
#define TABLE(from) ((VEC)_mm512_broadcast_i32x4(QUARTER(from, 0)))
#define SHUFFLE(table, idx) ((VEC)_mm512_shuffle_epi8((__m512i)(table), (__m512i)(idx)))
#include "bit_lanes.h"
#if defined(__clang__)
#pragma clang attribute pop
#pragma clang attribute push(__attribute__((target("avx512f,avx512vpopcntdq"))), apply_to = function)
#else
#pragma GCC pop_options
#pragma GCC push_options
#pragma GCC target("avx512f,avx512vpopcntdq")
#endif
/* Counts of 4 x 4 pairs of columns. */
static void tile_vpopcntdq(const uint64_t *const *left, const uint64_t *const *right, size_t width, double *tile) {
#define FOUR(x, i) x(i, 0) x(i, 1) x(i, 2) x(i, 3)
#define PAIRS(x) FOUR(x, 0) FOUR(x, 1) FOUR(x, 2) FOUR(x, 3)
#define ZERO(i, j) __m512i sum##i##j = _mm512_setzero_si512();
#define COUNT(i, j) \
    sum##i##j = _mm512_add_epi64(sum##i##j, _mm512_popcnt_epi64(_mm512_and_si512(l##i, r##j)));
#define GIVE(i, j) tile[4 * i + j] = (double)_mm512_reduce_add_epi64(sum##i##j);
#define READ(name, from, i) const __m512i name##i = _mm512_loadu_si512(from[i] + k);
    PAIRS(ZERO)
    for (size_t k = 0; k < width; k += 8) {
        READ(l, left, 0) READ(l, left, 1) READ(l, left, 2) READ(l, left, 3)
        READ(r, right, 0) READ(r, right, 1) READ(r, right, 2) READ(r, right, 3)
        PAIRS(COUNT)
    }
    PAIRS(GIVE)
#undef FOUR
#undef PAIRS
#undef ZERO
#undef READ
#undef COUNT
#undef GIVE
}
#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#endif

typedef struct {
    void (*turn)(const unsigned char *const *, unsigned char *);
    void (*look)(const unsigned char *, const unsigned char *, uint16_t *);
    void (*widen)(uint16_t *, uint32_t *);
    void (*match)(const unsigned char *, const unsigned char *, const unsigned char *, uint16_t *);
} bit_kernels;

static const bit_kernels kernels_of[] = {
    {NULL, NULL, NULL, NULL},
#ifdef HS_X86
    {turn_avx2, look_avx2, widen_avx2, match_avx2},
    {turn_avx512, look_avx512, widen_avx512, match_avx512},
    {turn_avx512, look_avx512, widen_avx512, match_avx512},
#endif
};

int hs_bits_isa(void) {
#ifdef HS_X86
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl")
        && __builtin_cpu_supports("bmi2"))
        return __builtin_cpu_supports("avx512vpopcntdq") ? 3 : 2;
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi2")) return 1;
#endif
    return 0;
}

size_t hs_bits_tables_size(int isa, size_t n, unsigned digits) {
    const size_t steps = (n + ROWS - 1) / ROWS;
    return isa ? steps * digits * LINES * 16 : steps * (ROWS / TABLE_ROWS) * 256 * sizeof(double);
}

size_t hs_bits_scratch_size(size_t outputs, unsigned digits) {
    const size_t pull = outputs * digits * COLUMNS * (sizeof(uint16_t) + sizeof(uint32_t));
    const size_t gram = COLUMNS * COLUMNS * sizeof(uint16_t);
    return LINES * COLUMNS + (pull > gram ? pull : gram);
}

#include "bit_tables.h"

/* D' v by look-ups of the bytes of each column. */
static void pull_bytes(const uint64_t *words, size_t columns, size_t width, size_t steps, const double *tables,
                       size_t outputs, double *out) {
    for (size_t step = 0; step < steps; step++)
        for (size_t c = 0; c < outputs; c++)
            for (size_t part = 0; part < 8; part += 2) { /* 16 tables stay in the first cache */
                const double *table = tables + ((step * outputs + c) * 64 + part * 8) * 256;
                for (size_t j = 0; j < columns; j++) {
                    double even = 0, odd = 0;
                    const uint64_t one = words[j * width + step * 8 + part], two = words[j * width + step * 8 + part + 1];
                    for (unsigned i = 0; i < 8; i++) {
                        even += table[256 * i + ((one >> (8 * i)) & 255)];
                        odd += table[256 * (i + 8) + ((two >> (8 * i)) & 255)];
                    }
                    out[j * outputs + c] += even + odd;
                }
            }
}

/* The lines of a step of a group; columns that are not there are empty. */
static void lines_of(const uint64_t *words, size_t columns, size_t width, size_t step, const unsigned char **lines) {
    const size_t ahead = step * 8 + 16 < width ? 16 : 0; /* too many columns for the machine to foresee it */
    for (size_t j = 0; j < COLUMNS; j++) {
        lines[j] = j < columns ? (const unsigned char *)(words + j * width + step * 8) : nothing;
        if (j < columns) FETCH(words + j * width + step * 8 + ahead);
    }
}

void hs_bits_pull(int isa, const uint64_t *words, size_t columns, size_t width, size_t steps, const unsigned char *tables,
                  size_t outputs, const double *scale, unsigned digits, double *out, void *scratch) {
    if (!isa) {
        pull_bytes(words, columns, width, steps, (const double *)(const void *)tables, outputs, out);
        return;
    }
    const size_t many = outputs * digits;
    unsigned char *idx = (unsigned char *)scratch;
    uint32_t *whole = (uint32_t *)(void *)(idx + LINES * COLUMNS);
    uint16_t *sums = (uint16_t *)(void *)(whole + many * COLUMNS);
    const unsigned char *lines[COLUMNS];
    for (size_t begin = 0; begin < columns; begin += COLUMNS) {
        const size_t count = columns - begin < COLUMNS ? columns - begin : COLUMNS;
        memset(whole, 0, many * COLUMNS * (sizeof(uint32_t) + sizeof(uint16_t)));
        for (size_t step = 0; step < steps; step++) {
            lines_of(words + begin * width, count, width, step, lines);
            kernels_of[isa].turn(lines, idx);
            for (size_t i = 0; i < many; i++)
                kernels_of[isa].look(idx, tables + (step * many + i) * LINES * 16, sums + i * COLUMNS);
            if (step % 4 == 3 || step + 1 == steps) /* 4 x 64 x 254 < 2^16 */
                for (size_t i = 0; i < many; i++) kernels_of[isa].widen(sums + i * COLUMNS, whole + i * COLUMNS);
        }
        for (size_t j = 0; j < count; j++)
            for (size_t c = 0; c < outputs; c++) {
                const uint32_t *of = whole + c * digits * COLUMNS + j % 4 * (COLUMNS / 4) + j / 4;
                int64_t part[2] = {0, 0}; /* digits 0 to 3, and the others */
                for (unsigned digit = 0; digit < digits; digit++)
                    part[digit > 3] += (int64_t)((uint64_t)of[digit * COLUMNS] << (digit > 3 ? 7 * digit - 28 : 7 * digit));
                part[digits > 4] -= (int64_t)(steps * LINES) << (digits > 4 ? 7 * digits - 30 : 7 * digits - 2);
                out[(begin + j) * outputs + c] += ((double)part[0] + (double)part[1] * 268435456.0) / scale[c];
            }
    }
}

#define EXCHANGE(low, high, shift, mask)                              \
    do {                                                              \
        const uint64_t t_ = (((low) >> (shift)) ^ (high)) & (mask);   \
        (high) ^= t_, (low) ^= t_ << (shift);                         \
    } while (0)

/* Words of 64 rows of 8 columns -> in byte i of word part the bits of row 8 part + i. */
static void turn_words(uint64_t *x) {
    for (unsigned i = 0; i < 4; i++) EXCHANGE(x[i], x[i + 4], 32, 0x00000000FFFFFFFFu);
    for (unsigned i = 0; i < 6; i += i % 2 ? 3 : 1) EXCHANGE(x[i], x[i + 2], 16, 0x0000FFFF0000FFFFu);
    for (unsigned i = 0; i < 8; i += 2) EXCHANGE(x[i], x[i + 1], 8, 0x00FF00FF00FF00FFu);
    for (unsigned i = 0; i < 8; i++) { /* now of each word the 8 x 8 bits */
        uint64_t t = (x[i] ^ (x[i] >> 7)) & 0x00AA00AA00AA00AAu;
        x[i] ^= t ^ (t << 7);
        t = (x[i] ^ (x[i] >> 14)) & 0x0000CCCC0000CCCCu;
        x[i] ^= t ^ (t << 14);
        t = (x[i] ^ (x[i] >> 28)) & 0x00000000F0F0F0F0u;
        x[i] ^= t ^ (t << 28);
    }
}

/* Add to 64 rows of `outputs` sums what the table has for their bytes. */
static void add_rows(const uint64_t *bytes, const double *table, size_t outputs, double *sum) {
#define BYTE(row) ((bytes[(row) / 8] >> ((row) % 8 * 8)) & 255)
    if (outputs == 1) {
        for (size_t i = 0; i < 64; i++) sum[i] += table[BYTE(i)];
        return;
    }
    for (size_t i = 0; i < 64; i++, sum += outputs) {
        const double *from = table + BYTE(i) * outputs;
        size_t c = 0;
#if defined(__GNUC__)
        typedef double HS_ALIAS four __attribute__((vector_size(32), aligned(8)));
        for (; c + 4 <= outputs; c += 4) *(four *)(sum + c) += *(const four *)(from + c);
#endif
        for (; c < outputs; c++) sum[c] += from[c];
    }
}

void hs_bits_push(const uint64_t *words, const int64_t *list, size_t columns, size_t width, const double *u,
                  size_t outputs, size_t first, size_t last, double *tables, double *out) {
    for (size_t begin = 0; begin < columns; begin += 8)
        for (size_t c = 0; c < outputs; c++) {
            double number[8], sums[256];
            for (size_t i = 0; i < 8; i++) number[i] = begin + i < columns ? u[(begin + i) * outputs + c] : 0;
            SUMS(sums, number, 8);
            for (size_t i = 0; i < 256; i++) tables[(begin * 32 + i) * outputs + c] = sums[i];
        }
    for (size_t from = first; from < last; from += 64) { /* 4,096 rows of the result stay in the cache */
        const size_t to = last - from < 64 ? last : from + 64;
        for (size_t begin = 0; begin < columns; begin += 8) {
            const uint64_t *word[8];
            const double *table = tables + begin * 32 * outputs;
            for (size_t i = 0; i < 8; i++) /* a column that is not there counts 0 */
                word[i] = words + (size_t)list[begin + i < columns ? begin + i : begin] * width;
            for (size_t at = from; at < to; at++) {
                uint64_t bytes[8];
                for (size_t i = 0; i < 8; i++) bytes[i] = word[i][at];
                turn_words(bytes);
                add_rows(bytes, table, outputs, out + at * 64 * outputs);
            }
        }
    }
}

#ifdef HS_X86
/* Counts of 4 columns with 4 others at a time. */
static void gram_counts(const uint64_t *words, size_t columns, const uint64_t *other, size_t others, size_t width,
                        double *out, size_t pitch) {
    for (size_t i = 0; i < columns; i += 4)
        for (size_t j = 0; j < others; j += 4) {
            const uint64_t *left[4], *right[4];
            double tile[16];
            for (size_t k = 0; k < 4; k++) {
                left[k] = words + (i + k < columns ? i + k : i) * width;
                right[k] = other + (j + k < others ? j + k : j) * width;
            }
            tile_vpopcntdq(left, right, width, tile);
            for (size_t k = 0; k < 16; k++)
                if (i + k / 4 < columns && j + k % 4 < others) out[(i + k / 4) * pitch + j + k % 4] = tile[k];
        }
}
#endif

void hs_bits_gram(int isa, const uint64_t *words, size_t columns, const uint64_t *other, size_t others, size_t width,
                  double *out, size_t pitch, void *scratch) {
    unsigned char *idx = (unsigned char *)scratch;
    uint16_t *sums = (uint16_t *)(void *)(idx + LINES * COLUMNS);
    const size_t steps = width / 8;
    const unsigned char *lines[COLUMNS];
#ifdef HS_X86
    if (isa == 3) {
        gram_counts(words, columns, other, others, width, out, pitch);
        return;
    }
#endif
    for (size_t i = 0; i < columns; i++)
        for (size_t j = 0; j < others; j++) out[i * pitch + j] = 0;
    for (size_t begin = 0; begin < columns; begin += COLUMNS)
        for (size_t right = 0; right < others; right += COLUMNS) {
            const size_t count = columns - begin < COLUMNS ? columns - begin : COLUMNS;
            const size_t given = others - right < COLUMNS ? others - right : COLUMNS;
            memset(sums, 0, COLUMNS * COLUMNS * sizeof(uint16_t));
            for (size_t step = 0; step < steps; step++) {
                lines_of(words + begin * width, count, width, step, lines);
                kernels_of[isa].turn(lines, idx);
                lines_of(other + right * width, given, width, step, lines);
                for (size_t j = 0; j < given; j += 2)
                    kernels_of[isa].match(idx, lines[j], lines[j + 1], sums + j * COLUMNS);
                if (step % 127 == 126 || step + 1 == steps) { /* 127 x 512 < 2^16 */
                    for (size_t i = 0; i < count; i++)
                        for (size_t j = 0; j < given; j++)
                            out[(begin + i) * pitch + right + j] += sums[j * COLUMNS + (i % 2) * COLUMNS / 2 + i / 2];
                    memset(sums, 0, COLUMNS * COLUMNS * sizeof(uint16_t));
                }
            }
        }
}

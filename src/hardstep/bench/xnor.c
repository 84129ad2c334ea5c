/* An exact XNOR-popcount layer, ours and for comparison only: how fast packed bits go without the bit-sliced engine.
 *
 *     cc -O2 -march=native -shared -fPIC -o libxnor.so xnor.c
 *
 * 0/1 inputs x and -1/+1 weights (bit 1 = +1): sum = 2 popcount(x & w) - popcount(x), so a unit fires if
 * popcount(x & w) > (t + popcount(x)) >> 1. With -1/+1 inputs it would be XOR for AND, at the same cost.
 *
 * Tiles of 2 samples by 4 units, a single sample by 8 units; a byte is looked up by its halves (pshufb), and counts stay
 * in bytes for up to 31 vectors. Vectors are 512 bits with AVX-512BW, else 256 with AVX2; with VPOPCNTDQ that one is
 * used. Long rows are added up in carry-save form first (Harley-Seal). Tried and not faster on Zen 3: low and high
 * halves stored apart, which saves a shift and a mask but reads twice the bytes (1.05 x at 1024 inputs, 0.8 at 4096). */
#include <immintrin.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined(__AVX512BW__)
typedef __m512i V;
#define BYTES 64
#define LOAD(p) _mm512_loadu_si512((const void *)(p))
#define AND _mm512_and_si512
#define ADD8 _mm512_add_epi8
#define ADD64 _mm512_add_epi64
#define SAD(v) _mm512_sad_epu8(v, _mm512_setzero_si512())
#define SHUFFLE _mm512_shuffle_epi8
#define SHIFT4(v) _mm512_srli_epi16(v, 4)
#define SET1(c) _mm512_set1_epi8(c)
#define ZERO() _mm512_setzero_si512()
#define XOR3(a, b, c) _mm512_ternarylogic_epi64(a, b, c, 0x96)
#define MAJORITY(a, b, c) _mm512_ternarylogic_epi64(a, b, c, 0xe8)
#define TABLE() _mm512_broadcast_i32x4(_mm_setr_epi8(0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4))
static inline __m256i half(V v) { return _mm256_add_epi64(_mm512_castsi512_si256(v), _mm512_extracti64x4_epi64(v, 1)); }
#else
typedef __m256i V;
#define BYTES 32
#define LOAD(p) _mm256_loadu_si256((const __m256i *)(p))
#define AND _mm256_and_si256
#define ADD8 _mm256_add_epi8
#define ADD64 _mm256_add_epi64
#define SAD(v) _mm256_sad_epu8(v, _mm256_setzero_si256())
#define SHUFFLE _mm256_shuffle_epi8
#define SHIFT4(v) _mm256_srli_epi16(v, 4)
#define SET1(c) _mm256_set1_epi8(c)
#define ZERO() _mm256_setzero_si256()
#define XOR3(a, b, c) _mm256_xor_si256(_mm256_xor_si256(a, b), c)
#define MAJORITY(a, b, c) \
    _mm256_or_si256(_mm256_and_si256(a, b), _mm256_and_si256(_mm256_xor_si256(a, b), c))
#define TABLE() _mm256_broadcastsi128_si256(_mm_setr_epi8(0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4))
static inline __m256i half(V v) { return v; }
#endif

#define MOST (31 * BYTES) /* before bytes of at most 8 overflow */
#ifndef LONG_ROW /* vectors a row from which carry-save adders pay for their flush */
#if defined(__AVX512VPOPCNTDQ__)
#define LONG_ROW 1000000
#elif defined(__AVX512BW__)
#define LONG_ROW 16
#else
#define LONG_ROW 24
#endif
#endif

int xnor_bytes(void) { return BYTES; }

/* Popcount of every byte. */
static inline V bytes_of(V v) {
    const V low = SET1(15), table = TABLE();
    return ADD8(SHUFFLE(table, AND(v, low)), SHUFFLE(table, AND(SHIFT4(v), low)));
}

/* Eight vectors of 64-bit parts to eight 32-bit sums. */
static inline __m256i sums_of(__m256i a, __m256i b, __m256i c, __m256i d, __m256i e, __m256i f, __m256i g, __m256i h) {
    a = _mm256_or_si256(a, _mm256_slli_epi64(b, 32));
    c = _mm256_or_si256(c, _mm256_slli_epi64(d, 32));
    e = _mm256_or_si256(e, _mm256_slli_epi64(f, 32));
    g = _mm256_or_si256(g, _mm256_slli_epi64(h, 32));
    a = _mm256_add_epi32(_mm256_unpacklo_epi64(a, c), _mm256_unpackhi_epi64(a, c));
    e = _mm256_add_epi32(_mm256_unpacklo_epi64(e, g), _mm256_unpackhi_epi64(e, g));
    return _mm256_add_epi32(_mm256_permute2x128_si256(a, e, 0x20), _mm256_permute2x128_si256(a, e, 0x31));
}

/* Popcount of x & w in 64-bit parts, rows of many vectors, by carry-save adders. */
static inline V harley_seal(const uint8_t *x, const uint8_t *w, long row_bytes) {
    V ones = ZERO(), twos = ZERO(), fours = ZERO(), total = ZERO(), eights = ZERO();
    const long blocks = row_bytes / (8 * BYTES);
    long waiting = 0;
#define PRODUCT(i) AND(LOAD(x + (i) * BYTES), LOAD(w + (i) * BYTES))
#define ADDER(sum, carry, p, q) \
    do { \
        const V p_ = (p), q_ = (q); \
        carry = MAJORITY(p_, q_, sum); \
        sum = XOR3(p_, q_, sum); \
    } while (0)
    for (long i = 0; i < blocks; i++, x += 8 * BYTES, w += 8 * BYTES) {
        V a, b, c, d;
        ADDER(ones, a, PRODUCT(0), PRODUCT(1));
        ADDER(ones, b, PRODUCT(2), PRODUCT(3));
        ADDER(twos, c, a, b);
        ADDER(ones, a, PRODUCT(4), PRODUCT(5));
        ADDER(ones, b, PRODUCT(6), PRODUCT(7));
        ADDER(twos, d, a, b);
        ADDER(fours, a, c, d);
        eights = ADD8(eights, bytes_of(a));
        if (++waiting == 31) {
            total = ADD64(total, SAD(eights));
            eights = ZERO();
            waiting = 0;
        }
    }
    total = ADD64(total, SAD(eights));
    total = ADD64(total, total);
    total = ADD64(total, total);
    total = ADD64(total, total);
    V rest = bytes_of(fours); /* at most 8 (4 + 2 + 1) a byte */
    rest = ADD8(ADD8(rest, rest), bytes_of(twos));
    rest = ADD8(ADD8(rest, rest), bytes_of(ones));
    total = ADD64(total, SAD(rest));
    V tail = ZERO();
    for (long i = 0; i < row_bytes % (8 * BYTES); i += BYTES) tail = ADD8(tail, bytes_of(AND(LOAD(x + i), LOAD(w + i))));
    return ADD64(total, SAD(tail));
}

#define EIGHT(DO) DO(0) DO(1) DO(2) DO(3) DO(4) DO(5) DO(6) DO(7)
#define NAME_BYTES(j) V c##j = ZERO();
#define NAME_TOTAL(j) V s##j = ZERO();
#define FLUSH(j) s##j = ADD64(s##j, SAD(c##j)), c##j = ZERO();
#define SUMS() sums_of(half(s0), half(s1), half(s2), half(s3), half(s4), half(s5), half(s6), half(s7))

/* Counts of 2 samples by 4 units: sample 0 in the low half. */
static inline __m256i tile(const uint8_t *x0, const uint8_t *x1, const uint8_t *w, long row_bytes) {
    EIGHT(NAME_TOTAL)
#define UNIT(j, k) { const V u = LOAD(w + j * row_bytes + i); COUNT(a, j, u) COUNT(b, k, u) }
#if defined(__AVX512VPOPCNTDQ__)
#define COUNT(x, j, u) s##j = ADD64(s##j, _mm512_popcnt_epi64(AND(x, u)));
    for (long i = 0; i < row_bytes; i += BYTES) {
        const V a = LOAD(x0 + i), b = LOAD(x1 + i);
        UNIT(0, 4) UNIT(1, 5) UNIT(2, 6) UNIT(3, 7)
    }
#else
#define COUNT(x, j, u) c##j = ADD8(c##j, bytes_of(AND(x, u)));
    EIGHT(NAME_BYTES)
    for (long start = 0; start < row_bytes; start += MOST) {
        const long end = start + MOST < row_bytes ? start + MOST : row_bytes;
        for (long i = start; i < end; i += BYTES) {
            const V a = LOAD(x0 + i), b = LOAD(x1 + i);
            UNIT(0, 4) UNIT(1, 5) UNIT(2, 6) UNIT(3, 7)
        }
        EIGHT(FLUSH)
    }
#endif
    return SUMS();
}

/* Counts of one sample by 8 units, plain words. */
static inline __m256i row_tile(const uint8_t *x, const uint8_t *w, long row_bytes) {
    EIGHT(NAME_TOTAL)
#if defined(__AVX512VPOPCNTDQ__)
#define ONE(j) s##j = ADD64(s##j, _mm512_popcnt_epi64(AND(a, LOAD(w + j * row_bytes + i))));
    for (long i = 0; i < row_bytes; i += BYTES) {
        const V a = LOAD(x + i);
        EIGHT(ONE)
    }
#else
    EIGHT(NAME_BYTES)
#define ONE(j) c##j = ADD8(c##j, bytes_of(AND(a, LOAD(w + j * row_bytes + i))));
    for (long start = 0; start < row_bytes; start += MOST) {
        const long end = start + MOST < row_bytes ? start + MOST : row_bytes;
        for (long i = start; i < end; i += BYTES) {
            const V a = LOAD(x + i);
            EIGHT(ONE)
        }
        EIGHT(FLUSH)
    }
#endif
    return SUMS();
}

static inline __m256i long_tile(const uint8_t *x, const uint8_t *w, long row_bytes) {
#define LONG(j) V s##j = harley_seal(x, w + j * row_bytes, row_bytes);
    EIGHT(LONG)
    return SUMS();
}

/* Packed outputs, a byte for 8 units, of n samples; m a multiple of 8, row_bytes of xnor_bytes(), unused bits 0.
 * set[n] = popcount of each sample. With sums not null, the sums are written too, for checks. */
void xnor_layer(const uint8_t *x, const int32_t *set, const uint8_t *w, const int32_t *threshold, uint8_t *out,
                int32_t *sums, long n, long m, long row_bytes) {
    const int is_long = row_bytes >= (long)LONG_ROW * BYTES;
    for (long j = 0; j < m; j += 8, w += 8 * row_bytes) { /* 8 units stay in L1 while the samples pass */
        const __m256i t = _mm256_loadu_si256((const __m256i *)(threshold + j));
        for (long i = 0; i < n; i += 2) {
            const long next = i + 1 < n ? i + 1 : i;
            const uint8_t *x0 = x + i * row_bytes, *x1 = x + next * row_bytes;
            __m256i count[2];
            if (is_long || n == 1) {
                count[0] = is_long ? long_tile(x0, w, row_bytes) : row_tile(x0, w, row_bytes);
                count[1] = next == i ? count[0] : long_tile(x1, w, row_bytes);
            } else {
                const __m256i a = tile(x0, x1, w, row_bytes), b = tile(x0, x1, w + 4 * row_bytes, row_bytes);
                count[0] = _mm256_permute2x128_si256(a, b, 0x20);
                count[1] = _mm256_permute2x128_si256(a, b, 0x31);
            }
            for (long k = 0; k <= next - i; k++) {
                const __m256i s = _mm256_set1_epi32(set[i + k]);
                const __m256i limit = _mm256_srai_epi32(_mm256_add_epi32(t, s), 1);
                const __m256i fires = _mm256_cmpgt_epi32(count[k], limit);
                out[(i + k) * (m / 8) + j / 8] = (uint8_t)_mm256_movemask_ps(_mm256_castsi256_ps(fires));
                if (sums)
                    _mm256_storeu_si256((__m256i *)(sums + (i + k) * m + j),
                                        _mm256_sub_epi32(_mm256_add_epi32(count[k], count[k]), s));
            }
        }
    }
}

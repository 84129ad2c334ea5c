/* Tables of the sums of v over groups of rows, from which products of packed columns are looked up. */

/* table[bits] = sum of the numbers whose bits are set, of 2^count entries. */
#define SUMS(table, number, count)                                            \
    do {                                                                      \
        (table)[0] = 0;                                                       \
        for (size_t i_ = 0; i_ < (count); i_++)                               \
            for (size_t j_ = 0; j_ < (size_t)1 << i_; j_++)                   \
                (table)[((size_t)1 << i_) + j_] = (table)[j_] + (number)[i_]; \
    } while (0)

#ifdef HS_X86
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2")
#endif
#define WHOLE(x) ((uint64_t)_mm_cvtsd_si64(_mm_set_sd(x)))
/* The sums of 4 rounded numbers in digits of 7 bits, lowest first, 16 bytes of a digit, digits LINES * 16 bytes apart. */
static void digits_of(const double *number, double scale, unsigned digits, unsigned char *to) {
    typedef uint64_t HS_ALIAS four __attribute__((vector_size(32)));
    const uint64_t a = WHOLE(number[0] * scale), b = WHOLE(number[1] * scale);
    const uint64_t c = WHOLE(number[2] * scale), d = WHOLE(number[3] * scale);
    const uint64_t least = (uint64_t)1 << (7 * digits - 2); /* added, so that no sum is negative */
    four sum[4], spread[4];
    sum[0] = (four){least, least + a, least + b, least + a + b};
    sum[1] = sum[0] + c;
    sum[2] = sum[0] + d;
    sum[3] = sum[1] + d;
    for (size_t i = 0; i < 4; i++) {
        four x = {0};
        for (unsigned digit = 0; digit < digits && digit < 8; digit++) /* digit to byte */
            x |= (sum[i] << digit) & ((uint64_t)127 << (8 * digit));
        spread[i] = x;
    }
#define TWO(x, y, i, j, low, high) \
    const __m128i y##low = _mm_unpacklo_epi8(x##i, x##j), y##high = _mm_unpackhi_epi8(x##i, x##j);
#define STAGE(x, y) TWO(x, y, 0, 4, 0, 1) TWO(x, y, 1, 5, 2, 3) TWO(x, y, 2, 6, 4, 5) TWO(x, y, 3, 7, 6, 7)
#define READ(i) const __m128i p##i = _mm_loadu_si128((const __m128i *)(const void *)spread + i);
#define WRITE(i) if (i < digits) _mm_storeu_si128((__m128i *)(void *)(to + i * LINES * 16), t##i);
    READ(0) READ(1) READ(2) READ(3) READ(4) READ(5) READ(6) READ(7)
    STAGE(p, q) STAGE(q, r) STAGE(r, s) STAGE(s, t) /* 16 sums of 8 bytes -> 8 lines of 16 */
    WRITE(0) WRITE(1) WRITE(2) WRITE(3) WRITE(4) WRITE(5) WRITE(6) WRITE(7)
#undef TWO
#undef STAGE
#undef READ
#undef WRITE
    for (size_t i = 0; digits > 8 && i < 16; i++) to[8 * LINES * 16 + i] = (unsigned char)(sum[i / 4][i % 4] >> 56);
}
#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#endif

void hs_bits_sizes(const double *v, size_t n, size_t outputs, double *largest, double *total) {
    for (size_t c = 0; c < outputs; c++) {
        double most = 0, sum = 0;
        for (size_t i = c; i < n * outputs; i += outputs) {
            const double size = fabs(v[i]);
            most = size > most ? size : most;
            sum += size;
        }
        largest[c] = most;
        total[c] = sum;
    }
}

void hs_bits_tables(int isa, const double *v, size_t n, size_t outputs, const double *scale, unsigned digits,
                    unsigned char *tables) {
    const size_t steps = (n + ROWS - 1) / ROWS, group = isa ? 4 : TABLE_ROWS, groups = ROWS / group;
    for (size_t step = 0; step < steps; step++)
        for (size_t c = 0; c < outputs; c++)
            for (size_t g = 0; g < groups; g++) {
                double number[TABLE_ROWS];
                for (size_t i = 0; i < group; i++) {
                    const size_t row = step * ROWS + g * group + i;
                    number[i] = row < n ? v[row * outputs + c] : 0;
                }
                if (!isa) {
                    double *to = (double *)(void *)tables + ((step * outputs + c) * groups + g) * 256;
                    SUMS(to, number, TABLE_ROWS);
                    continue;
                }
#ifdef HS_X86
                digits_of(number, scale[c], digits, tables + (((step * outputs + c) * digits) * LINES + g) * 16);
#endif
            }
    (void)scale;
    (void)digits;
}

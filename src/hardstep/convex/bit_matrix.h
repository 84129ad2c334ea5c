/* hardstep: products of packed 0/1 columns with real vectors, and their Gram matrix.
 *
 * A column is `width` words of 64 rows, lowest bit first, width a multiple of 8, zeros behind the last row. Nothing is
 * allocated and there are no globals: threads may share what they read, each with its own part of `out` and `scratch`.
 */
#ifndef HS_BIT_MATRIX_H
#define HS_BIT_MATRIX_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* 0 baseline of the compiler, 1 AVX2, 2 AVX-512, 3 with VPOPCNTDQ: the best one here. */
int hs_bits_isa(void);

/* Bytes of the tables of one output over n rows, and of the scratch of one call of hs_bits_pull or hs_bits_gram. */
size_t hs_bits_tables_size(int isa, size_t n, unsigned digits);
size_t hs_bits_scratch_size(size_t outputs, unsigned digits);

/* The largest size of each column of v, and the sum of their sizes (not a finite number if one of them is none). */
void hs_bits_sizes(const double *v, size_t n, size_t outputs, double *largest, double *total);

/* Tables of sums of v (n rows, `outputs` numbers each) over groups of rows. Baseline: sums of 8 rows, as doubles.
 * Others: sums of 4 rows as `digits` digits of 7 bits (1 to 9); v times `scale` is rounded, at most 2^(7 digits - 4). */
void hs_bits_tables(int isa, const double *v, size_t n, size_t outputs, const double *scale, unsigned digits,
                    unsigned char *tables);

/* out (columns x outputs) += D' v over the first `steps` times 512 rows, at most 2^16 steps, from their tables; scale as
 * given for those. */
void hs_bits_pull(int isa, const uint64_t *words, size_t columns, size_t width, size_t steps, const unsigned char *tables,
                  size_t outputs, const double *scale, unsigned digits, double *out, void *scratch);

/* out (64 width x outputs) += D u over the columns in the list, in the rows of words [first, last) only; room for
 * 256 x outputs doubles for every 8 columns. */
void hs_bits_push(const uint64_t *words, const int64_t *list, size_t columns, size_t width, const double *u,
                  size_t outputs, size_t first, size_t last, double *tables, double *out);

/* out (columns x others, rows `pitch` apart) += D' E, exact; not for the baseline. */
void hs_bits_gram(int isa, const uint64_t *words, size_t columns, const uint64_t *other, size_t others, size_t width,
                  double *out, size_t pitch, void *scratch);

#ifdef __cplusplus
}
#endif

#endif

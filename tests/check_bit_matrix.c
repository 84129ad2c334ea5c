/* Packed products against plain loops, in buffers of exactly the stated sizes, for the sanitisers to watch.
 *
 *     cc -g -fsanitize=address,undefined -I CONVEX tests/check_bit_matrix.c CONVEX/bit_matrix.c -lm -o check && ./check
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "bit_matrix.h"

static uint32_t state = 1;

static uint32_t draw(void) { return state = state * 1664525u + 1013904223u, state >> 8; }

static int bit(const uint64_t *words, size_t width, size_t column, size_t row) {
    return (int)((words[column * width + row / 64] >> (row % 64)) & 1u);
}

static uint64_t *matrix(size_t n, size_t columns, size_t width) {
    uint64_t *words = calloc(columns * width + 1, sizeof *words);
    for (size_t j = 0; j < columns; j++)
        for (size_t i = 0; i < n; i++) words[j * width + i / 64] |= (uint64_t)(draw() % 3 == 0) << (i % 64);
    return words;
}

static int check(size_t n, size_t columns, size_t others, size_t outputs, int isa, unsigned digits) {
    const size_t width = (n + 511) / 512 * 8;
    uint64_t *words = matrix(n, columns, width), *other = matrix(n, others, width);
    double *v = malloc(n * outputs * sizeof *v), *u = malloc(columns * outputs * sizeof *u);
    double *scale = malloc(outputs * sizeof *scale), *size = malloc(2 * outputs * sizeof *size);
    double *pulled = calloc(columns * outputs, sizeof *pulled), *pushed = calloc(width * 64 * outputs, sizeof *pushed);
    double *gram = malloc(columns * others * sizeof *gram), *sums = malloc((columns + 7) / 8 * 256 * outputs * sizeof *sums);
    int64_t *list = malloc(columns * sizeof *list);
    unsigned char *tables = malloc(hs_bits_tables_size(isa, n, digits) * outputs);
    void *scratch = malloc(hs_bits_scratch_size(outputs, digits));
    int bad = 0;
    for (size_t i = 0; i < n * outputs; i++) v[i] = (double)(draw() % 19) - 9;
    for (size_t i = 0; i < columns * outputs; i++) u[i] = (double)(draw() % 19) - 9;
    for (size_t j = 0; j < columns; j++) list[j] = (int64_t)j;
    hs_bits_sizes(v, n, outputs, size, size + outputs);
    for (size_t c = 0; c < outputs; c++) {
        bad += !(size[c] <= 9 && size[c] <= size[outputs + c]);
        scale[c] = ldexp(1, (int)(7 * digits) - 8);
    }
    hs_bits_tables(isa, v, n, outputs, scale, digits, tables);
    hs_bits_pull(isa, words, columns, width, width / 8, tables, outputs, scale, digits, pulled, scratch);
    hs_bits_push(words, list, columns, width, u, outputs, 0, width, sums, pushed);
    for (size_t c = 0; c < outputs; c++) {
        for (size_t j = 0; j < columns; j++) {
            double sum = 0;
            for (size_t i = 0; i < n; i++) sum += bit(words, width, j, i) * v[i * outputs + c];
            bad += !(fabs(sum - pulled[j * outputs + c]) <= 1e-9);
        }
        for (size_t i = 0; i < width * 64; i++) {
            double sum = 0;
            for (size_t j = 0; j < columns; j++) sum += bit(words, width, j, i) * u[j * outputs + c];
            bad += !(fabs(sum - pushed[i * outputs + c]) <= 1e-9);
        }
    }
    if (isa) {
        hs_bits_gram(isa, words, columns, other, others, width, gram, others, scratch);
        for (size_t j = 0; j < columns; j++)
            for (size_t k = 0; k < others; k++) {
                int sum = 0;
                for (size_t i = 0; i < n; i++) sum += bit(words, width, j, i) & bit(other, width, k, i);
                bad += gram[j * others + k] != sum;
            }
    }
    free(words), free(other), free(v), free(u), free(scale), free(size), free(pulled), free(pushed);
    free(gram), free(sums), free(list), free(tables), free(scratch);
    if (bad) printf("%d wrong: n %zu, %zu and %zu columns, %zu outputs, isa %d, %u digits\n", bad, n, columns, others,
                    outputs, isa, digits);
    return bad;
}

int main(void) {
    static const size_t rows[] = {1, 512, 2113}, columns[] = {1, 8, 131}, digits[] = {2, 4, 7, 9};
    int bad = 0, done = 0;
    for (int isa = 0; isa <= hs_bits_isa(); isa++)
        for (size_t i = 0; i < 3; i++)
            for (size_t j = 0; j < 3; j++)
                for (size_t k = 0; k < 4; k++, done++)
                    bad += check(rows[i], columns[j], 1 + draw() % 140, 1 + draw() % 6, isa, (unsigned)digits[k]);
    printf("%d checks, %d wrong\n", done, bad);
    return bad != 0;
}

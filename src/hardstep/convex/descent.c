/* Block coordinate descent on a Gram matrix: the one loop of the solvers that is not a product of matrices. */

#include <math.h>
#include <stddef.h>
#include <stdint.h>

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && defined(__linux__)
#define HS_CLONES __attribute__((optimize("O3"), target_clones("avx512f", "avx2", "default")))
#else
#define HS_CLONES
#endif

/* Minimise 1/2 tr U'GU - <B,U> + beta sum_j |U_j|_2 over one row of U after the other, `passes` times over the listed
 * columns. u and q = B - GU are c x p, gram is p x p. Returns the largest |dU_j| sqrt(G_jj) of the last pass. */
double hs_descend(size_t p, size_t c, const double *gram, double beta, const int64_t *list, size_t count,
                  size_t passes, double *u, double *q);

HS_CLONES double hs_descend(size_t p, size_t c, const double *gram, double beta, const int64_t *list, size_t count,
                            size_t passes, double *u, double *q)
{
    double largest = 0.0;
    for (size_t pass = 0; pass < passes; pass++) {
        largest = 0.0;
        for (size_t i = 0; i < count; i++) {
            const size_t j = (size_t)list[i];
            const double *row = gram + j * p;
            const double scale = row[j];
            double square = 0.0, moved = 0.0;
            if (scale <= 0.0) continue;
            for (size_t k = 0; k < c; k++) {
                const double a = q[k * p + j] + scale * u[k * p + j];
                square += a * a;
            }
            const double norm = sqrt(square);
            const double keep = norm > beta ? (1.0 - beta / norm) / scale : 0.0;
            for (size_t k = 0; k < c; k++) {
                const double old = u[k * p + j];
                const double now = keep * (q[k * p + j] + scale * old);
                const double d = now - old;
                if (d != 0.0) {
                    double *restrict pull = q + k * p;
                    for (size_t l = 0; l < p; l++) pull[l] -= row[l] * d;
                    u[k * p + j] = now;
                    moved += d * d;
                }
            }
            if (moved * scale > largest) largest = moved * scale;
        }
    }
    return sqrt(largest);
}

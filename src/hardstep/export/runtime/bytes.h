/* 8-bit inputs times weights, in 32-bit sums; and sums compared with thresholds.
 *
 * Included after lists.h for every instruction set. The inputs are bytes, or codes that lie as bits. Weights of 8 bits
 * lie as [16 units][4 terms][unit][4], and where AVX2 may run them on codes of 8 bits, they are such that two
 * neighbouring products never leave 16 bits: |w| of one sign sum to at most 128 in each pair. What a weight has beyond
 * that is its excess, a list of (term, unit, excess) for each 16 units. Weights of 16 bits lie as
 * [16 units][2 terms][unit][2] and have none.
 */

#ifdef HS_DOTS
#define TILE 8 /* positions that share a pass over the weights */
#else
#define TILE 4
#endif

#if defined(HS_DOTS)
#define LOADED(at) _mm512_loadu_si512((const void *)(at))
#define FOUR_BYTES(row, k) _mm512_set1_epi32(((const sum32 *)(const void *)(patch + (row) * stride))[k])
#define ZEROED(row) __m512i sum##row = _mm512_setzero_si512();
#define STORED(row) _mm512_storeu_si512((void *)(sums + 16 * (row)), sum##row);
#define NARROW(row) sum##row = _mm512_dpbusd_epi32(sum##row, FOUR_BYTES(row, k), weight);
#define WIDE(row) sum##row = _mm512_dpwssd_epi32(sum##row, FOUR_BYTES(row, k), weight);
#define NARROW_STEP(next) \
    sum##next = _mm512_dpbusd_epi32(sum##next, FOUR_BYTES(0, k + next), LOADED(weights + 64 * (k + next)));
#define WIDE_STEP(next) \
    sum##next = _mm512_dpwssd_epi32(sum##next, FOUR_BYTES(0, k + next), LOADED(weights + 64 * (k + next)));
#define FOUR(work) work(0) work(1) work(2) work(3)
#define EIGHT(work) FOUR(work) work(4) work(5) work(6) work(7)
#define OVER_TERMS(work)                                 \
    for (size_t k = 0; k < steps; k++, weights += 64) {  \
        const __m512i weight = LOADED(weights);          \
        work                                             \
    }
#define ONE_PATCH(four, one)                                                            \
    for (; k + 4 <= steps; k += 4) { FOUR(four) }                                       \
    for (; k < steps; k++) {                                                            \
        const __m512i weight = LOADED(weights + 64 * k);                                \
        one(0)                                                                          \
    }

/* Sums of `rows` patches, 1, 4 or 8, by the weights of 16 units; `steps` of four bytes each, or two 16-bit numbers. */
static void HS_AS(sixteen)(const step *s, const unsigned char *weights, const unsigned char *patch, size_t steps,
                           size_t stride, size_t rows, sum32 *sums) {
    if (rows == 1) { /* four sums, as each waits for the one before */
        size_t k = 0;
        FOUR(ZEROED)
        if (s->weight_planes == 8) {
            ONE_PATCH(NARROW_STEP, NARROW)
        } else {
            ONE_PATCH(WIDE_STEP, WIDE)
        }
        sum0 = _mm512_add_epi32(_mm512_add_epi32(sum0, sum1), _mm512_add_epi32(sum2, sum3));
        STORED(0)
    } else if (rows == 4) {
        FOUR(ZEROED)
        if (s->weight_planes == 8) {
            OVER_TERMS(FOUR(NARROW))
        } else {
            OVER_TERMS(FOUR(WIDE))
        }
        FOUR(STORED)
    } else {
        EIGHT(ZEROED)
        if (s->weight_planes == 8) {
            OVER_TERMS(EIGHT(NARROW))
        } else {
            OVER_TERMS(EIGHT(WIDE))
        }
        EIGHT(STORED)
    }
}

#undef LOADED
#undef FOUR_BYTES
#undef ZEROED
#undef STORED
#undef NARROW
#undef WIDE
#undef NARROW_STEP
#undef WIDE_STEP
#undef FOUR
#undef EIGHT
#undef OVER_TERMS
#undef ONE_PATCH
#elif defined(HS_PAIRS)
#define LOADED(at) _mm256_loadu_si256((const __m256i *)(const void *)(at))
#define STORED(at, value) _mm256_storeu_si256((__m256i *)(void *)(at), value)
#define FOUR_BYTES(row) _mm256_set1_epi32(((const sum32 *)(const void *)(patch + (row) * stride))[k])
#define NARROW(row)                                                                                 \
    x = FOUR_BYTES(row);                                                                            \
    low##row = _mm256_add_epi32(low##row, _mm256_madd_epi16(_mm256_maddubs_epi16(x, low), ones));   \
    high##row = _mm256_add_epi32(high##row, _mm256_madd_epi16(_mm256_maddubs_epi16(x, high), ones))
#define WIDE(row)                                                     \
    x = FOUR_BYTES(row);                                              \
    low##row = _mm256_add_epi32(low##row, _mm256_madd_epi16(low, x)); \
    high##row = _mm256_add_epi32(high##row, _mm256_madd_epi16(high, x))
#define OVER_TERMS(work)                                                    \
    for (size_t k = 0; k < steps; k++, weights += 64) {                     \
        const __m256i low = LOADED(weights), high = LOADED(weights + 32);   \
        __m256i x;                                                          \
        work;                                                               \
    }

/* Sums of `rows` patches, TILE or 1, by the weights of 16 units; `steps` of four bytes each, or two 16-bit numbers. */
static void HS_AS(sixteen)(const step *s, const unsigned char *weights, const unsigned char *patch, size_t steps,
                           size_t stride, size_t rows, sum32 *sums) {
    const __m256i ones = _mm256_set1_epi16(1);
    __m256i low0 = _mm256_setzero_si256(), high0 = low0, low1 = low0, high1 = low0;
    __m256i low2 = low0, high2 = low0, low3 = low0, high3 = low0;
    if (s->weight_planes == 8 && rows == 1) {
        OVER_TERMS(NARROW(0))
    } else if (s->weight_planes == 8) {
        OVER_TERMS(NARROW(0); NARROW(1); NARROW(2); NARROW(3))
    } else if (rows == 1) {
        OVER_TERMS(WIDE(0))
    } else {
        OVER_TERMS(WIDE(0); WIDE(1); WIDE(2); WIDE(3))
    }
    STORED(sums, low0), STORED(sums + 8, high0), STORED(sums + 16, low1), STORED(sums + 24, high1);
    STORED(sums + 32, low2), STORED(sums + 40, high2), STORED(sums + 48, low3), STORED(sums + 56, high3);
}

#undef LOADED
#undef STORED
#undef FOUR_BYTES
#undef NARROW
#undef WIDE
#undef OVER_TERMS
#else
static void HS_AS(sixteen)(const step *s, const unsigned char *weights, const unsigned char *patch, size_t steps,
                           size_t stride, size_t rows, sum32 *sums) {
    uint32_t *const total = (uint32_t *)sums; /* a hostile model may wrap */
    for (size_t i = 0; i < TILE * 16; i++) total[i] = 0;
    for (size_t i = 0; i < rows; i++)
        for (size_t k = 0; k < steps; k++) {
            const unsigned char *four = patch + i * stride + 4 * k;
            if (s->weight_planes == 8) {
                const signed char *row = (const signed char *)weights + k * 64;
                if ((four[0] | four[1] | four[2] | four[3]) == 0) continue;
                for (size_t j = 0; j < 16; j++, row += 4)
                    total[i * 16 + j] += (uint32_t)(row[0] * four[0] + row[1] * four[1] + row[2] * four[2] + row[3] * four[3]);
            } else {
                const weight16 *row = (const weight16 *)(const void *)weights + k * 32;
                const int32_t one = ((const weight16 *)(const void *)four)[0], two = ((const weight16 *)(const void *)four)[1];
                if (one == 0 && two == 0) continue;
                for (size_t j = 0; j < 16; j++)
                    total[i * 16 + j] += (uint32_t)(row[2 * j] * one + row[2 * j + 1] * two);
            }
        }
}
#endif

/* Codes that lie as bits, a plane every `words`, become bytes. */
static void HS_AS(unpack)(const step *s, const word *bits, unsigned char *out) {
    for (size_t at = 0; at < s->c; at += 64, bits++, out += 64) {
        const size_t n = s->c - at < 64 ? s->c - at : 64;
#if defined(HS_DOTS)
        __m512i x = _mm512_maskz_set1_epi8((__mmask64)bits[0], 1);
        for (size_t p = 1; p < s->in_planes; p++)
            x = _mm512_or_si512(x, _mm512_maskz_set1_epi8((__mmask64)bits[p * s->in_words], (char)(1u << p)));
        if (n == 64)
            _mm512_storeu_si512((void *)out, x);
        else
            _mm512_mask_storeu_epi8((void *)out, ~(uint64_t)0 >> (64 - n), x);
#else
        for (size_t i = 0; i < n; i += 8) {
            uint64_t eight = 0;
            for (size_t p = 0; p < s->in_planes; p++) {
                const uint64_t byte = bits[p * s->in_words] >> i & 255u;
#if defined(HS_PAIRS)
                eight |= _pdep_u64(byte, 0x0101010101010101u << p);
#else
                for (size_t j = 0; j < 8; j++) eight |= (byte >> j & 1u) << (8 * j + p);
#endif
            }
            for (size_t j = 0; j < 8 && i + j < n; j++) out[i + j] = (unsigned char)(eight >> (8 * j));
        }
#endif
    }
}

/* The codes under the kernel at one position as bytes, site by site as weights lie, out of bits. */
static void HS_AS(unpacked)(const step *s, const word *bits, size_t at, unsigned char *out) {
    for (size_t i = 0; i < s->kh; i++) {
        const size_t row = at / s->ow * s->sy + i - s->py;
        for (size_t j = 0; j < s->kw; j++, out += s->c) {
            const size_t column = at % s->ow * s->sx + j - s->px;
            if (row < s->h && column < s->w)
                HS_AS(unpack)(s, bits + (row * s->w + column) * s->in_planes * s->in_words, out);
            else
                memset(out, 0, s->c);
        }
    }
}

/* The codes under the kernel at one position, channel by channel as weights lie, as bytes or as 16-bit numbers. */
static void HS_AS(patch)(const step *s, const uint8_t *codes, size_t at, unsigned char *out) {
    weight16 *const numbers = (weight16 *)(void *)out;
    const int wide = s->weight_planes != 8;
    size_t next = 0;
    if (flat(s) && !wide) {
        memcpy(out, codes, terms(s));
        return;
    }
    for (size_t c = 0; c < s->c; c++)
        for (size_t i = 0; i < s->kh; i++) {
            const size_t row = at / s->ow * s->sy + i - s->py;
            for (size_t j = 0; j < s->kw; j++, next++) {
                const size_t column = at % s->ow * s->sx + j - s->px;
                const uint8_t code = row < s->h && column < s->w ? codes[(c * s->h + row) * s->w + column] : 0;
                if (wide)
                    numbers[next] = code;
                else
                    out[next] = code;
            }
        }
}

/* Compare the sums of 16 units at one position with their thresholds; put the codes into its planes. */
static void HS_AS(compare)(const step *s, const sum32 *sums, const sum32 *threshold, size_t unit, word *out) {
    const size_t shift = unit % 64, padded = (s->units + 15u) / 16u * 16u;
    uint32_t planes[8] = {0, 0, 0, 0, 0, 0, 0, 0};
    for (size_t i = 0; i < s->stairs; i++, threshold += padded) {
        uint32_t above = 0;
#if defined(HS_DOTS)
        above = _mm512_cmpgt_epi32_mask(_mm512_loadu_si512((const void *)sums), _mm512_loadu_si512((const void *)threshold));
#elif defined(HS_PAIRS)
        for (size_t j = 0; j < 16; j += 8) {
            const __m256i sum = _mm256_loadu_si256((const __m256i *)(const void *)(sums + j));
            const __m256i limit = _mm256_loadu_si256((const __m256i *)(const void *)(threshold + j));
            const __m256i over = _mm256_cmpgt_epi32(sum, limit);
            above |= (uint32_t)_mm256_movemask_ps(_mm256_castsi256_ps(over)) << j;
        }
#else
        for (size_t j = 0; j < 16; j++) above |= (uint32_t)(sums[j] > threshold[j]) << j;
#endif
        for (size_t j = 0; j < s->out_planes; j++) {
            const uint32_t carry = planes[j] & above;
            planes[j] ^= above;
            above = carry;
        }
    }
    for (size_t j = 0; j < s->out_planes; j++) {
        word *to = out + j * s->out_words + unit / 64;
        *to = (shift ? *to : 0) | (uint64_t)planes[j] << shift;
    }
}

/* Sums of 16 units on up to TILE patches, with what the weights have in excess. */
static void HS_AS(group)(const step *s, const unsigned char *weights, const excess *more, const unsigned char *patches,
                         size_t steps, size_t rows, sum32 *sums) {
    const size_t stride = steps * 4;
    HS_AS(sixteen)(s, weights, patches, steps, stride, rows == 1 ? 1 : rows <= 4 ? 4 : TILE, sums);
    for (uint32_t left = s->shift ? (more++)->term : 0u; left; left--, more++)
        for (size_t i = 0; i < rows; i++) {
            sum32 *const sum = sums + i * 16 + more->unit;
            *sum = (sum32)((uint32_t)*sum + (uint32_t)(more->more * patches[i * stride + more->term]));
        }
}

/* Codes times weights, to bits or to scores; the weights of 16 units stay in the cache for a block of patches. */
static void HS_AS(bytes)(const step *s, const work *w) {
    const size_t positions = (size_t)s->oh * s->ow, steps = byte_steps(s), stride = steps * 4;
    const size_t given = (size_t)s->out_planes * s->out_words, padded = (s->units + 15u) / 16u * 16u;
    const size_t many = w->n * positions, block = byte_rows(s, w->n);
    const entry *place = (const entry *)(w->data + s->places);
    const sum32 *threshold = (const sum32 *)(w->data + s->thresholds);
    unsigned char *patches = (unsigned char *)w->lists;
    sum32 sums[TILE * 16];
    if (s->stairs) /* words beyond the last 16 units */
        for (size_t i = 0; i < many * given; i++) w->out[i] = 0;
    for (size_t first = 0; first < many; first += block) {
        const size_t here = many - first < block ? many - first : block;
        const excess *more = (const excess *)(const void *)(w->data + s->weights + padded * steps * 4);
        if (here < block) memset(patches + here * stride, 0, (block - here) * stride);
        for (size_t i = 0; i < here; i++) {
            const size_t sample = (first + i) / positions, at = (first + i) % positions;
            memset(patches + (i + 1) * stride - 4, 0, 4); /* beyond the last term */
            if (s->in_words)
                HS_AS(unpacked)(s, w->in + sample * s->h * s->w * s->in_planes * s->in_words, at, patches + i * stride);
            else
                HS_AS(patch)(s, w->codes + sample * w->inputs, at, patches + i * stride);
        }
        for (size_t unit = 0; unit < s->units; unit += 16, more += s->shift ? 1 + more->term : 0)
            for (size_t i = 0; i < here; i++) {
                const size_t index = first + i, set = s->classes > 1 ? place[index % positions] : 0u;
                const sum32 *const sum = sums + i % TILE * 16;
                if (i % TILE == 0)
                    HS_AS(group)(s, w->data + s->weights + unit * steps * 4, more, patches + i * stride, steps,
                                 here - i < TILE ? here - i : TILE, sums);
                if (s->stairs)
                    HS_AS(compare)(s, sum, threshold + set * s->stairs * padded + unit, unit, w->out + index * given);
                else
                    for (size_t j = 0; j < 16 && unit + j < s->units; j++)
                        w->scores[index * s->units + unit + j] = (int32_t)((uint32_t)sum[j] + (uint32_t)threshold[unit + j]);
            }
    }
}

#undef TILE

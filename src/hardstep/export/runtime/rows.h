/* Rows of 8- or 16-bit weights of the set bits are added: read-outs, wide weights.
 *
 * Included after bytes.h for every instruction set.
 */

#ifdef HS_PAIRS
#define LOADED(at) _mm256_loadu_si256((const __m256i *)(const void *)(at))
#define NARROW(at) _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)(const void *)(at)))
#define FLUSHED(at, sum)                                                                            \
    do {                                                                                            \
        __m256i *const to_ = (__m256i *)(void *)(total + (at));                                     \
        const __m256i low_ = _mm256_cvtepu16_epi32(_mm256_castsi256_si128(sum));                    \
        const __m256i high_ = _mm256_cvtepu16_epi32(_mm256_extracti128_si256(sum, 1));              \
        _mm256_storeu_si256(to_, _mm256_add_epi32(_mm256_loadu_si256(to_), low_));                  \
        _mm256_storeu_si256(to_ + 1, _mm256_add_epi32(_mm256_loadu_si256(to_ + 1), high_));         \
    } while (0)
#endif

/* Sums of n <= 256 listed rows of 64 units: bytes weight + 128, in each 32 of them unit j beside unit 16 + j, so that
 * odd bytes and both together are added as 16-bit numbers: the odd sums cannot overflow, and taken from the sums of
 * both they leave the even ones. */
static void HS_AS(sixty_four)(const unsigned char *weights, const entry *list, size_t n, uint32_t *total) {
#ifdef HS_PAIRS
    __m256i a = _mm256_setzero_si256(), b = a, c = a, d = a;
    for (size_t k = 0; k < n; k++) {
        _mm_prefetch((const char *)(weights + ((size_t)list[k + 12] << 6)), _MM_HINT_T0);
        const __m256i x = LOADED(weights + ((size_t)list[k] << 6)), y = LOADED(weights + ((size_t)list[k] << 6) + 32);
        a = _mm256_add_epi16(a, x), b = _mm256_add_epi16(b, _mm256_srli_epi16(x, 8));
        c = _mm256_add_epi16(c, y), d = _mm256_add_epi16(d, _mm256_srli_epi16(y, 8));
    }
    a = _mm256_sub_epi16(a, _mm256_slli_epi16(b, 8)), c = _mm256_sub_epi16(c, _mm256_slli_epi16(d, 8));
    FLUSHED(0, a);
    FLUSHED(16, b);
    FLUSHED(32, c);
    FLUSHED(48, d);
#else
    for (size_t k = 0; k < n; k++) {
        const unsigned char *row = weights + ((size_t)list[k] << 6);
        for (size_t j = 0; j < 16; j++) {
            total[j] += row[2 * j], total[16 + j] += row[2 * j + 1];
            total[32 + j] += row[32 + 2 * j], total[48 + j] += row[33 + 2 * j];
        }
    }
#endif
}

/* Sums of the listed rows of `many` units, a multiple of 16, with weights of `wide` bytes; in 16-bit sums that are
 * widened before they overflow, after `most` rows. */
static void HS_AS(fewer)(const unsigned char *weights, const entry *list, size_t n, size_t many, size_t wide, size_t most,
                         uint32_t *total) {
    const size_t pitch = many * wide;
    for (size_t v = 0; v < many; v += 16, weights += 16 * wide)
        for (size_t k = 0; k < n;) {
            const size_t stop = n - k < most ? n : k + most;
#ifdef HS_PAIRS
            __m256i a = _mm256_setzero_si256(), b = a;
            int16_t part[16];
            if (pitch == 16) { /* a shift is cheaper than a product */
                for (; k + 2 <= stop; k += 2) {
                    a = _mm256_add_epi16(a, NARROW(weights + ((size_t)list[k] << 4)));
                    b = _mm256_add_epi16(b, NARROW(weights + ((size_t)list[k + 1] << 4)));
                }
                if (k < stop) a = _mm256_add_epi16(a, NARROW(weights + ((size_t)list[k++] << 4)));
            } else if (wide == 1) {
                for (; k + 2 <= stop; k += 2) {
                    a = _mm256_add_epi16(a, NARROW(weights + list[k] * pitch));
                    b = _mm256_add_epi16(b, NARROW(weights + list[k + 1] * pitch));
                }
                if (k < stop) a = _mm256_add_epi16(a, NARROW(weights + list[k++] * pitch));
            } else
                for (; k < stop; k++) a = _mm256_add_epi16(a, LOADED(weights + list[k] * pitch));
            _mm256_storeu_si256((__m256i *)(void *)part, _mm256_add_epi16(a, b));
#else
            int32_t part[16] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}; /* 65,535 rows of 16 bits fit */
            for (; k < stop; k++) {
                const unsigned char *row = weights + list[k] * pitch;
                for (size_t j = 0; j < 16; j++)
                    part[j] += wide == 1 ? ((const signed char *)row)[j] : ((const weight16 *)(const void *)row)[j];
            }
#endif
            for (size_t j = 0; j < 16; j++) {
                const int32_t sum = part[j];
                total[v + j] += (uint32_t)sum;
            }
        }
}

#ifdef HS_PAIRS
#undef LOADED
#undef NARROW
#undef FLUSHED
#endif

/* Sums of up to 64 units, from `first` on, over the lists of all planes; blocks of units lie behind each other. */
static void HS_AS(row_sums)(const step *s, const work *w, const entry *lists, size_t room, size_t first, uint32_t *sums) {
    const size_t padded = (s->units + 15u) / 16u * 16u, many = padded - first < 64 ? padded - first : 64;
    const size_t wide = s->weight_planes / 8u;
    const unsigned char *weights = w->data + s->weights + first * terms(s) * wide;
    for (size_t j = 0; j < 64; j++) sums[j] = 0;
    for (size_t p = 0; p < s->in_planes; p++) {
        const entry *list = lists + p * room + 8;
        const size_t n = lists[p * room + 1];
        uint32_t total[64];
        for (size_t j = 0; j < 64; j++) total[j] = 0;
        if (many == 64 && wide == 1) {
            for (size_t k = 0; k < n; k += 256)
                HS_AS(sixty_four)(weights, list + k, n - k < 256 ? n - k : 256, total);
            for (size_t j = 0; j < 64; j++) total[j] -= 128 * (uint32_t)n;
        } else
            HS_AS(fewer)(weights, list, n, many, wide, s->shift, total);
        for (size_t j = 0; j < 64; j++) sums[j] += total[j] << p;
    }
    if (s->offset != 1)
        for (size_t j = 0; j < 64; j++) sums[j] *= (uint32_t)s->offset;
}

/* Rows of weights of the set bits are added, to bits or to scores; `offset` is a common factor of all weights. */
static void HS_AS(rows)(const step *s, const work *w) {
    const size_t room = LIST_ROOM(site_codes(s)), wide = LIST_ROOM(terms(s));
    const size_t positions = (size_t)s->oh * s->ow, given = (size_t)s->out_planes * s->out_words;
    const size_t padded = (s->units + 15u) / 16u * 16u, sample = sites(s) * s->in_planes * room;
    const entry *place = (const entry *)(w->data + s->places);
    const sum32 *threshold = (const sum32 *)(w->data + s->thresholds);
    entry *gathered = w->lists + w->n * sample;
    uint32_t sums[64];
    HS_AS(lists)(s, w);
    if (s->stairs) /* words beyond the last 16 units */
        for (size_t i = 0; i < w->n * positions * given; i++) w->out[i] = 0;
    /* flat: a block of weights stays in the cache while all samples use it; else a position's list is made once */
    for (size_t i = 0; i < w->n * positions; i++) {
        if (flat(s)) break;
        const size_t at = i % positions, set = s->classes > 1 ? place[at] : 0u;
        HS_AS(gather)(s, w->lists + i / positions * sample, at / s->ow, at % s->ow, gathered);
        for (size_t first = 0; first < s->units; first += 64) {
            HS_AS(row_sums)(s, w, gathered, wide, first, sums);
            for (size_t unit = first; unit < s->units && unit < first + 64; unit += 16)
                HS_AS(compare)(s, (const sum32 *)sums + (unit - first), threshold + set * s->stairs * padded + unit, unit,
                               w->out + i * given);
        }
    }
    for (size_t first = 0; flat(s) && first < s->units; first += 64)
        for (size_t i = 0; i < w->n; i++) {
            HS_AS(row_sums)(s, w, w->lists + i * sample, room, first, sums);
            for (size_t unit = first; unit < s->units && unit < first + 64; unit += 16)
                if (s->stairs)
                    HS_AS(compare)(s, (const sum32 *)sums + (unit - first), threshold + unit, unit, w->out + i * given);
                else
                    for (size_t j = unit; j < unit + 16 && j < s->units; j++)
                        w->scores[i * s->units + j] = (int32_t)(sums[j - first] + (uint32_t)threshold[j]);
        }
}

#undef HS_PASTE
#undef HS_PASTED
#undef HS_AS

/* What works on bytes and numbers: lists of set bits, 8-bit inputs times weights, the read-out.
 *
 * Included once for every instruction set, with ISA defined, before lanes.h.
 */

#define HS_PASTE(a, b) a##_any_##b
#define HS_PASTED(a, b) HS_PASTE(a, b)
#define HS_AS(name) HS_PASTED(name, ISA)

#define TILE 4 /* positions that share a pass over the weights */

/* Append the places of the set bits of `words` words, counted from `base`; return the end. May write 8 too many. */
static entry *HS_AS(places)(entry *end, const word *bits, size_t words, size_t base) {
    for (size_t i = 0; i < words; i++, base += 64) {
        uint64_t rest = bits[i];
#ifdef HS_SMALL
        for (; rest; rest &= rest - 1) {
            uint32_t low = 0;
            while (!(rest >> low & 1u)) low++;
            *end++ = (entry)(base + low);
        }
#else
        for (size_t at = base; rest; rest >>= 8, at += 8) {
            const uint32_t byte = (uint32_t)(rest & 255u);
#ifdef HS_PAIRS
            const __m128i where = _mm_cvtepu8_epi16(_mm_loadl_epi64((const __m128i *)(const void *)(hs_positions + byte)));
            _mm_storeu_si128((__m128i *)(void *)end, _mm_add_epi16(where, _mm_set1_epi16((short)at)));
#else
            const uint64_t where = hs_positions[byte];
            for (size_t j = 0; j < 8; j++) end[j] = (entry)(at + (size_t)(where >> (8 * j) & 255u));
#endif
            end += hs_counts[byte];
        }
#endif
    }
    return end;
}

/* Write behind a list its length and the same padded to 8 with `zero`. */
static void HS_AS(seal)(entry *list, const entry *end, size_t zero) {
    const size_t n = (size_t)(end - (list + 8)), padded = (n + 7) / 8 * 8;
    for (size_t i = n; i < padded; i++) list[8 + i] = (entry)zero;
    list[0] = (entry)padded;
    list[1] = (entry)n;
}

/* List the set bits of every sample, site and plane of a tile. */
static void HS_AS(lists)(const step *s, const work *w) {
    const size_t all = (size_t)s->h * s->w, count = sites(s), parts = all / count;
    const size_t room = LIST_ROOM(site_codes(s)) + 8, stride = (size_t)s->in_planes * s->in_words;
    entry *list = w->lists;
    for (size_t i = 0; i < w->n; i++)
        for (size_t site = 0; site < count; site++)
            for (size_t p = 0; p < s->in_planes; p++, list += room) {
                const word *bits = w->in + (i * all + site * parts) * stride + p * s->in_words;
                entry *end = list + 8;
                for (size_t part = 0; part < parts; part++, bits += stride)
                    end = HS_AS(places)(end, bits, s->in_words, part * s->c);
                HS_AS(seal)(list, end, terms(s));
            }
}

/* Put the lists of the sites under the kernel at (y, x) behind each other, for each plane; taps outside give none. */
static void HS_AS(gather)(const step *s, const entry *lists, size_t y, size_t x, entry *out) {
    const size_t room = LIST_ROOM(site_codes(s)) + 8, wide = LIST_ROOM(terms(s)) + 8;
    for (size_t p = 0; p < s->in_planes; p++, out += wide) {
        entry *end = out + 8;
        for (size_t i = 0; i < s->kh; i++) {
            const size_t row = y * s->sy + i - s->py; /* wraps below 0, and is then too large */
            if (row >= s->h) continue;
            for (size_t j = 0; j < s->kw; j++) {
                const size_t column = x * s->sx + j - s->px;
                if (column >= s->w) continue;
                const entry *list = lists + ((row * s->w + column) * s->in_planes + p) * room;
                const size_t n = list[1], base = (i * s->kw + j) * s->c;
#ifdef HS_PAIRS
                const __m128i more = _mm_set1_epi16((short)base);
                for (size_t k = 0; k < n; k += 8) {
                    const __m128i some = _mm_loadu_si128((const __m128i *)(const void *)(list + 8 + k));
                    _mm_storeu_si128((__m128i *)(void *)(end + k), _mm_add_epi16(some, more));
                }
#else
                for (size_t k = 0; k < n; k += 8)
                    for (size_t l = 0; l < 8; l++) end[k + l] = (entry)(list[8 + k + l] + base);
#endif
                end += n;
            }
        }
        HS_AS(seal)(out, end, terms(s));
    }
}

/* Sums of `rows` patches, TILE or 1, by the weights of 16 units: pairs of 16-bit numbers, exact in 32 bits. */
#ifdef HS_PAIRS
#define LOADED(at) _mm256_loadu_si256((const __m256i *)(const void *)(at))
#define WIDENED(at) _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)(const void *)(at)))
#define STORED(at, value) _mm256_storeu_si256((__m256i *)(void *)(at), value)
#define PAIR(row) _mm256_set1_epi32(((const sum32 *)(const void *)(patch + (row) * stride))[k])
#define MADD(row)                                                     \
    x = PAIR(row);                                                    \
    low##row = _mm256_add_epi32(low##row, _mm256_madd_epi16(low, x)); \
    high##row = _mm256_add_epi32(high##row, _mm256_madd_epi16(high, x))
#define OVER_PAIRS(step, first, second, work)                         \
    for (size_t k = 0; k < pairs; k++, weights += (step)) {           \
        const __m256i low = first, high = second;                     \
        __m256i x;                                                    \
        work;                                                         \
    }
#define NARROW_OR_WIDE(work)                                                    \
    if (s->weight_planes == 8) {                                                \
        OVER_PAIRS(32, WIDENED(weights), WIDENED(weights + 16), work)           \
    } else {                                                                    \
        OVER_PAIRS(64, LOADED(weights), LOADED(weights + 32), work)             \
    }

static void HS_AS(sixteen)(const step *s, const unsigned char *weights, const weight16 *patch, size_t pairs,
                           size_t stride, size_t rows, sum32 *sums) {
    __m256i low0 = _mm256_setzero_si256(), high0 = low0, low1 = low0, high1 = low0;
    __m256i low2 = low0, high2 = low0, low3 = low0, high3 = low0;
    if (rows == 1) {
        NARROW_OR_WIDE(MADD(0))
    } else {
        NARROW_OR_WIDE(MADD(0); MADD(1); MADD(2); MADD(3))
    }
    STORED(sums, low0), STORED(sums + 8, high0), STORED(sums + 16, low1), STORED(sums + 24, high1);
    STORED(sums + 32, low2), STORED(sums + 40, high2), STORED(sums + 48, low3), STORED(sums + 56, high3);
}

#undef LOADED
#undef WIDENED
#undef STORED
#undef PAIR
#undef MADD
#undef OVER_PAIRS
#undef NARROW_OR_WIDE
#else
static void HS_AS(sixteen)(const step *s, const unsigned char *weights, const weight16 *patch, size_t pairs,
                           size_t stride, size_t rows, sum32 *sums) {
    uint32_t *const total = (uint32_t *)sums; /* a hostile model may wrap */
    for (size_t i = 0; i < TILE * 16; i++) total[i] = 0;
    for (size_t i = 0; i < rows; i++)
        for (size_t k = 0; k < pairs; k++) {
            const int32_t one = patch[i * stride + 2 * k], two = patch[i * stride + 2 * k + 1];
            if (one == 0 && two == 0) continue;
            if (s->weight_planes == 8) {
                const signed char *row = (const signed char *)weights + k * 32;
                for (size_t j = 0; j < 16; j++)
                    total[i * 16 + j] += (uint32_t)(row[2 * j] * one + row[2 * j + 1] * two);
            } else {
                const weight16 *row = (const weight16 *)(const void *)weights + k * 32;
                for (size_t j = 0; j < 16; j++)
                    total[i * 16 + j] += (uint32_t)(row[2 * j] * one + row[2 * j + 1] * two);
            }
        }
}
#endif

/* The codes under the kernel at one position, channel by channel as weights lie, as 16-bit numbers. */
static void HS_AS(patch)(const step *s, const uint8_t *codes, size_t at, weight16 *out) {
    if (flat(s)) {
        for (size_t i = 0; i < terms(s); i++) out[i] = codes[i];
        return;
    }
    for (size_t c = 0; c < s->c; c++)
        for (size_t i = 0; i < s->kh; i++) {
            const size_t row = at / s->ow * s->sy + i - s->py;
            for (size_t j = 0; j < s->kw; j++) {
                const size_t column = at % s->ow * s->sx + j - s->px;
                *out++ = row < s->h && column < s->w ? codes[(c * s->h + row) * s->w + column] : 0;
            }
        }
}

/* Compare the sums of 16 units at one position with their thresholds; put the codes into its planes. */
static void HS_AS(compare)(const step *s, const sum32 *sums, const sum32 *threshold, size_t unit, word *out) {
    const size_t shift = unit % 64, padded = (s->units + 15u) / 16u * 16u;
    uint32_t planes[8] = {0, 0, 0, 0, 0, 0, 0, 0};
    for (size_t i = 0; i < s->stairs; i++, threshold += padded) {
        uint32_t above = 0;
#ifdef HS_PAIRS
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

/* 8-bit inputs times weights, to bits or to scores; weights lie as [16 units][pair of terms][unit][2]. */
static void HS_AS(bytes)(const step *s, const work *w) {
    const size_t positions = (size_t)s->oh * s->ow, pairs = (terms(s) + 1) / 2, stride = pairs * 2;
    const size_t given = (size_t)s->out_planes * s->out_words, padded = (s->units + 15u) / 16u * 16u;
    const size_t block = pairs * 32 * (s->weight_planes == 8 ? 1 : 2), many = w->n * positions;
    const entry *place = (const entry *)(w->data + s->places);
    const sum32 *threshold = (const sum32 *)(w->data + s->thresholds);
    weight16 *patches = (weight16 *)w->lists;
    sum32 sums[TILE * 16];
    for (size_t i = 0; i < TILE; i++) patches[(i + 1) * stride - 1] = 0;
    if (s->stairs) /* words beyond the last 16 units */
        for (size_t i = 0; i < many * given; i++) w->out[i] = 0;
    for (size_t first = 0; first < many; first += TILE) {
        const size_t here = many - first < TILE ? many - first : TILE;
        for (size_t i = 0; i < here; i++) {
            const size_t sample = (first + i) / positions, at = (first + i) % positions;
            HS_AS(patch)(s, w->codes + sample * w->inputs, at, patches + i * stride);
        }
        for (size_t i = here; i < TILE; i++)
            for (size_t k = 0; k < stride; k++) patches[i * stride + k] = 0;
        for (size_t unit = 0; unit < s->units; unit += 16) {
            HS_AS(sixteen)(s, w->data + s->weights + unit / 16 * block, patches, pairs, stride, here == 1 ? 1 : TILE, sums);
            for (size_t i = 0; i < here; i++) {
                const size_t index = first + i, set = s->classes > 1 ? place[index % positions] : 0u;
                if (s->stairs)
                    HS_AS(compare)(s, sums + i * 16, threshold + set * s->stairs * padded + unit, unit,
                                   w->out + index * given);
                else
                    for (size_t j = 0; j < 16 && unit + j < s->units; j++)
                        w->scores[index * s->units + unit + j] =
                            (int32_t)((uint32_t)sums[i * 16 + j] + (uint32_t)threshold[unit + j]);
            }
        }
    }
}

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
    const size_t room = LIST_ROOM(site_codes(s)) + 8, wide = LIST_ROOM(terms(s)) + 8;
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
#undef TILE

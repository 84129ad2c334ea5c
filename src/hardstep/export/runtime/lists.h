/* Planes of the input, and lists of set bits: of every sample and site, and of the sites under a kernel.
 *
 * Included after names.h for every instruction set; bytes.h, rows.h and widths.h follow.
 */

/* Input bytes to 8 planes. */
static void HS_AS(planes)(const step *s, const work *w) {
    for (size_t i = 0; i < w->n; i++) {
        const uint8_t *codes = w->codes + i * w->inputs;
        word *out = w->out + i * 8 * s->out_words;
        for (size_t k = 0; k < s->c; k += 64, codes += 64, out++) {
            const size_t n = s->c - k < 64 ? s->c - k : 64;
#if defined(HS_TERNARY)
            const __m512i x = _mm512_maskz_loadu_epi8(~(uint64_t)0 >> (64 - n), (const void *)codes);
            for (int p = 0; p < 8; p++)
                out[(size_t)p * s->out_words] = _mm512_test_epi8_mask(x, _mm512_set1_epi8((char)(1 << p)));
#elif defined(HS_PAIRS)
            unsigned char some[64] = {0};
            memcpy(some, codes, n);
            __m256i low = _mm256_loadu_si256((const __m256i *)(const void *)some);
            __m256i high = _mm256_loadu_si256((const __m256i *)(const void *)(some + 32));
            for (size_t p = 8; p-- > 0;) { /* the top bit of every byte, and then the one below */
                out[p * s->out_words] =
                    (uint32_t)_mm256_movemask_epi8(low) | (uint64_t)(uint32_t)_mm256_movemask_epi8(high) << 32;
                low = _mm256_add_epi8(low, low), high = _mm256_add_epi8(high, high);
            }
#else
            for (size_t p = 0; p < 8; p++) out[p * s->out_words] = 0;
            for (size_t j = 0; j < n; j += 8) { /* the product gathers bit 0 of every byte in the top one */
                uint64_t eight = 0;
                for (size_t l = 0; l < 8 && j + l < n; l++) eight |= (uint64_t)codes[j + l] << (8 * l);
                for (size_t p = 0; eight && p < 8; p++) {
                    const uint64_t found = ((eight >> p & 0x0101010101010101u) * 0x0102040810204080u) >> 56;
                    out[p * s->out_words] |= found << j;
                }
            }
#endif
        }
    }
}

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
    const size_t room = LIST_ROOM(site_codes(s)), stride = (size_t)s->in_planes * s->in_words;
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
    const size_t room = LIST_ROOM(site_codes(s)), wide = LIST_ROOM(terms(s));
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
                const __m256i more = _mm256_set1_epi16((short)base);
                for (size_t k = 0; k < n; k += 16) { /* up to 15 past the end, for which lists have room */
                    const __m256i some = _mm256_loadu_si256((const __m256i *)(const void *)(list + 8 + k));
                    _mm256_storeu_si256((__m256i *)(void *)(end + k), _mm256_add_epi16(some, more));
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

/* Lists of set bits: of every sample and site, and of the sites under a kernel.
 *
 * Included after names.h for every instruction set; bytes.h, rows.h and widths.h follow.
 */

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

/* Bit-sliced sums: rows of LANES bits are counted with carry-save adders, one bit of every sum a vector.
 *
 * Included once for every width and instruction set, with LANES and ISA defined; samples.h follows and ends the width.
 * A plane holds one binary digit of LANES sums; `count` adds rows to planes, 5 operations a row (2 with three-input
 * logic). Lanes are outputs: the list names the set bits of one sample, rows are weights. Lanes are samples (samples.h):
 * the list names the non-zero digits of one unit's weights, rows are bits of activations.
 */

#define HS_PASTE(a, b, c) a##_##b##_##c
#define HS_PASTED(a, b, c) HS_PASTE(a, b, c)
#define HS_AS(name) HS_PASTED(name, LANES, ISA)
#define VEC HS_AS(vec)

#if LANES == 64
typedef word VEC;
#else
typedef uint64_t HS_ALIAS __attribute__((vector_size(LANES / 8), aligned(8))) VEC;
#endif

#define WORDS (LANES / 64)
#define SPLAT(bit) ((VEC){0} - (uint64_t)(bit))

#if LANES == 512 && defined(HS_TERNARY)
#define TERNARY(a, b, c, of) ((VEC)_mm512_ternarylogic_epi64((__m512i)(a), (__m512i)(b), (__m512i)(c), of))
#elif LANES == 256 && defined(HS_TERNARY)
#define TERNARY(a, b, c, of) ((VEC)_mm256_ternarylogic_epi64((__m256i)(a), (__m256i)(b), (__m256i)(c), of))
#endif
#ifdef TERNARY
#define XOR3(a, b, c) TERNARY(a, b, c, 0x96)
#define MAJORITY(a, b, c) TERNARY(a, b, c, 0xE8)
#define ADD3(high, low, a, b, c)            \
    do {                                    \
        const VEC a_ = (a), b_ = (b), c_ = (c); \
        high = MAJORITY(a_, b_, c_);        \
        low = XOR3(a_, b_, c_);             \
    } while (0)
#else
#define MAJORITY(a, b, c) (((a) & (b)) | (((a) | (b)) & (c)))
#define ADD3(high, low, a, b, c)            \
    do {                                    \
        const VEC a_ = (a), b_ = (b), c_ = (c), u_ = a_ ^ b_; \
        high = (a_ & b_) | (u_ & c_);       \
        low = u_ ^ c_;                      \
    } while (0)
#endif

/* Add one bit of weight 2^first to planes; what leaves the top is dropped. */
#define RIPPLE(plane, first, top, bit)              \
    do {                                            \
        VEC bit_ = (bit);                           \
        for (uint32_t j_ = (first); j_ < (top); j_++) { \
            const VEC t_ = (plane)[j_] & bit_;      \
            (plane)[j_] ^= bit_;                    \
            bit_ = t_;                              \
        }                                           \
    } while (0)

/* Four rows into ones and twos give a carry of weight 4. */
#define FOUR(four, r)                              \
    do {                                           \
        VEC x_, y_;                                \
        ADD3(x_, ones, ones, R(r), R((r) + 1));    \
        ADD3(y_, ones, ones, R((r) + 2), R((r) + 3)); \
        ADD3(four, twos, twos, x_, y_);            \
    } while (0)

/* Sixteen rows from the r-th on into ones to eights give a carry of weight 16. */
#define SIXTEEN(sixteen)                                   \
    do {                                                   \
        VEC p_, q_, r_, s_;                                \
        FOUR(p_, 0);                                       \
        FOUR(q_, 4);                                       \
        ADD3(r_, fours, fours, p_, q_);                    \
        FOUR(p_, 8);                                       \
        FOUR(q_, 12);                                      \
        ADD3(s_, fours, fours, p_, q_);                    \
        ADD3(sixteen, eights, eights, r_, s_);             \
        NEXT;                                              \
    } while (0)

/* Add n rows, n a multiple of 8, to planes [0, top); there must be room for 5 planes. R(i) is a row, NEXT moves on.
 * Carries of weight 16 and more wait in pairs, as the digits of a binary counter of them say. */
#define COUNT(plane, top, n)                                                                         \
    VEC ones = (plane)[0], twos = (plane)[1], fours = (plane)[2], eights = (plane)[3];               \
    VEC wait[20], carry = (VEC){0};                                                                  \
    size_t carries = 0;                                                                              \
    for (; n >= 16; n -= 16, carries++) {                                                            \
        VEC a;                                                                                       \
        uint32_t j = 4;                                                                              \
        SIXTEEN(a);                                                                                  \
        for (size_t m = carries; m & 1 && j < (top); m >>= 1, j++) ADD3(a, (plane)[j], (plane)[j], wait[j], a); \
        wait[j] = a;                                                                                 \
    }                                                                                                \
    if (n) {                                                                                         \
        VEC a, b, c;                                                                                 \
        FOUR(a, 0);                                                                                  \
        FOUR(b, 4);                                                                                  \
        ADD3(c, fours, fours, a, b);                                                                 \
        carry = eights & c;                                                                          \
        eights ^= c;                                                                                 \
    }                                                                                                \
    (plane)[0] = ones, (plane)[1] = twos, (plane)[2] = fours, (plane)[3] = eights;                   \
    for (uint32_t j = 4; j < (top); j++, carries >>= 1)                                              \
        if (carries & 1) ADD3(carry, (plane)[j], (plane)[j], wait[j], carry);                        \
        else {                                                                                       \
            const VEC t = (plane)[j] & carry;                                                        \
            (plane)[j] ^= carry;                                                                     \
            carry = t;                                                                               \
        }

static void HS_AS(count)(VEC *plane, uint32_t top, const VEC *rows, const entry *list, size_t n) {
#define R(i) (rows[list[i]])
#define NEXT list += 16
    COUNT(plane, top, n);
#undef R
#undef NEXT
}

/* Add the number in `term` [0, given), the top plane a sign if it has one, to planes [0, top). */
static void HS_AS(add)(VEC *plane, uint32_t top, const VEC *term, uint32_t given, int has_sign) {
    VEC carry = (VEC){0};
    for (uint32_t j = 0; j < top; j++) {
        const VEC t = j < given ? term[j] : has_sign ? term[given - 1] : (VEC){0};
        ADD3(carry, plane[j], plane[j], t, carry);
    }
}

#if LANES != 128 || !defined(HS_PAIRS) || HS_MAX_LANES < 256
/* The lanes of one block of outputs at one position, from the lists of its planes. */
static void HS_AS(position)(const step *s, const work *w, const entry *lists, size_t room, size_t block, size_t place,
                            word *out) {
    VEC acc[40], part[24], code[8];
    const size_t row = (terms(s) + 1) * WORDS, blocks = s->out_words / WORDS;
    const word *weights = (const word *)(w->data + s->weights) + block * s->weight_planes * row;
    const VEC *threshold = (const VEC *)(w->data + s->thresholds) + (place * blocks + block) * s->stairs * s->acc_planes;
    uint32_t sum = (uint32_t)s->start;
    int first = 1;
    for (uint32_t p = 0; p < s->in_planes; p++) sum += (uint32_t)s->offset * ((uint32_t)lists[p * room + 1] << p);
    for (uint32_t j = 0; j < s->acc_planes; j++) acc[j] = SPLAT((sum >> j) & 1u);
    for (uint32_t j = s->acc_planes; j < s->acc_planes + 5; j++) acc[j] = (VEC){0};
    for (uint32_t p = 0; p < s->in_planes; p++) {
        const entry *list = lists + p * room;
        const size_t n = list[0];
        if (n == 0) continue;
        for (uint32_t q = 0; q < s->weight_planes; q++) {
            const VEC *rows = (const VEC *)(weights + q * row);
            const uint32_t low = p + q + s->shift;
            if (low >= s->acc_planes) continue;
            if (first) {
                HS_AS(count)(acc + low, s->acc_planes - low, rows, list + 8, n);
                first = 0;
            } else {
                const uint32_t top = bit_length((uint32_t)n) < 4 ? 4 : bit_length((uint32_t)n);
                for (uint32_t j = 0; j < top; j++) part[j] = (VEC){0};
                HS_AS(count)(part, top, rows, list + 8, n);
                HS_AS(add)(acc + low, s->acc_planes - low, part, top, 0);
            }
        }
    }
    for (uint32_t j = 0; j < s->out_planes; j++) code[j] = (VEC){0};
    for (uint32_t i = 0; i < s->stairs; i++, threshold += s->acc_planes) {
        VEC above = (VEC){0};
        for (uint32_t j = 0; j < s->acc_planes; j++) above = MAJORITY(acc[j], ~threshold[j], above);
        RIPPLE(code, 0, s->out_planes, above);
    }
    for (uint32_t j = 0; j < s->out_planes; j++) *(VEC *)(out + j * s->out_words + block * WORDS) = code[j];
}

/* Lanes are outputs: any number of samples, work goes with the bits that are set. */
static void HS_AS(outputs)(const step *s, const work *w) {
    const size_t blocks = s->out_words / WORDS, room = LIST_ROOM(site_codes(s));
    const size_t positions = (size_t)s->oh * s->ow, given = (size_t)s->out_planes * s->out_words;
    const entry *place = (const entry *)(w->data + s->places);
    HS_PASTED(lists, any, ISA)(s, w);
    if (flat(s)) {
        for (size_t block = 0; block < blocks; block++)
            for (size_t i = 0; i < w->n; i++)
                HS_AS(position)(s, w, w->lists + i * s->in_planes * room, room, block, 0, w->out + i * given);
        return;
    }
    const size_t wide = LIST_ROOM(terms(s));
    entry *gathered = w->lists + w->n * sites(s) * s->in_planes * room;
    for (size_t i = 0; i < w->n; i++)
        for (size_t at = 0; at < positions; at++) {
            HS_PASTED(gather, any, ISA)(s, w->lists + i * sites(s) * s->in_planes * room, at / s->ow, at % s->ow, gathered);
            for (size_t block = 0; block < blocks; block++)
                HS_AS(position)(s, w, gathered, wide, block, s->classes > 1 ? place[at] : 0,
                                w->out + (i * positions + at) * given);
        }
}

#endif

#if LANES == 256 && defined(HS_PAIRS)
#define HALVES(low, high)                                                                                 \
    ((VEC)_mm256_inserti128_si256(_mm256_castsi128_si256(_mm_loadu_si128((const __m128i *)(const void *)(low))), \
                                  _mm_loadu_si128((const __m128i *)(const void *)(high)), 1))
#define BITS_OF(one, other) ((VEC)_mm256_set_epi64x(-(int64_t)(other), -(int64_t)(other), -(int64_t)(one), -(int64_t)(one)))

/* `count` for two lists of rows of 128 bits, one in each half. */
static void HS_AS(count_twin)(VEC *plane, uint32_t top, const word *rows, const entry *one, const entry *other, size_t n) {
#define R(i) HALVES(rows + 2u * one[i], rows + 2u * other[i])
#define NEXT one += 16, other += 16
    COUNT(plane, top, n);
#undef R
#undef NEXT
}

/* `position` for two positions or samples at once, in the halves of a vector; lists of a plane are of equal length. */
static void HS_AS(twin)(const step *s, const work *w, const entry *const list[2], size_t room, size_t block,
                        const size_t place[2], word *const out[2]) {
    VEC acc[40], part[24], code[8];
    const size_t row = (terms(s) + 1) * 2, blocks = s->out_words / 2;
    const word *weights = (const word *)(w->data + s->weights) + block * s->weight_planes * row;
    const word *threshold[2];
    uint32_t sum[2] = {(uint32_t)s->start, (uint32_t)s->start};
    int first = 1;
    for (size_t h = 0; h < 2; h++) {
        threshold[h] = (const word *)(w->data + s->thresholds) + (place[h] * blocks + block) * s->stairs * s->acc_planes * 2;
        for (uint32_t p = 0; p < s->in_planes; p++) sum[h] += (uint32_t)s->offset * ((uint32_t)list[h][p * room + 1] << p);
    }
    for (uint32_t j = 0; j < s->acc_planes; j++) acc[j] = BITS_OF((sum[0] >> j) & 1u, (sum[1] >> j) & 1u);
    for (uint32_t j = s->acc_planes; j < s->acc_planes + 5; j++) acc[j] = (VEC){0};
    for (uint32_t p = 0; p < s->in_planes; p++) {
        const entry *one = list[0] + p * room, *other = list[1] + p * room;
        const size_t n = one[0];
        for (uint32_t q = 0; n && q < s->weight_planes; q++) {
            const uint32_t low = p + q + s->shift;
            if (low >= s->acc_planes) continue;
            if (first) {
                HS_AS(count_twin)(acc + low, s->acc_planes - low, weights + q * row, one + 8, other + 8, n);
                first = 0;
            } else {
                const uint32_t top = bit_length((uint32_t)n) < 4 ? 4 : bit_length((uint32_t)n);
                for (uint32_t j = 0; j < top; j++) part[j] = (VEC){0};
                HS_AS(count_twin)(part, top, weights + q * row, one + 8, other + 8, n);
                HS_AS(add)(acc + low, s->acc_planes - low, part, top, 0);
            }
        }
    }
    for (uint32_t j = 0; j < s->out_planes; j++) code[j] = (VEC){0};
    for (size_t i = 0; i < (size_t)s->stairs * s->acc_planes; i += s->acc_planes) {
        VEC above = (VEC){0};
        for (size_t j = 0; j < s->acc_planes; j++)
            above = MAJORITY(acc[j], ~HALVES(threshold[0] + 2 * (i + j), threshold[1] + 2 * (i + j)), above);
        RIPPLE(code, 0, s->out_planes, above);
    }
    for (size_t h = 0; h < 2; h++) /* the same place twice where one is left over */
        for (uint32_t j = 0; j < s->out_planes; j++)
            memcpy(out[h] + j * s->out_words + block * 2, (const word *)&code[j] + 2 * h, 2 * sizeof(word));
}

/* `outputs` with 128 lanes, two positions or samples a vector. */
static void HS_AS(twins)(const step *s, const work *w) {
    const size_t room = LIST_ROOM(site_codes(s)), wide = flat(s) ? room : LIST_ROOM(terms(s));
    const size_t positions = (size_t)s->oh * s->ow, given = (size_t)s->out_planes * s->out_words;
    const size_t sample = sites(s) * s->in_planes * room, many = w->n * positions;
    const entry *places = (const entry *)(w->data + s->places);
    HS_PASTED(lists, any, ISA)(s, w);
    for (size_t job = 0; job < many; job += 2) {
        const size_t jobs[2] = {job, job + 1 < many ? job + 1 : job};
        entry *made[2];
        const entry *list[2];
        size_t place[2] = {0, 0};
        word *out[2];
        for (size_t h = 0; h < 2; h++) {
            const size_t i = jobs[h] / positions, at = jobs[h] % positions;
            made[h] = flat(s) ? w->lists + i * sample : w->lists + w->n * sample + h * s->in_planes * wide;
            if (!flat(s)) HS_PASTED(gather, any, ISA)(s, w->lists + i * sample, at / s->ow, at % s->ow, made[h]);
            if (s->classes > 1) place[h] = places[at];
            out[h] = w->out + jobs[h] * given;
            list[h] = made[h];
        }
        for (size_t p = 0; p < s->in_planes; p++) /* the shorter list goes on with rows of zeros */
            for (size_t h = 0; h < 2; h++) {
                entry *short_ = made[h] + p * wide;
                const size_t n = list[1 - h][p * wide], last = short_[0];
                if (last >= n) continue;
                for (size_t k = last; k < n; k += 8) /* lengths are multiples of 8 */
                    for (size_t l = 0; l < 8; l++) short_[8 + k + l] = (entry)terms(s);
                short_[0] = (entry)n;
            }
        for (size_t block = 0; block < s->out_words / 2; block++) HS_AS(twin)(s, w, list, wide, block, place, out);
    }
}

#undef HALVES
#undef BITS_OF
#endif

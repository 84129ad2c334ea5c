/* Sums over the rows of 128 packed columns at a time: look-ups in tables of 16 bytes by shuffles, one lane a column.
 *
 * Included once for every instruction set, with ISA, BYTES (of a vector), EACH (of its blocks of columns) and a few
 * intrinsics defined. 512 rows of 128 columns are turned into 128 lines of 128 numbers of 4 bits, one line for 4 rows;
 * one shuffle then looks up what the 4 rows give to a vector of columns.
 */

#define HS_PASTE(a, b) a##_##b
#define HS_PASTED(a, b) HS_PASTE(a, b)
#define HS_AS(name) HS_PASTED(name, ISA)
#define VEC HS_AS(vec)
#define PAIRS HS_AS(pairs)
#define QUADS HS_AS(quads)
#define BLOCKS (COLUMNS / BYTES)

typedef uint8_t HS_ALIAS VEC __attribute__((vector_size(BYTES), aligned(16)));
typedef uint16_t HS_ALIAS PAIRS __attribute__((vector_size(BYTES), aligned(16)));
typedef uint32_t HS_ALIAS QUADS __attribute__((vector_size(BYTES), aligned(16)));

/* idx[line][column] = bits of rows 4 line to 4 line + 3; `lines` are 64 bytes of every column. */
static void HS_AS(turn)(const unsigned char *const *lines, unsigned char *idx) {
#define TWO(x, y, i, j, low, high) const VEC y##low = LOW(x##i, x##j), y##high = HIGH(x##i, x##j);
#define STAGE(x, y) /* moves one bit of the place of a byte from the byte's number to the register's */ \
    TWO(x, y, 0, 8, 0, 1) TWO(x, y, 1, 9, 2, 3) TWO(x, y, 2, 10, 4, 5) TWO(x, y, 3, 11, 6, 7)           \
    TWO(x, y, 4, 12, 8, 9) TWO(x, y, 5, 13, 10, 11) TWO(x, y, 6, 14, 12, 13) TWO(x, y, 7, 15, 14, 15)
#define READ(i) const VEC a##i = GATHER(lines + block * BYTES + i, part);
#define WRITE(i)                                      \
    *(VEC *)(void *)(to + 2 * i * COLUMNS) = e##i & 15; \
    *(VEC *)(void *)(to + (2 * i + 1) * COLUMNS) = (e##i >> 4) & 15;
#define SIXTEEN(x) x(0) x(1) x(2) x(3) x(4) x(5) x(6) x(7) x(8) x(9) x(10) x(11) x(12) x(13) x(14) x(15)
    for (size_t block = 0; block < BLOCKS; block++)
        for (size_t part = 0; part < 64; part += 16) {
            unsigned char *to = idx + 2 * part * COLUMNS + block * BYTES;
            SIXTEEN(READ)
            STAGE(a, b) STAGE(b, c) STAGE(c, d) STAGE(d, e)
            SIXTEEN(WRITE)
        }
#undef TWO
#undef STAGE
#undef READ
#undef WRITE
#undef SIXTEEN
}

/* Add the look-ups of 512 rows to sums of 16 bits: of all bytes, and of the odd ones. */
static void HS_AS(look)(const unsigned char *idx, const unsigned char *table, uint16_t *sums) {
    PAIRS *to = (PAIRS *)(void *)sums;
#define BEGIN(b) PAIRS all##b = to[b], odd##b = to[BLOCKS + b];
    EACH(BEGIN)
    for (size_t k = 0; k < LINES; k += 2, idx += 2 * COLUMNS, table += 32) {
        const VEC *at = (const VEC *)(const void *)idx;
        const VEC one = TABLE(table), two = TABLE(table + 16);
#define ADD(b)                                                                             \
    {                                                                                      \
        const PAIRS x = (PAIRS)(SHUFFLE(one, at[b]) + SHUFFLE(two, at[BLOCKS + b]));       \
        all##b += x;                                                                       \
        odd##b += x >> 8;                                                                  \
    }
        EACH(ADD)
    }
#define END(b) to[b] = all##b, to[BLOCKS + b] = odd##b;
    EACH(END)
#undef BEGIN
#undef ADD
#undef END
}

/* Move sums of 16 bits into those of 32: even bytes are all but the odd ones. Columns 4i, 4i + 1, ... lie apart. */
static void HS_AS(widen)(uint16_t *sums, uint32_t *into) {
    PAIRS *from = (PAIRS *)(void *)sums;
    QUADS *to = (QUADS *)(void *)into;
    for (size_t b = 0; b < BLOCKS; b++) {
        const QUADS odd = (QUADS)from[BLOCKS + b], even = (QUADS)(from[b] - (from[BLOCKS + b] << 8));
        to[b] += even & 65535;
        to[BLOCKS + b] += odd & 65535;
        to[2 * BLOCKS + b] += even >> 16;
        to[3 * BLOCKS + b] += odd >> 16;
        from[b] = from[BLOCKS + b] = (PAIRS){0};
    }
}

/* As `look`, for two columns of bits: a line of their own bits chooses the table, sums of 16 bits as above. */
static void HS_AS(match)(const unsigned char *idx, const unsigned char *first, const unsigned char *second,
                         uint16_t *sums) {
    PAIRS *to = (PAIRS *)(void *)sums;
    for (size_t part = 0; part < 64; part += 16) { /* a look-up is at most 4: 32 of them fit a byte */
        const unsigned char *from = idx + 2 * part * COLUMNS;
#define BEGIN(b) VEC one##b = {0}, two##b = {0};
        EACH(BEGIN)
        for (size_t k = part; k < part + 16; k++)
            for (size_t high = 0; high < 2; high++, from += COLUMNS) {
                const VEC *at = (const VEC *)(const void *)from;
                const VEC one = TABLE(both + (high ? first[k] & 240u : (first[k] & 15u) << 4));
                const VEC two = TABLE(both + (high ? second[k] & 240u : (second[k] & 15u) << 4));
#define ADD(b) one##b += SHUFFLE(one, at[b]), two##b += SHUFFLE(two, at[b]);
                EACH(ADD)
            }
#define END(b)                                                                             \
    to[b] += (PAIRS)one##b & 255, to[BLOCKS + b] += (PAIRS)one##b >> 8;                    \
    to[2 * BLOCKS + b] += (PAIRS)two##b & 255, to[3 * BLOCKS + b] += (PAIRS)two##b >> 8;
        EACH(END)
#undef BEGIN
#undef ADD
#undef END
    }
}

#undef VEC
#undef PAIRS
#undef QUADS
#undef BLOCKS
#undef HS_PASTE
#undef HS_PASTED
#undef HS_AS
#undef ISA
#undef BYTES
#undef EACH
#undef GATHER
#undef LOW
#undef HIGH
#undef TABLE
#undef SHUFFLE

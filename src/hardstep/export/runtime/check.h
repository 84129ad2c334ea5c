/* Opening a model: every size is computed again from few numbers and must be what the buffer says. */
#ifndef HS_CHECK_H
#define HS_CHECK_H

#include "check_sums.h"
#include "program.h"

/* What stands between two steps. */
typedef struct {
    enum { RAW, OF_OUTPUTS, OF_SAMPLES, DONE } layout;
    uint32_t c, h, w, planes, words, lanes, frame;
} between;

static uint32_t checksum(const unsigned char *data, size_t bytes) {
    static const uint32_t nibbles[16] = {0x00000000u, 0x1db71064u, 0x3b6e20c8u, 0x26d930acu, 0x76dc4190u, 0x6b6b51f4u,
                                         0x4db26158u, 0x5005713cu, 0xedb88320u, 0xf00f9344u, 0xd6d6a3e8u, 0xcb61b38cu,
                                         0x9b64c2b0u, 0x86d3d2d4u, 0xa00ae278u, 0xbdbdf21cu};
    uint32_t crc = 0xffffffffu;
    for (size_t i = 0; i < bytes; i++) {
        crc = nibbles[(crc ^ data[i]) & 15u] ^ (crc >> 4);
        crc = nibbles[(crc ^ (uint32_t)(data[i] >> 4)) & 15u] ^ (crc >> 4);
    }
    return ~crc;
}

static uint64_t rounded(uint64_t x, uint64_t to) { return (x + to - 1) / to * to; }

/* A section of the buffer that must be exactly so long. */
static int lies(const hs_model *m, size_t bytes, uint32_t offset, uint32_t length, uint64_t wanted) {
    const uint64_t begin = HS_HEAD + (uint64_t)m->ops * HS_STEP_BYTES;
    return length == wanted && offset >= begin && offset % 8 == 0 && (uint64_t)offset + length <= bytes;
}

static int small(uint32_t x) { return x >= 1 && x <= 65528; }

static size_t lane_index(uint32_t lanes) { return lanes == 64 ? 0u : lanes == 128 ? 1u : lanes == 256 ? 2u : 3u; }

static int known_lanes(uint32_t lanes) { return lanes == 64 || lanes == 128 || lanes == 256 || lanes == 512; }

/* Kernel, stride, padding and output size belong together. */
static int geometry(const step *s) {
    if (!small(s->kh) || !small(s->kw) || !small(s->sy) || !small(s->sx) || s->py > 255 || s->px > 255) return 0;
    const uint64_t high = (uint64_t)s->h + 2 * s->py, wide = (uint64_t)s->w + 2 * s->px;
    if (high < s->kh || wide < s->kw) return 0;
    return s->oh == (high - s->kh) / s->sy + 1 && s->ow == (wide - s->kw) / s->sx + 1;
}

static int same_input(const step *s, const between *b) {
    return s->c == b->c && s->h == b->h && s->w == b->w && s->in_planes == b->planes && s->in_words == b->words;
}

/* Sets of thresholds, and which set a position uses. */
static int placed(const hs_model *m, size_t bytes, const step *s) {
    const uint64_t positions = (uint64_t)s->oh * s->ow;
    if (s->classes < 1 || s->classes > 65535) return 0;
    if (s->classes == 1) return s->places_bytes == 0;
    if (!lies(m, bytes, s->places, s->places_bytes, 2 * positions)) return 0;
    for (uint64_t i = 0; i < positions; i++)
        if (((const entry *)(const void *)(m->data + s->places))[i] >= s->classes) return 0;
    return 1;
}

/* Sums of bits: sizes that the kernels' arrays hold, codes as wide as they must be. */
static int summed(const step *s) {
    return (uint64_t)s->c * s->kh * s->kw <= 65528 && s->acc_planes >= 1 && s->acc_planes <= 32 && s->stairs <= 255
        && s->out_planes == bit_length(s->stairs);
}

/* Scores are given at one position, one for each unit. */
static int reads_out(const hs_model *m, const step *s) {
    return s->oh == 1 && s->ow == 1 && s->classes == 1 && s->units == m->outputs;
}

/* Weights of 8 or 16 bits in groups of 16 units; 32-bit thresholds or biases, units beyond the last never fire. */
static int compared(const hs_model *m, size_t bytes, const step *s) {
    const uint64_t padded = rounded(s->units, 16), rows = s->stairs ? (uint64_t)s->stairs * s->classes : 1;
    const sum32 *threshold = (const sum32 *)(const void *)(m->data + s->thresholds);
    if (s->stairs > 255 || (s->weight_planes != 8 && s->weight_planes != 16)) return 0;
    if (!placed(m, bytes, s) || !lies(m, bytes, s->thresholds, s->thresholds_bytes, rows * padded * 4)) return 0;
    if (s->stairs == 0) return reads_out(m, s);
    for (uint64_t i = 0; i < rows; i++)
        for (uint64_t j = s->units; j < padded; j++)
            if (threshold[i * padded + j] != INT32_MAX) return 0;
    return s->out_planes == bit_length(s->stairs) && s->out_words == rounded(s->units, 64) / 64;
}

/* Weights of whole groups of 16 units, then `shift` entries of excess: for each group their count, and that many. */
static int good_bytes(const hs_model *m, size_t bytes, const step *s) {
    const uint64_t terms_ = (uint64_t)s->c * s->kh * s->kw, padded = rounded(s->units, 16);
    if (terms_ > 1u << 24 || !compared(m, bytes, s)) return 0;
    const uint64_t plain = padded * byte_steps(s) * 4;
    if (!lies(m, bytes, s->weights, s->weights_bytes, plain + (uint64_t)s->shift * sizeof(excess))) return 0;
    if ((s->shift || s->in_words) && s->weight_planes != 8) return 0;
    const excess *more = (const excess *)(const void *)(m->data + s->weights + plain), *end = more + s->shift;
#ifdef HS_X86 /* products of codes of 8 bits that saturate: weights of one sign in a pair sum to at most 128 */
    const signed char *const weight = (const signed char *)m->data + s->weights;
    for (uint64_t i = 0; m->isa < 3 && s->in_planes == 8 && s->weight_planes == 8 && i < plain; i += 2)
        if (weight[i] * weight[i + 1] > 0 && (weight[i] + weight[i + 1] > 128 || weight[i] + weight[i + 1] < -128)) return 0;
#endif
    for (uint64_t group = 0; s->shift && group < padded / 16; group++) {
        if (more == end) return 0;
        for (uint32_t left = (more++)->term; left; left--, more++)
            if (more == end || more->term >= terms_ || more->unit >= 16) return 0;
    }
    return !s->shift || more == end;
}

static int good_outputs(const hs_model *m, size_t bytes, const step *s) {
    const uint64_t blocks = rounded(s->units, s->lanes) / s->lanes, vector = s->lanes / 8;
    const uint64_t rows = ((uint64_t)s->c * s->kh * s->kw + 1) * s->weight_planes;
    const uint64_t vectors = (uint64_t)s->classes * blocks * s->stairs * s->acc_planes;
    const word *threshold = (const word *)(const void *)(m->data + s->thresholds);
    if (!summed(s) || s->stairs == 0 || s->out_words != blocks * s->lanes / 64) return 0;
    if (s->weight_planes < 1 || s->weight_planes > 32 || s->shift > 31) return 0;
    if (s->in_planes + s->weight_planes + s->shift > 64) return 0;
    if (!lies(m, bytes, s->weights, s->weights_bytes, blocks * rows * vector)) return 0;
    if (!placed(m, bytes, s) || !lies(m, bytes, s->thresholds, s->thresholds_bytes, vectors * vector)) return 0;
    for (uint64_t i = 0; i < vectors; i++) { /* units beyond the last never fire: all planes of theirs are set */
        if (i / ((uint64_t)s->stairs * s->acc_planes) % blocks != blocks - 1) continue;
        for (uint64_t j = (blocks - 1) * s->lanes; j < blocks * s->lanes; j += 64) {
            const uint64_t used = j + 64 <= s->units ? ~(uint64_t)0 : j >= s->units ? 0 : ((uint64_t)1 << (s->units - j)) - 1;
            if (~threshold[(i * s->lanes + j - (blocks - 1) * s->lanes) / 64] & ~used) return 0;
        }
    }
    return 1;
}

/* Take one list of a stream: its length, a multiple of 8, and rows below `rows`. */
static int taken(const entry **at, const entry *end, uint64_t rows) {
    if (*at == end) return 0;
    const size_t n = *(*at)++;
    if (n % 8 || n > (size_t)(end - *at)) return 0;
    for (size_t i = 0; i < n; i++)
        if (*(*at)++ >= rows) return 0;
    return 1;
}

static int good_samples(const hs_model *m, size_t bytes, const step *s) {
    const uint64_t pitch = (uint64_t)s->w + 2 * s->px, rows = (s->h + 2ull * s->py) * pitch * rows_in(s);
    const uint64_t last = ((s->oh - 1ull) * s->sy * pitch + (s->ow - 1ull) * s->sx) * rows_in(s);
    const entry *at = (const entry *)(const void *)(m->data + s->weights), *end = at + s->weights_bytes / 2;
    const uint64_t limits = s->stairs ? (uint64_t)s->classes * s->units * s->stairs : s->units; /* or biases */
    if (!summed(s) || m->tile > s->lanes || s->out_words != s->lanes / 64 || s->offset < -1 || s->offset > 0) return 0;
    if (s->stairs == 0 && (s->frame || !reads_out(m, s))) return 0;
    if (!lies(m, bytes, s->weights, s->weights_bytes, s->weights_bytes / 2 * 2)) return 0;
    if (!placed(m, bytes, s)) return 0;
    if (!lies(m, bytes, s->thresholds, s->thresholds_bytes, 4 * limits)) return 0;
    if (s->offset && !taken(&at, end, rows - last)) return 0;
    for (uint32_t unit = 0; unit < s->units; unit++) {
        if (at == end) return 0;
        for (uint32_t digits = *at++; digits; digits--)
            if (at == end || *at++ >= s->acc_planes || !taken(&at, end, rows - last) || !taken(&at, end, rows - last))
                return 0;
    }
    return 1;
}

static int good_rows(const hs_model *m, size_t bytes, const step *s) {
    const uint64_t terms_ = (uint64_t)s->c * s->kh * s->kw, padded = rounded(s->units, 16);
    if (terms_ > 65528 || s->shift < 1 || s->shift > 65535 || !compared(m, bytes, s)) return 0;
    return (s->stairs || flat(s)) && lies(m, bytes, s->weights, s->weights_bytes, terms_ * padded * s->weight_planes / 8);
}

/* An instruction of a front end, of which at least 5 words are there: registers, sizes and places that there are. */
static int good_instruction(const step *s, const cell *program, const cell *p, size_t left) {
    const uint32_t registers = program[0], h = p[3], w = p[4];
    if (p[0] > EMIT_CODES || (p[0] != LOAD_CODES && left < (p[0] == POOL_PLANE || p[0] == EMIT_CODES ? 8u : 7u))) return 0;
    if ((p[0] == FILTER && p[6] > left / 2) || (p[0] == EMIT_CODES && p[7] > left / 2)) return 0;
    if (instruction_words(p) > left || h < 1 || h > program[1] || w < 1 || w > program[2]) return 0;
    if (p[1] >= (p[0] == LOAD_CODES ? s->c : registers) || p[2] >= registers) return 0;
    if (p[0] == LOAD_CODES) return h == program[1] && w == program[2];
    if (p[0] == FILTER) {
        if (p[1] == p[2] || p[5] > 1 || p[6] < 1) return 0;
        for (size_t k = 0; k < p[6]; k++)
            if (p[8 + 2 * k] >= (p[5] ? w : h)) return 0;
    } else if (p[0] == ACTIVATE)
        return p[5] <= 3;
    else if (p[0] == POOL_PLANE)
        return p[1] != p[2] && p[5] <= 1 && p[6] >= 1 && p[6] <= h && p[6] <= w && p[7] >= 1 && h % p[7] == 0 && w % p[7] == 0;
    else {
        if (p[6] > 31) return 0;
        for (size_t k = 0; k < p[7]; k++)
            if (p[8 + 2 * k] >= (uint64_t)h * w || p[9 + 2 * k] >= s->units) return 0;
    }
    return 1;
}

/* A front end: its `shift` is the numbers of all its planes and of the row that lies twice. */
static int good_front(const hs_model *m, size_t bytes, const step *s) {
    const uint64_t words = s->weights_bytes / 4;
    const cell *program = (const cell *)(const void *)(m->data + s->weights);
    if (words < FRONT_HEAD || !lies(m, bytes, s->weights, s->weights_bytes, 4 * words)) return 0;
    const uint32_t registers = program[0], height = program[1], width = program[2], edge = program[3];
    if (registers < 1 || registers > 4096 || !small(height) || !small(width) || edge > 65528) return 0;
    if (height < 2 * edge + s->h || width < 2 * edge + s->w || height < 3 * edge + 1 || width < 3 * edge + 1) return 0;
    if ((uint64_t)registers * height * pitch_of(width) + 2 * pitch_of(width) != s->shift || s->shift > 1u << 28) return 0;
    const cell *at = program + FRONT_HEAD, *end = program + words;
    for (; at < end; at += instruction_words(at))
        if (end - at < 5 || !good_instruction(s, program, at, (size_t)(end - at))) return 0;
    return 1;
}

/* A network with real sums: a program, and behind it the weights. */
static int good_sums(const hs_model *m, size_t bytes, const step *s) {
    return s->oh == 1 && s->ow == 1 && s->units == m->outputs && s->weights_bytes % 4 == 0
        && lies(m, bytes, s->weights, s->weights_bytes, s->weights_bytes)
        && lies(m, bytes, s->thresholds, s->thresholds_bytes, s->thresholds_bytes)
        && good_program(s, m->outputs, (const cell *)(const void *)(m->data + s->weights), s->weights_bytes / 4);
}

/* Whether a step is sound and fits what stands before it; `b` becomes what stands behind it. */
static int good(const hs_model *m, size_t bytes, const step *s, between *b) {
    const int of_samples = b->layout == OF_SAMPLES, framed = s->py << 16 == (b->frame & ~0xffffu) && s->px == (b->frame & 0xffffu);
    if (!small(s->c) || !small(s->h) || !small(s->w) || !small(s->units) || s->in_planes < 1 || s->in_planes > 8) return 0;
    if ((uint64_t)s->c * s->h * s->w > 1u << 28 || !geometry(s) || (uint64_t)s->oh * s->ow > 1u << 24) return 0;
    if ((s->frame >> 16) > 255 || (s->frame & 0xffffu) > 255) return 0;
    const int raw = s->kind == BYTES ? s->in_words == 0 : s->kind == PLANES || s->kind == BITS || s->kind == FRONT || s->kind == SUMS;
    if (raw ? b->layout != RAW : b->layout == RAW || !same_input(s, b)) return 0;
    if (of_samples && (s->lanes != b->lanes || !framed)) return 0;
    between next = {OF_OUTPUTS, s->units, s->oh, s->ow, s->out_planes, s->out_words, 0, 0};
    int ok = 0;
    if (s->kind == PLANES)
        ok = s->h == 1 && s->w == 1 && s->oh == 1 && s->ow == 1 && s->units == s->c && b->c == s->c
            && s->out_planes == 8 && s->out_words == rounded(s->c, 64) / 64;
    else if (s->kind == BYTES)
        ok = (raw ? (uint64_t)s->c * s->h * s->w == b->c && s->in_planes == 8 : b->layout == OF_OUTPUTS) && good_bytes(m, bytes, s);
    else if (s->kind == OUTPUTS)
        ok = b->layout == OF_OUTPUTS && good_outputs(m, bytes, s);
    else if (s->kind == SAMPLES)
        ok = of_samples && good_samples(m, bytes, s);
    else if (s->kind == POOL)
        ok = (of_samples || (b->layout == OF_OUTPUTS && s->lanes == 0 && s->frame == 0)) && s->py == 0 && s->px == 0
            && s->units == s->c && s->out_planes == s->in_planes && s->out_words == s->in_words;
    else if (s->kind == TURN || s->kind == BACK)
        ok = s->units == s->c && s->oh == s->h && s->ow == s->w && s->out_planes == s->in_planes
            && (s->kind == TURN ? b->layout == OF_OUTPUTS && m->tile <= s->lanes && s->out_words == s->lanes / 64
                                : of_samples && b->frame == 0 && s->out_words == rounded(s->c, 64) / 64);
    else if (s->kind == BITS)
        ok = s->units == s->c && s->oh == s->h && s->ow == s->w && s->in_planes == 1 && s->out_planes == 1
            && s->out_words == rounded(s->c, 64) / 64 && (uint64_t)s->h * s->w * s->out_words * 8 == b->c;
    else if (s->kind == EMIT)
        ok = b->layout == OF_OUTPUTS && (uint64_t)s->h * s->w * s->in_planes * s->in_words * 2 == m->outputs;
    else if (s->kind == ROWS)
        ok = b->layout == OF_OUTPUTS && good_rows(m, bytes, s);
    else if (s->kind == FRONT)
        ok = (uint64_t)s->c * s->h * s->w == b->c && s->oh == 1 && s->ow == 1 && s->out_planes == 1
            && s->out_words == rounded(s->units, 8) / 8 && good_front(m, bytes, s);
    else if (s->kind == SUMS)
        ok = m->ops == 1 && (uint64_t)s->c * s->h * s->w == b->c && good_sums(m, bytes, s);
    if (s->kind == FRONT) next.layout = RAW;
    if (s->kind == SAMPLES || s->kind == TURN || (s->kind == POOL && of_samples)) {
        next.layout = OF_SAMPLES;
        next.lanes = s->lanes;
        next.frame = s->frame;
    }
    if (s->kind == EMIT || s->kind == SUMS || ((s->kind == BYTES || s->kind == ROWS || s->kind == SAMPLES) && s->stairs == 0)) next.layout = DONE;
    *b = next;
    return ok;
}

/* Bytes of a map, and of the lists that a step builds; saturating where they would not fit. */
static uint64_t map_bytes(const hs_model *m, const between *b) {
    if (b->layout == DONE) return 0;
    if (b->layout == OF_OUTPUTS || b->layout == RAW) return (uint64_t)m->tile * b->h * b->w * b->planes * b->words * 8;
    return ((uint64_t)b->h + 2 * (b->frame >> 16)) * (b->w + 2 * (b->frame & 0xffffu))
        * ((uint64_t)b->planes * b->c + 1) * b->words * 8;
}

static uint64_t list_bytes(const hs_model *m, const step *s) {
    const uint64_t room = LIST_ROOM(site_codes(s)), wide = LIST_ROOM(terms(s));
    if (s->kind == BYTES) return (uint64_t)byte_steps(s) * 4 * byte_rows(s, m->tile);
    if (s->kind == OUTPUTS || s->kind == ROWS)
        return ((uint64_t)m->tile * sites(s) * room + (flat(s) ? 0 : 2 * wide)) * s->in_planes * 2;
    if (s->kind == FRONT) return (uint64_t)s->shift * 4;
    if (s->kind == SUMS) return (uint64_t)s->shift * 8;
    return 0;
}

int hs_open(hs_model *m, const void *data, size_t bytes) {
    uint32_t head[8];
    between b = {RAW, 0, 0, 0, 0, 0, 0, 0};
    uint64_t map = 0, lists = 0;
    memset(m, 0, sizeof *m);
    m->data = (const unsigned char *)data;
    if ((uintptr_t)data % 8 != 0 || bytes < HS_HEAD) return HS_TRUNCATED;
    memcpy(head, data, sizeof head);
    if (head[0] != HS_MAGIC) return HS_BAD_MAGIC;
    if (head[1] != HS_VERSION) return HS_BAD_VERSION;
    if (head[2] != bytes) return HS_TRUNCATED;
    if (head[3] != checksum(m->data + 16, bytes - 16)) return HS_BAD_SUM;
    m->ops = head[4];
    m->tile = head[5];
    m->inputs = head[6];
    m->outputs = head[7];
    m->isa = hs_isa();
    b.c = m->inputs;
    if (m->ops < 1 || m->ops > HS_STEPS || HS_HEAD + (uint64_t)m->ops * HS_STEP_BYTES > bytes) return HS_BAD_LAYER;
    if (m->tile < 1 || m->tile > 512 || m->inputs < 1 || m->outputs < 1) return HS_BAD_LAYER;
    for (m->bad = 0; m->bad < m->ops; m->bad++) {
        step s;
        memcpy(&s, m->data + HS_HEAD + m->bad * HS_STEP_BYTES, sizeof s);
        if (s.kind == OUTPUTS || s.kind == SAMPLES || s.kind == TURN || s.kind == BACK) {
            if (!known_lanes(s.lanes)) return HS_BAD_LAYER;
            if (s.kind == OUTPUTS && !hs_kernels[0].outputs[lane_index(s.lanes)]) return HS_TOO_WIDE;
            if (s.kind != OUTPUTS && !hs_kernels[0].samples[lane_index(s.lanes)]) return HS_TOO_WIDE;
        }
        if ((s.kind == FRONT && !hs_kernels[0].front) || (s.kind == SUMS && !hs_kernels[0].sums)) return HS_BAD_LAYER;
        if (b.layout == DONE || !good(m, bytes, &s, &b)) return HS_BAD_LAYER;
        if (map_bytes(m, &b) > map) map = map_bytes(m, &b);
        if (list_bytes(m, &s) > lists) lists = list_bytes(m, &s);
        if (map > SIZE_MAX / 8 || lists > SIZE_MAX / 8) return HS_BAD_LAYER;
    }
    if (b.layout != DONE) return HS_BAD_LAYER;
    m->map = (size_t)rounded(map, 64);
    m->scratch = 2 * m->map + (size_t)rounded(lists, 64);
    return HS_OK;
}

#endif

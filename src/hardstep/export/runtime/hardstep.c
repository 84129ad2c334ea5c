/* hardstep: open a model, check it, run it. See hardstep.h; kernels are in lanes.h and bytes.h. */

#include "program.h"

#ifndef HS_SMALL
#include "positions.h"
#define C2(n) n, n + 1, n + 1, n + 2
#define C4(n) C2(n), C2(n + 1), C2(n + 1), C2(n + 2)
#define C6(n) C4(n), C4(n + 1), C4(n + 1), C4(n + 2)
static const unsigned char hs_counts[256] = {C6(0), C6(1), C6(1), C6(2)};
#undef C2
#undef C4
#undef C6
#endif

#define ISA baseline
#include "bytes.h"
#define LANES 64
#include "lanes.h"
#if defined(__GNUC__)
#if HS_MAX_LANES >= 128
#define LANES 128
#include "lanes.h"
#endif
#if HS_MAX_LANES >= 256
#define LANES 256
#include "lanes.h"
#endif
#if HS_MAX_LANES >= 512
#define LANES 512
#include "lanes.h"
#endif
#endif
#undef ISA

#if defined(__GNUC__) && defined(__x86_64__) && !defined(HS_SMALL)
#define HS_X86
#include <immintrin.h>

#define HS_PAIRS
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,bmi,bmi2,popcnt"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,bmi,bmi2,popcnt")
#endif
#define ISA avx2
#include "bytes.h"
#define LANES 64
#include "lanes.h"
#if HS_MAX_LANES >= 128
#define LANES 128
#include "lanes.h"
#endif
#if HS_MAX_LANES >= 256
#define LANES 256
#include "lanes.h"
#endif
#if HS_MAX_LANES >= 512
#define LANES 512
#include "lanes.h"
#endif
#undef ISA
#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

#if HS_MAX_LANES >= 512
#define HS_TERNARY
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512vl,avx2,bmi,bmi2,popcnt"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512vl,avx2,bmi,bmi2,popcnt")
#endif
#define ISA avx512
#include "bytes.h"
#define LANES 64
#include "lanes.h"
#define LANES 128
#include "lanes.h"
#define LANES 256
#include "lanes.h"
#define LANES 512
#include "lanes.h"
#undef ISA
#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#endif
#endif

#if defined(__GNUC__) && HS_MAX_LANES >= 512
#define FOUR_WIDTHS(name, isa) {name##_64_##isa, name##_128_##isa, name##_256_##isa, name##_512_##isa}
#elif defined(__GNUC__) && HS_MAX_LANES >= 256
#define FOUR_WIDTHS(name, isa) {name##_64_##isa, name##_128_##isa, name##_256_##isa, NULL}
#elif defined(__GNUC__) && HS_MAX_LANES >= 128
#define FOUR_WIDTHS(name, isa) {name##_64_##isa, name##_128_##isa, NULL, NULL}
#else
#define FOUR_WIDTHS(name, isa) {name##_64_##isa, NULL, NULL, NULL}
#endif
#define TABLE(isa) {bytes_any_##isa, scores_any_##isa, FOUR_WIDTHS(outputs, isa), FOUR_WIDTHS(samples, isa)}

static const kernels hs_kernels[] = {
    TABLE(baseline),
#ifdef HS_X86
    TABLE(avx2),
#if HS_MAX_LANES >= 512
    TABLE(avx512),
#endif
#endif
};

int hs_isa(void) {
#ifdef HS_X86
    __builtin_cpu_init();
#if HS_MAX_LANES >= 512
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl")
        && __builtin_cpu_supports("bmi2"))
        return 2;
#endif
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi2")) return 1;
#endif
    return 0;
}

const char *hs_isa_name(int isa) {
    static const char *const names[] = {"baseline", "avx2", "avx512"};
    return isa >= 0 && isa < (int)(sizeof hs_kernels / sizeof hs_kernels[0]) ? names[isa] : NULL;
}

const char *hs_error(int error) {
    static const char *const texts[] = {
        "no error",
        "not a hardstep model, or one for another byte order",
        "written by another version of the format",
        "the buffer is shorter or longer than the model says, or not aligned to 8 bytes",
        "the checksum does not fit the content",
        "a layer breaks a bound",
        "needs wider lanes than this build has",
    };
    return error >= 0 && error < (int)(sizeof texts / sizeof texts[0]) ? texts[error] : "unknown error";
}

void hs_labels(const int32_t *scores, uint32_t *labels, size_t n, uint32_t k) {
    for (size_t i = 0; i < n; i++, scores += k) {
        uint32_t best = 0;
        for (uint32_t j = 1; j < k; j++)
            if (scores[j] > scores[best]) best = j;
        labels[i] = best;
    }
}

#include "check.h"
#include "moves.h"

static size_t lane_index(uint32_t lanes) { return lanes == 64 ? 0u : lanes == 128 ? 1u : lanes == 256 ? 2u : 3u; }

void hs_run(const hs_model *m, const uint8_t *codes, int32_t *scores, size_t n, void *scratch) {
    const kernels *with = hs_kernels + m->isa;
    word *const maps[2] = {(word *)scratch, (word *)(void *)((unsigned char *)scratch + m->map)};
    work w;
    w.data = m->data;
    w.inputs = m->inputs;
    w.outputs = m->outputs;
    w.lists = (entry *)(void *)((unsigned char *)scratch + 2 * m->map);
    for (size_t done = 0; done < n; done += m->tile) {
        size_t side = 0;
        w.codes = codes + done * m->inputs;
        w.scores = scores + done * m->outputs;
        w.n = n - done < m->tile ? n - done : m->tile;
        for (uint32_t i = 0; i < m->ops; i++, side ^= 1u) {
            step s;
            memcpy(&s, m->data + HS_HEAD + i * HS_STEP_BYTES, sizeof s);
            w.in = maps[side];
            w.out = maps[side ^ 1u];
            switch (s.kind) {
            case PLANES: planes(&s, &w); break;
            case BYTES: with->bytes(&s, &w); break;
            case OUTPUTS: with->outputs[lane_index(s.lanes)](&s, &w); break;
            case SAMPLES: with->samples[lane_index(s.lanes)](&s, &w); break;
            case POOL: pool(&s, &w); break;
            case TURN: turn(&s, &w); break;
            case BACK: back(&s, &w); break;
            default: with->scores(&s, &w); break;
            }
        }
    }
}

#ifndef HS_DIGEST
#define HS_DIGEST ""
#endif

const char *hs_sources(void) { return HS_DIGEST; }

/* The kernels of every instruction set and width, and the choice between them when the program runs. */
#ifndef HS_ISAS_H
#define HS_ISAS_H

#include "program.h"

#define ISA baseline
#include "names.h"
#include "lists.h"
#include "bytes.h"
#include "scatter.h"
#include "sums.h"
#include "rows.h"
#include "widths.h"
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
#include "names.h"
#include "lists.h"
#include "bytes.h"
#include "scatter.h"
#include "sums.h"
#include "rows.h"
#include "widths.h"
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
#include "names.h"
#include "lists.h"
#include "bytes.h"
#include "scatter.h"
#include "sums.h"
#include "rows.h"
#include "widths.h"
#undef ISA
#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

#define HS_DOTS /* products of bytes summed in 32 bits; the rest is as above */
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512vnni,avx512f,avx512bw,avx512vl,avx2,bmi,bmi2,popcnt"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx512vnni,avx512f,avx512bw,avx512vl,avx2,bmi,bmi2,popcnt")
#endif
#define ISA vnni
#include "names.h"
#include "bytes.h"
#undef HS_PASTE
#undef HS_PASTED
#undef HS_AS
#undef ISA
#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#endif
#endif

#if HS_MAX_LANES >= 512
#define FOUR_WIDTHS(name, isa) {name##_64_##isa, name##_128_##isa, name##_256_##isa, name##_512_##isa}
#elif HS_MAX_LANES >= 256
#define FOUR_WIDTHS(name, isa) {name##_64_##isa, name##_128_##isa, name##_256_##isa, NULL}
#elif HS_MAX_LANES >= 128
#define FOUR_WIDTHS(name, isa) {name##_64_##isa, name##_128_##isa, NULL, NULL}
#else
#define FOUR_WIDTHS(name, isa) {name##_64_##isa, NULL, NULL, NULL}
#endif
#define TABLE(isa, dots)                                                                        \
    {planes_any_##isa, bytes_any_##dots, rows_any_##isa, front_any_##isa, sums_any_##isa, FOUR_WIDTHS(outputs, isa),                 \
     FOUR_WIDTHS(samples, isa), FOUR_WIDTHS(turn, isa), FOUR_WIDTHS(back, isa)}
#if HS_MAX_LANES >= 256 /* 128 lanes: two positions a vector */
#define outputs_128_avx2 twins_256_avx2
#define outputs_128_avx512 twins_256_avx512
#endif

static const kernels hs_kernels[] = {
    TABLE(baseline, baseline),
#ifdef HS_X86
    TABLE(avx2, avx2),
#if HS_MAX_LANES >= 512
    TABLE(avx512, avx512),
    TABLE(avx512, vnni),
#endif
#endif
};

int hs_isa(void) {
#ifdef HS_X86
    __builtin_cpu_init();
#if HS_MAX_LANES >= 512
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl")
        && __builtin_cpu_supports("bmi2"))
        return __builtin_cpu_supports("avx512vnni") ? 3 : 2;
#endif
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi2")) return 1;
#endif
    return 0;
}

#endif

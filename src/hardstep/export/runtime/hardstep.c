/* hardstep: open a model, check it, run it. See hardstep.h; kernels are in lanes.h and bytes.h. */

#include "program.h"

#include "isas.h"
#include "check.h"
#include "moves.h"

const char *hs_isa_name(int isa) {
    static const char *const names[] = {"baseline", "avx2", "avx512", "avx512-vnni"};
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

void hs_run(const hs_model *m, const uint8_t *codes, int32_t *scores, size_t n, void *scratch) {
    const kernels *with = hs_kernels + m->isa;
    word *const maps[2] = {(word *)scratch, (word *)(void *)((unsigned char *)scratch + m->map)};
    work w;
    w.data = m->data;
    w.outputs = m->outputs;
    w.lists = (entry *)(void *)((unsigned char *)scratch + 2 * m->map);
    for (size_t done = 0; done < n; done += m->tile) {
        size_t side = 0;
        w.codes = codes + done * m->inputs;
        w.inputs = m->inputs;
        w.scores = scores + done * m->outputs;
        w.n = n - done < m->tile ? n - done : m->tile;
        for (uint32_t i = 0; i < m->ops; i++, side ^= 1u) {
            step s;
            memcpy(&s, m->data + HS_HEAD + i * HS_STEP_BYTES, sizeof s);
            w.in = maps[side];
            w.out = maps[side ^ 1u];
            switch (s.kind) {
            case PLANES: with->planes(&s, &w); break;
            case BYTES: with->bytes(&s, &w); break;
            case OUTPUTS: with->outputs[lane_index(s.lanes)](&s, &w); break;
            case SAMPLES: with->samples[lane_index(s.lanes)](&s, &w); break;
            case POOL: pool(&s, &w); break;
            case TURN: with->turn[lane_index(s.lanes)](&s, &w); break;
            case BACK: with->back[lane_index(s.lanes)](&s, &w); break;
            case BITS: bits(&s, &w); break;
            case EMIT: emit(&s, &w); break;
            case FRONT: /* what follows reads its codes as input */
                with->front(&s, &w);
                w.codes = (const uint8_t *)w.out;
                w.inputs = s.units;
                break;
            case SUMS: with->sums(&s, &w); break;
            default: with->rows(&s, &w); break;
            }
        }
    }
}

#ifndef HS_DIGEST
#define HS_DIGEST ""
#endif

const char *hs_sources(void) { return HS_DIGEST; }

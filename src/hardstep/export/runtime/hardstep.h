/* hardstep: exact integer networks of hard steps.
 *
 * A model is one read-only buffer (written by hardstep.export.pack, little-endian, 8-byte aligned). Nothing is
 * allocated, there are no globals, and a model may be run by many threads at once, each with its own scratch.
 *
 *     hs_model model;
 *     if (hs_open(&model, data, bytes)) ...              checks everything, follows no offset before its bounds
 *     hs_run(&model, codes, scores, n, scratch);         model.inputs bytes a sample in, model.outputs int32 out
 */
#ifndef HARDSTEP_H
#define HARDSTEP_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum {
    HS_OK = 0,
    HS_BAD_MAGIC = 1,   /* not a model, or written for another byte order */
    HS_BAD_VERSION = 2, /* written by another version of the format */
    HS_TRUNCATED = 3,   /* shorter or longer than it says, or not aligned */
    HS_BAD_SUM = 4,     /* the checksum does not fit the content */
    HS_BAD_LAYER = 5,   /* a layer breaks a bound */
    HS_TOO_WIDE = 6     /* needs wider lanes than this build has */
};

typedef struct hs_model {
    const unsigned char *data;
    uint32_t ops;     /* steps of the program */
    uint32_t tile;    /* samples that go through the program together */
    uint32_t inputs;  /* bytes of one sample */
    uint32_t outputs; /* scores of one sample */
    int32_t isa;      /* instruction set, see hs_isa_name; may be lowered between hs_open and hs_run */
    uint32_t bad;     /* the step that was refused */
    size_t map;       /* bytes of one of the two activation buffers */
    size_t scratch;   /* bytes that hs_run needs, 64-byte aligned for speed */
} hs_model;

/* Check a buffer and describe it; 0, or the number of an error. */
int hs_open(hs_model *model, const void *data, size_t bytes);

/* Run n samples: codes are n * inputs bytes, scores n * outputs numbers. */
void hs_run(const hs_model *model, const uint8_t *codes, int32_t *scores, size_t n, void *scratch);

/* Write the label of each of n samples: the smallest index among the highest of k scores. */
void hs_labels(const int32_t *scores, uint32_t *labels, size_t n, uint32_t k);

/* The best instruction set here, and names: 0 baseline of the compiler, 1 AVX2, 2 AVX-512; NULL beyond. */
int hs_isa(void);
const char *hs_isa_name(int isa);

/* What an error number means; and which sources this was compiled from. */
const char *hs_error(int error);
const char *hs_sources(void);

#ifdef __cplusplus
}
#endif

#endif

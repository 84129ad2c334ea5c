/* Run a packed model on codes from the standard input and print the scores: for machines that only an emulator runs. */
#include <stdio.h>
#include <stdlib.h>

#include "hardstep.h"

int main(int argc, char **argv) {
    FILE *file = argc == 2 ? fopen(argv[1], "rb") : NULL;
    hs_model model;
    if (!file || fseek(file, 0, SEEK_END)) return 1;
    const size_t bytes = (size_t)ftell(file);
    unsigned char *data = malloc(bytes);
    rewind(file);
    if (!data || fread(data, 1, bytes, file) != bytes) return 2;
    const int error = hs_open(&model, data, bytes);
    if (error) return fprintf(stderr, "%s\n", hs_error(error)), 3;
    uint8_t *codes = malloc((size_t)model.inputs * model.tile);
    int32_t *scores = malloc((size_t)model.outputs * model.tile * sizeof(int32_t));
    void *scratch = malloc(model.scratch + 64);
    if (!codes || !scores || !scratch) return 4;
    for (size_t n; (n = fread(codes, model.inputs, model.tile, stdin)) > 0;) {
        hs_run(&model, codes, scores, n, scratch);
        for (size_t i = 0; i < n * model.outputs; i++)
            printf("%d%c", (int)scores[i], (i + 1) % model.outputs ? ' ' : '\n');
    }
    return 0;
}

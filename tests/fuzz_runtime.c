/* Mutate a model COUNT times, open it and run what opens; the sanitisers say whether anything was read outside.
 *
 *     cc -g -fsanitize=address,undefined -I RUNTIME tests/fuzz_runtime.c -o fuzz && ./fuzz MODEL COUNT SEED
 */
#include <stdio.h>
#include <stdlib.h>

#include "hardstep.c"

static uint64_t state;

static uint32_t draw(uint32_t below) {
    state ^= state << 13, state ^= state >> 7, state ^= state << 17;
    return (uint32_t)((state >> 20) % below);
}

int main(int argc, char **argv) {
    static unsigned char original[1 << 20];
    if (argc != 4) return 2;
    FILE *file = fopen(argv[1], "rb");
    if (!file) return 2;
    const size_t bytes = fread(original, 1, sizeof original, file);
    const long count = atol(argv[2]);
    long opened = 0;
    fclose(file);
    state = (uint64_t)atol(argv[3]) * 2654435761u + 1;
    for (long i = 0; i < count; i++) {
        size_t length = bytes;
        if (draw(16) == 0) length = draw((uint32_t)bytes + 1);
        unsigned char *data = malloc(length ? length : 1); /* exact, so that a read beyond is seen */
        if (!data) return 2;
        memcpy(data, original, length);
        const uint32_t head = HS_HEAD + HS_STEP_BYTES * 8;
        for (uint32_t changes = draw(4); changes && length >= 64; changes--) {
            const uint32_t limit = draw(4) ? (head < length ? head : (uint32_t)length) : (uint32_t)length;
            const uint32_t at = draw(limit) & ~(uint32_t)3;
            static const uint32_t values[] = {0, 1, 2, 7, 8, 63, 64, 255, 256, 65535, 65536, 0x7fffffff, 0x80000000, 0xffffffff};
            uint32_t value;
            memcpy(&value, data + at, at + 4 <= length ? 4 : 0);
            switch (draw(5)) {
            case 0: value = values[draw(14)]; break;
            case 1: value += 1; break;
            case 2: value -= 1; break;
            case 3: value ^= 1u << draw(32); break;
            default: value = draw(0xffffffff); break;
            }
            if (at + 4 <= length) memcpy(data + at, &value, 4);
        }
        if (length >= HS_HEAD && draw(8)) { /* mostly with a checksum and a length that fit */
            const uint32_t size = (uint32_t)length, magic = HS_MAGIC, version = HS_VERSION;
            memcpy(data, &magic, 4), memcpy(data + 4, &version, 4), memcpy(data + 8, &size, 4);
            const uint32_t sum = checksum(data + 16, length - 16);
            memcpy(data + 12, &sum, 4);
        }
        hs_model model;
        if (hs_open(&model, data, length) == HS_OK && model.scratch < 1u << 24) {
            const size_t n = model.tile + 1;
            uint8_t *codes = malloc(n * model.inputs);
            int32_t *scores = malloc(n * model.outputs * sizeof *scores);
            void *scratch = malloc(model.scratch ? model.scratch : 1);
            if (!codes || !scores || !scratch) return 2;
            for (size_t k = 0; k < n * model.inputs; k++) codes[k] = (uint8_t)draw(256);
            const int best = model.isa;
            for (model.isa = 0; model.isa <= best; model.isa++) hs_run(&model, codes, scores, n, scratch);
            free(codes), free(scores), free(scratch);
            opened++;
        }
        free(data);
    }
    printf("%ld opened of %ld\n", opened, count);
    return 0;
}

// The least work that makes KPL aggregates of records: frames each and copies it. No hashes, keys, sums or places.
//   clang -O3 -o pack pack.c && ./pack ROUNDS        each round 1,000 records of 100 bytes
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// As many aggregates as a call of 1 MiB has, so that memory is as warm as the agent's is.
enum { AGGREGATE = 51200, RECORDS = 1000, SIZE = 100, OPEN = 20 };

static uint8_t *varint(uint8_t *out, uint64_t value) {
    for (; value > 127; value >>= 7) *out++ = value | 128;
    *out++ = value;
    return out;
}

int main(int argc, char **argv) {
    if (argc != 2) return 64;
    long rounds = atol(argv[1]), sealed = 0;
    uint8_t *block = malloc(RECORDS * (4 + SIZE)), *memory = malloc(OPEN * AGGREGATE), *out = memory, *end = out + AGGREGATE;
    for (int i = 0; i < RECORDS; i++) {
        uint32_t size = SIZE;
        memcpy(block + i * (4 + SIZE), &size, 4);
        memset(block + i * (4 + SIZE) + 4, 120, SIZE);
    }
    for (long round = 0; round < rounds; round++)
        for (const uint8_t *at = block; at < block + RECORDS * (4 + SIZE);) {
            uint32_t size;
            memcpy(&size, at, 4);
            if (out + size + 16 > end) {
                out = memory + (++sealed % OPEN) * AGGREGATE;
                end = out + AGGREGATE;
            }
            *out++ = 0x1a;
            out = varint(out, 3 + (size > 127 ? 2 : 1) + size);
            memcpy(out, "\x08\x00\x1a", 3);
            out = varint(out + 3, size);
            memcpy(out, at + 4, size);
            out += size;
            at += 4 + size;
            __asm__ volatile("" ::"r"(out) : "memory");
        }
    printf("%ld\n", rounds * RECORDS);
    return 0;
}

// The least work that makes KPL aggregates of records: frames each and copies it. No sums, limits or retries.
//   clang -O3 -o pack pack.c && ./pack pack|pack-keys ROUNDS        each round 1,000 records of 100 bytes
// For pack-keys each has one of 1,000 partition keys, over 64 shards: its key is found in a table that has them all, and where
// the record came from is noted, as its run is not the last one's. No MD5, no tables of keys in front of the records.
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// As many aggregates as a call of 1 MiB has, so that memory is as warm as the agent's is.
enum { AGGREGATE = 51200, RECORDS = 1000, SIZE = 100, OPEN = 20, SHARDS = 64, SLOTS = 8192, BATCH = 32, MOST_RUNS = 512 };

static uint8_t *varint(uint8_t *out, uint64_t value) {
    for (; value > 127; value >>= 7) *out++ = value | 128;
    *out++ = value;
    return out;
}

static void records(long rounds) {
    long sealed = 0;
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
}

/// A partition key of up to 16 bytes, and where it leads.
struct slot {
    uint64_t key[2];
    uint32_t shard, index;
};
struct run {
    uint32_t source, records;
    uint64_t first, end;
};
struct aggregate {
    uint8_t *out, *end;
    struct run *runs;
    size_t count;
};
struct entry {
    const uint8_t *data;
    uint32_t size;
    uint64_t key[2], position;
    struct slot *slot;
};

static uint64_t mix(uint64_t hash, uint64_t word) {
    unsigned __int128 product = (unsigned __int128)(hash ^ word) * 0xd6e8feb866599d93;
    return (uint64_t)(product >> 64) ^ (uint64_t)product;
}

static void keyed_records(long rounds) {
    uint8_t *block = malloc(RECORDS * (8 + 16 + SIZE) + 16), *end = block;
    for (int i = 0; i < RECORDS; i++) {
        char key[17];
        uint32_t sizes[2] = {SIZE, (uint32_t)sprintf(key, "device-%d", i * 7919)};
        memcpy(end, sizes, 8);
        memcpy(end + 8, key, sizes[1]);
        memset(end + 8 + sizes[1], 120, SIZE);
        end += 8 + sizes[1] + SIZE;
    }
    struct slot *slots = calloc(SLOTS, sizeof *slots);
    uint8_t *memory = malloc((size_t)(SHARDS + OPEN) * AGGREGATE), *spare[OPEN];
    struct run *runs = malloc(SHARDS * MOST_RUNS * sizeof *runs);
    struct aggregate open[SHARDS];
    for (int i = 0; i < SHARDS; i++)
        open[i] = (struct aggregate){memory + i * AGGREGATE, memory + (i + 1) * AGGREGATE, runs + i * MOST_RUNS, 0};
    for (int i = 0; i < OPEN; i++) spare[i] = memory + (SHARDS + i) * AGGREGATE;
    size_t turn = 0;
    uint64_t position = 0;
    for (long round = 0; round < rounds; round++)
        for (const uint8_t *at = block; at < end;) {
            struct entry batch[BATCH];
            int count = 0;
            // Many at a time, so that they wait for memory together.
            for (; count < BATCH && at < end; count++) {
                struct entry *entry = &batch[count];
                uint32_t sizes[2];
                memcpy(sizes, at, 8);
                memcpy(entry->key, at + 8, 16);
                if (sizes[1] < 16) entry->key[1] &= (1ull << 8 * (sizes[1] - 8)) - 1;
                uint64_t hash = mix(mix(sizes[1] * 0x9e3779b97f4a7c15, entry->key[0]), entry->key[1]);
                entry->slot = &slots[hash >> 20 & (SLOTS - 1)];
                __builtin_prefetch(entry->slot);
                entry->data = at + 8 + sizes[1];
                entry->size = sizes[0];
                entry->position = position;
                position += sizes[0];
                at = entry->data + sizes[0];
            }
            for (int i = 0; i < count; i++) {
                struct slot *slot = batch[i].slot;
                if (memcmp(slot->key, batch[i].key, 16)) {
                    memcpy(slot->key, batch[i].key, 16);
                    slot->shard = mix(slot->key[0], slot->key[1]) % SHARDS;
                    slot->index = slot->key[1] & 15;
                }
                const uint8_t *to = open[slot->shard].out;
                __builtin_prefetch(to + 128, 1);
                __builtin_prefetch(to + 192, 1);
            }
            for (int i = 0; i < count; i++) {
                struct aggregate *aggregate = &open[batch[i].slot->shard];
                uint32_t size = batch[i].size;
                if (aggregate->out + size + 48 > aggregate->end || aggregate->count == MOST_RUNS) {
                    uint8_t *full = aggregate->end - AGGREGATE;
                    aggregate->out = spare[turn];
                    aggregate->end = aggregate->out + AGGREGATE;
                    aggregate->count = 0;
                    spare[turn] = full;
                    turn = (turn + 1) % OPEN;
                }
                uint8_t *out = aggregate->out;
                *out++ = 0x1a;
                out = varint(out, 3 + (size > 127 ? 2 : 1) + size);
                uint32_t head = 0x1a0008 | batch[i].slot->index << 8;
                memcpy(out, &head, 4);
                out = varint(out + 3, size);
                // What lies behind is written anew by the next.
                for (uint32_t copied = 0; copied < size; copied += 32) memcpy(out + copied, batch[i].data + copied, 32);
                aggregate->out = out + size;
                aggregate->runs[aggregate->count++] =
                    (struct run){1, 1, batch[i].position, batch[i].position + size};
            }
            __asm__ volatile("" ::"r"(open) : "memory");
        }
}

int main(int argc, char **argv) {
    if (argc != 3) return 64;
    long rounds = atol(argv[2]);
    if (strcmp(argv[1], "pack") == 0) {
        records(rounds);
    } else if (strcmp(argv[1], "pack-keys") == 0) {
        keyed_records(rounds);
    } else {
        return 64;
    }
    printf("%ld\n", rounds * RECORDS);
    return 0;
}

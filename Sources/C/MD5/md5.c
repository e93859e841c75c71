#include "CMD5.h"
#include <stdint.h>
#include <string.h>

static const uint32_t start[4] = {0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476};

// floor(2^32 · |sin(i + 1)|)
static const uint32_t sines[64] = {
    0xd76aa478, 0xe8c7b756, 0x242070db, 0xc1bdceee, 0xf57c0faf, 0x4787c62a, 0xa8304613, 0xfd469501,
    0x698098d8, 0x8b44f7af, 0xffff5bb1, 0x895cd7be, 0x6b901122, 0xfd987193, 0xa679438e, 0x49b40821,
    0xf61e2562, 0xc040b340, 0x265e5a51, 0xe9b6c7aa, 0xd62f105d, 0x02441453, 0xd8a1e681, 0xe7d3fbc8,
    0x21e1cde6, 0xc33707d6, 0xf4d50d87, 0x455a14ed, 0xa9e3e905, 0xfcefa3f8, 0x676f02d9, 0x8d2a4c8a,
    0xfffa3942, 0x8771f681, 0x6d9d6122, 0xfde5380c, 0xa4beea44, 0x4bdecfa9, 0xf6bb4b60, 0xbebfbc70,
    0x289b7ec6, 0xeaa127fa, 0xd4ef3085, 0x04881d05, 0xd9d4d039, 0xe6db99e5, 0x1fa27cf8, 0xc4ac5665,
    0xf4292244, 0x432aff97, 0xab9423a7, 0xfc93a039, 0x655b59c3, 0x8f0ccc92, 0xffeff47d, 0x85845dd1,
    0x6fa87e4f, 0xfe2ce6e0, 0xa3014314, 0x4e0811a1, 0xf7537e82, 0xbd3af235, 0x2ad7d2bb, 0xeb86d391,
};
static const int turns[4][4] = {{7, 12, 17, 22}, {5, 9, 14, 20}, {4, 11, 16, 23}, {6, 10, 15, 21}};

enum { block = 64, most_lanes = 32 };

/// Continues the states of as many messages as it has lanes over `count` blocks of each.
///
/// `table` is `sines`: as constants the compiler would add them last, behind what each step waits for.
typedef void kernel(uint32_t *states, const unsigned char *const *at, size_t count, const uint32_t *table);

// The same lines for each width. A step waits for the one before it: of two vectors one keeps the processor busy meanwhile.
#define WIDTH 1
#define VECTORS 1
#define NAME one
#include "kernel.inc"

#define WIDTH 4
#define VECTORS 1
#define NAME four
#include "kernel.inc"
#define WIDTH 4
#define VECTORS 2
#define NAME twice_four
#include "kernel.inc"

#if defined(__x86_64__)
#pragma clang attribute push(__attribute__((target("avx2"))), apply_to = function)
#define WIDTH 8
#define VECTORS 1
#define NAME eight
#include "kernel.inc"
#define WIDTH 8
#define VECTORS 2
#define NAME twice_eight
#include "kernel.inc"
#pragma clang attribute pop

#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512vl"))), apply_to = function)
#define WIDTH 16
#define VECTORS 1
#define NAME sixteen
#include "kernel.inc"
#define WIDTH 16
#define VECTORS 2
#define NAME twice_sixteen
#include "kernel.inc"
#pragma clang attribute pop

enum cmd5_lanes cmd5_best(void) {
    int has512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl");
    return has512 ? cmd5_sixteen : __builtin_cpu_supports("avx2") ? cmd5_eight : cmd5_four;
}
#else
enum cmd5_lanes cmd5_best(void) { return cmd5_four; }
#endif

/// The kernel for so many messages, and how many it takes.
static kernel *choose(size_t count, enum cmd5_lanes lanes, size_t *width) {
    if (count < 2 || lanes == cmd5_one) return *width = 1, one;
    int twice = count > lanes;
    *width = twice ? lanes * 2 : lanes;
#if defined(__x86_64__)
    if (lanes == cmd5_sixteen) return twice ? twice_sixteen : sixteen;
    if (lanes == cmd5_eight) return twice ? twice_eight : eight;
#endif
    *width = twice ? 8 : 4;
    return twice ? twice_four : four;
}

/// A message on its way through a lane: its whole blocks, then its end with the padding.
struct lane {
    const struct cmd5_message *message;
    size_t blocks, tail_blocks;
    unsigned char tail[2 * block];
};

static void begin(struct lane *lane, const struct cmd5_message *message, const unsigned char **at) {
    size_t rest = message->count % block, whole = message->count - rest;
    lane->message = message;
    lane->tail_blocks = rest < block - 8 ? 1 : 2;
    memset(lane->tail, 0, sizeof lane->tail);
    if (rest) memcpy(lane->tail, (const unsigned char *)message->bytes + whole, rest);
    lane->tail[rest] = 0x80;
    for (int i = 0; i < 8; i++)
        lane->tail[lane->tail_blocks * block - 8 + i] = (unsigned char)((uint64_t)message->count * 8 >> 8 * i);
    lane->blocks = whole / block;
    *at = message->bytes;
}

/// Goes over from the message to its end.
static void turn_to_tail(struct lane *lane, const unsigned char **at) {
    if (lane->blocks || !lane->tail_blocks) return;
    lane->blocks = lane->tail_blocks;
    lane->tail_blocks = 0;
    *at = lane->tail;
}

void cmd5_sums(const struct cmd5_message *messages, size_t count, enum cmd5_lanes lanes) {
    if (!count) return;
    size_t width, next = 0, busy = 0;
    kernel *run = choose(count, lanes, &width);
    _Alignas(64) uint32_t states[4 * most_lanes];
    const unsigned char *at[most_lanes];
    struct lane lane[most_lanes];
    for (size_t i = 0; i < width; i++) lane[i].message = 0;
    do {
        size_t least = SIZE_MAX, busiest = 0;
        for (size_t i = 0; i < width; i++) {
            if (!lane[i].message && next < count) {
                begin(&lane[i], &messages[next++], &at[i]);
                for (int word = 0; word < 4; word++) states[word * width + i] = start[word];
                busy++;
            }
            if (!lane[i].message) continue;
            turn_to_tail(&lane[i], &at[i]);
            if (lane[i].blocks < least) least = lane[i].blocks;
            busiest = i;
        }
        // A lane without a message repeats another's: its result is nobody's.
        for (size_t i = 0; i < width; i++)
            if (!lane[i].message) at[i] = at[busiest];
        run(states, at, least, sines);
        for (size_t i = 0; i < width; i++) {
            if (!lane[i].message) continue;
            at[i] += least * block;
            lane[i].blocks -= least;
            if (lane[i].blocks || lane[i].tail_blocks) continue;
            for (int word = 0; word < 4; word++)
                for (int byte = 0; byte < 4; byte++)
                    ((unsigned char *)lane[i].message->sum)[4 * word + byte] = (unsigned char)(states[word * width + i] >> 8 * byte);
            lane[i].message = 0;
            busy--;
        }
    } while (busy || next < count);
}

void cmd5_block_sums(const void *blocks, size_t count, void *sums, enum cmd5_lanes lanes) {
    for (size_t next = 0, width; next < count; next += width) {
        kernel *run = choose(count - next, lanes, &width);
        _Alignas(64) uint32_t states[4 * most_lanes];
        const unsigned char *at[most_lanes];
        size_t busy = count - next < width ? count - next : width;
        for (size_t i = 0; i < width; i++) {
            // A lane without a message repeats the first one's: its result is nobody's.
            at[i] = (const unsigned char *)blocks + (next + (i < busy ? i : 0)) * block;
            for (int word = 0; word < 4; word++) states[word * width + i] = start[word];
        }
        run(states, at, 1, sines);
        for (size_t i = 0; i < busy; i++)
            for (int word = 0; word < 4; word++)
                for (int byte = 0; byte < 4; byte++)
                    ((unsigned char *)sums)[(next + i) * 16 + 4 * word + byte] = (unsigned char)(states[word * width + i] >> 8 * byte);
    }
}

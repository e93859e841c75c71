#include "CSHA256.h"

#if defined(__x86_64__)
#include <cpuid.h>
#include <immintrin.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { block = 64 };

static const uint32_t start[8] = {
    0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19,
};
static const uint32_t constants[64] __attribute__((aligned(16))) = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
};

bool csha256_can_pair(void) {
    unsigned a, b, c, d;
    return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (b & 1u << 29) && __builtin_cpu_supports("sse4.1");
}

/// Continues the states of `ways` messages over `count` blocks of each. A state is ABEF, CDGH.
#define ROUNDS(NAME, WAYS)                                                                                              \
    __attribute__((target("sha,sse4.1,ssse3"))) static void NAME(                                                       \
        __m128i state[][2], const unsigned char *const *at, size_t count                                                \
    ) {                                                                                                                 \
        const __m128i swap = _mm_set_epi64x(0x0c0d0e0f08090a0b, 0x0405060700010203);                                    \
        __m128i low[WAYS], high[WAYS], words[WAYS][4];                                                                  \
        for (int w = 0; w < WAYS; w++) low[w] = state[w][0], high[w] = state[w][1];                                     \
        for (size_t offset = 0; offset < count * block; offset += block) {                                              \
            __m128i before[WAYS][2];                                                                                    \
            _Pragma("clang loop unroll(full)") for (int w = 0; w < WAYS; w++) before[w][0] = low[w], before[w][1] = high[w]; \
            _Pragma("clang loop unroll(full)") for (int i = 0; i < 16; i++) {                                           \
                const __m128i constant = _mm_load_si128((const __m128i *)constants + i);                                \
                _Pragma("clang loop unroll(full)") for (int w = 0; w < WAYS; w++) {                                     \
                    __m128i *word = words[w];                                                                           \
                    if (i < 4) {                                                                                        \
                        __m128i raw = _mm_loadu_si128((const __m128i *)(at[w] + offset) + i);                           \
                        word[i] = _mm_shuffle_epi8(raw, swap);                                                          \
                    } else {                                                                                            \
                        __m128i sum = _mm_sha256msg1_epu32(word[i & 3], word[(i + 1) & 3]);                             \
                        sum = _mm_add_epi32(sum, _mm_alignr_epi8(word[(i + 3) & 3], word[(i + 2) & 3], 4));             \
                        word[i & 3] = _mm_sha256msg2_epu32(sum, word[(i + 3) & 3]);                                     \
                    }                                                                                                   \
                    __m128i added = _mm_add_epi32(word[i & 3], constant);                                               \
                    high[w] = _mm_sha256rnds2_epu32(high[w], low[w], added);                                            \
                    low[w] = _mm_sha256rnds2_epu32(low[w], high[w], _mm_shuffle_epi32(added, 0x0e));                    \
                }                                                                                                       \
            }                                                                                                           \
            _Pragma("clang loop unroll(full)") for (int w = 0; w < WAYS; w++) {                                         \
                low[w] = _mm_add_epi32(low[w], before[w][0]);                                                           \
                high[w] = _mm_add_epi32(high[w], before[w][1]);                                                         \
            }                                                                                                           \
        }                                                                                                               \
        for (int w = 0; w < WAYS; w++) state[w][0] = low[w], state[w][1] = high[w];                                     \
    }
ROUNDS(alone, 1)
ROUNDS(together, 2)

/// A message on its way: a stretch of whole blocks at a time, those that lie in several pieces through `joint`.
struct walk {
    const struct csha256_message *message;
    size_t piece, offset, total;
    const unsigned char *at;
    size_t blocks;
    bool ended;
    /// The last bytes and the padding, or a block of several pieces.
    unsigned char joint[2 * block];
};

static void advance(struct walk *walk) {
    const struct csha256_message *message = walk->message;
    while (walk->piece < message->count && walk->offset == message->pieces[walk->piece].count) walk->piece++, walk->offset = 0;
    if (walk->piece < message->count) {
        const struct csha256_piece *piece = &message->pieces[walk->piece];
        size_t whole = (piece->count - walk->offset) / block;
        if (whole) {
            walk->at = (const unsigned char *)piece->bytes + walk->offset;
            walk->blocks = whole;
            walk->offset += whole * block;
            walk->total += whole * block;
            return;
        }
    }
    size_t count = 0;
    while (count < block && walk->piece < message->count) {
        const struct csha256_piece *piece = &message->pieces[walk->piece];
        size_t part = piece->count - walk->offset;
        if (part > block - count) part = block - count;
        if (part) memcpy(walk->joint + count, (const unsigned char *)piece->bytes + walk->offset, part);
        count += part;
        walk->offset += part;
        if (walk->offset == piece->count) walk->piece++, walk->offset = 0;
    }
    walk->total += count;
    walk->at = walk->joint;
    walk->blocks = 1;
    if (count == block) return;
    walk->ended = true;
    walk->blocks = count < block - 8 ? 1 : 2;
    memset(walk->joint + count, 0, sizeof walk->joint - count);
    walk->joint[count] = 0x80;
    for (int i = 0; i < 8; i++)
        walk->joint[walk->blocks * block - 1 - (size_t)i] = (unsigned char)((uint64_t)walk->total * 8 >> 8 * i);
}

__attribute__((target("sha,sse4.1,ssse3")))
void csha256_pair(const struct csha256_message *one, const struct csha256_message *other) {
    struct walk walks[2];
    __m128i states[2][2];
    for (int w = 0; w < 2; w++) {
        walks[w].message = w ? other : one;
        walks[w].piece = walks[w].offset = walks[w].total = 0;
        walks[w].ended = false;
        __m128i dcba = _mm_loadu_si128((const __m128i *)start), hgfe = _mm_loadu_si128((const __m128i *)start + 1);
        __m128i cdab = _mm_shuffle_epi32(dcba, 0xb1), efgh = _mm_shuffle_epi32(hgfe, 0x1b);
        states[w][0] = _mm_alignr_epi8(cdab, efgh, 8);
        states[w][1] = _mm_blend_epi16(efgh, cdab, 0xf0);
        advance(&walks[w]);
    }
    while (walks[0].blocks || walks[1].blocks) {
        if (walks[0].blocks && walks[1].blocks) {
            const unsigned char *at[2] = {walks[0].at, walks[1].at};
            size_t count = walks[0].blocks < walks[1].blocks ? walks[0].blocks : walks[1].blocks;
            together(states, at, count);
            for (int w = 0; w < 2; w++) walks[w].at += count * block, walks[w].blocks -= count;
        } else {
            struct walk *left = walks[0].blocks ? &walks[0] : &walks[1];
            alone(&states[left - walks], &left->at, left->blocks);
            left->blocks = 0;
        }
        for (int w = 0; w < 2; w++)
            if (!walks[w].blocks && !walks[w].ended) advance(&walks[w]);
    }
    for (int w = 0; w < 2; w++) {
        __m128i feba = _mm_shuffle_epi32(states[w][0], 0x1b), dchg = _mm_shuffle_epi32(states[w][1], 0xb1);
        __m128i halves[2] = {_mm_blend_epi16(feba, dchg, 0xf0), _mm_alignr_epi8(dchg, feba, 8)};
        uint32_t words[8];
        memcpy(words, halves, sizeof words);
        unsigned char *sum = walks[w].message->sum;
        for (int i = 0; i < 8; i++)
            for (int byte = 0; byte < 4; byte++) sum[4 * i + byte] = (unsigned char)(words[i] >> 8 * (3 - byte));
    }
}

#else
#include <stdlib.h>

bool csha256_can_pair(void) { return false; }

void csha256_pair(const struct csha256_message *one, const struct csha256_message *other) {
    (void)one, (void)other;
    abort();
}
#endif

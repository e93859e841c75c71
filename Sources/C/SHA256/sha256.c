#include "CSHA256.h"
#include <CBase64.h>

#if defined(__x86_64__)
#include <cpuid.h>
#include <immintrin.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum {
    block = 64,
    lanes = 16,
    /// Of base64 that is made at a time, for each message: sixteen times that stays in the second cache.
    text_blocks = 64,
    /// From so many messages on sixteen lanes take less than the processor's own instructions, two at a time; on Sapphire
    /// Rapids sixteen take what eight take there.
    least_wide = 9,
    /// The same where there are no such instructions, and OpenSSL is the other way.
    least_wide_alone = 4,
};

static const uint32_t start[8] = {
    0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19,
};
static const uint32_t constants[64] __attribute__((aligned(64))) = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
};

/// Whether the processor has instructions for SHA-256, and AVX-512; and whether two messages by the former take less than
/// sixteen by the latter: 0.30 and 0.33 s a GB, and sixteen bodies are out of the caches by the time they are sent.
static bool has_sha, has_wide, is_zen4;

// Once: in a virtual machine the instruction that asks takes microseconds.
__attribute__((constructor)) static void ask_processor(void) {
    unsigned a, b, c, d;
    __builtin_cpu_init();
    has_sha = __get_cpuid_count(7, 0, &a, &b, &c, &d) && (b & 1u << 29) && __builtin_cpu_supports("sse4.1");
    has_wide = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw");
    // AMD's family 25 is Zen 3 and 4; of these only Zen 4 has AVX-512, in two halves.
    is_zen4 = has_wide && __get_cpuid(0, &a, &b, &c, &d) && b == signature_AMD_ebx && __get_cpuid(1, &a, &b, &c, &d)
        && (a >> 8 & 15) + (a >> 20 & 255) == 0x19;
}

size_t csha256_most(void) { return has_wide ? lanes : has_sha ? 2 : 1; }

size_t csha256_best(void) { return has_sha && is_zen4 ? 2 : csha256_most(); }

size_t csha256_least(void) { return has_sha ? 2 : has_wide ? least_wide_alone : csha256_never; }

/// Continues the sums of `WAYS` messages over `count` blocks of each, by the processor's own SHA instructions.
#define ROUNDS(NAME, WAYS)                                                                                              \
    __attribute__((target("sha,sse4.1,ssse3"))) static void NAME(                                                       \
        uint32_t *const *sums, const unsigned char *const *at, size_t count                                             \
    ) {                                                                                                                 \
        const __m128i swap = _mm_set_epi64x(0x0c0d0e0f08090a0b, 0x0405060700010203);                                    \
        __m128i low[WAYS], high[WAYS], words[WAYS][4];                                                                  \
        for (int w = 0; w < WAYS; w++) {                                                                                \
            const __m128i *sum = (const __m128i *)sums[w];                                                              \
            __m128i cdab = _mm_shuffle_epi32(_mm_loadu_si128(sum), 0xb1);                                               \
            __m128i efgh = _mm_shuffle_epi32(_mm_loadu_si128(sum + 1), 0x1b);                                           \
            low[w] = _mm_alignr_epi8(cdab, efgh, 8);                                                                    \
            high[w] = _mm_blend_epi16(efgh, cdab, 0xf0);                                                                \
        }                                                                                                               \
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
        for (int w = 0; w < WAYS; w++) {                                                                                \
            __m128i feba = _mm_shuffle_epi32(low[w], 0x1b), dchg = _mm_shuffle_epi32(high[w], 0xb1);                    \
            _mm_storeu_si128((__m128i *)sums[w], _mm_blend_epi16(feba, dchg, 0xf0));                                    \
            _mm_storeu_si128((__m128i *)sums[w] + 1, _mm_alignr_epi8(dchg, feba, 8));                                   \
        }                                                                                                               \
    }
ROUNDS(alone, 1)
ROUNDS(together, 2)

#define WIDE __attribute__((target("avx512f,avx512bw")))

/// Turns sixteen blocks of sixteen words into sixteen words of sixteen blocks.
WIDE __attribute__((always_inline)) static inline void transpose(__m512i rows[16]) {
    __m512i quarters[16];
    for (int i = 0; i < 16; i += 4) {
        __m512i a = _mm512_unpacklo_epi32(rows[i], rows[i + 1]), b = _mm512_unpackhi_epi32(rows[i], rows[i + 1]);
        __m512i c = _mm512_unpacklo_epi32(rows[i + 2], rows[i + 3]), d = _mm512_unpackhi_epi32(rows[i + 2], rows[i + 3]);
        quarters[i] = _mm512_unpacklo_epi64(a, c);
        quarters[i + 1] = _mm512_unpackhi_epi64(a, c);
        quarters[i + 2] = _mm512_unpacklo_epi64(b, d);
        quarters[i + 3] = _mm512_unpackhi_epi64(b, d);
    }
    for (int i = 0; i < 4; i++) {
        __m512i a = _mm512_shuffle_i32x4(quarters[i], quarters[4 + i], 0x44);
        __m512i b = _mm512_shuffle_i32x4(quarters[i], quarters[4 + i], 0xee);
        __m512i c = _mm512_shuffle_i32x4(quarters[8 + i], quarters[12 + i], 0x44);
        __m512i d = _mm512_shuffle_i32x4(quarters[8 + i], quarters[12 + i], 0xee);
        rows[i] = _mm512_shuffle_i32x4(a, c, 0x88);
        rows[4 + i] = _mm512_shuffle_i32x4(a, c, 0xdd);
        rows[8 + i] = _mm512_shuffle_i32x4(b, d, 0x88);
        rows[12 + i] = _mm512_shuffle_i32x4(b, d, 0xdd);
    }
}

/// Three words' exclusive or.
#define XOR(A, B, C) _mm512_ternarylogic_epi32(A, B, C, 0x96)
#define ROUND(A, B, C, D, E, F, G, H, I)                                                                                \
    {                                                                                                                   \
        __m512i sum = _mm512_add_epi32(_mm512_add_epi32(H, _mm512_set1_epi32((int)constants[I])), words[(I) % 16]);     \
        sum = _mm512_add_epi32(sum, _mm512_ternarylogic_epi32(E, F, G, 0xca));                                          \
        sum = _mm512_add_epi32(sum, XOR(_mm512_ror_epi32(E, 6), _mm512_ror_epi32(E, 11), _mm512_ror_epi32(E, 25)));     \
        D = _mm512_add_epi32(D, sum);                                                                                   \
        sum = _mm512_add_epi32(sum, _mm512_ternarylogic_epi32(A, B, C, 0xe8));                                          \
        H = _mm512_add_epi32(sum, XOR(_mm512_ror_epi32(A, 2), _mm512_ror_epi32(A, 13), _mm512_ror_epi32(A, 22)));       \
    }
#define EIGHT_ROUNDS(I)                                                                                                 \
    ROUND(a, b, c, d, e, f, g, h, I) ROUND(h, a, b, c, d, e, f, g, I + 1) ROUND(g, h, a, b, c, d, e, f, I + 2)          \
    ROUND(f, g, h, a, b, c, d, e, I + 3) ROUND(e, f, g, h, a, b, c, d, I + 4) ROUND(d, e, f, g, h, a, b, c, I + 5)      \
    ROUND(c, d, e, f, g, h, a, b, I + 6) ROUND(b, c, d, e, f, g, h, a, I + 7)

/// Continues the sums of sixteen messages over `count` blocks of each: a register holds a word of every one.
WIDE static void side_by_side(uint32_t *const *sums, const unsigned char *const *at, size_t count) {
    const __m512i swap = _mm512_broadcast_i32x4(_mm_set_epi64x(0x0c0d0e0f08090a0b, 0x0405060700010203));
    __m512i sum[16];
    for (int w = 0; w < lanes; w++) sum[w] = _mm512_castsi256_si512(_mm256_loadu_si256((const __m256i *)sums[w]));
    transpose(sum);
    for (size_t offset = 0; offset < count * block; offset += block) {
        __m512i words[16];
        for (int w = 0; w < lanes; w++) words[w] = _mm512_loadu_si512(at[w] + offset);
        transpose(words);
        for (int i = 0; i < 16; i++) words[i] = _mm512_shuffle_epi8(words[i], swap);
        __m512i a = sum[0], b = sum[1], c = sum[2], d = sum[3], e = sum[4], f = sum[5], g = sum[6], h = sum[7];
        EIGHT_ROUNDS(0)
        EIGHT_ROUNDS(8)
        _Pragma("clang loop unroll(full)") for (int first = 16; first < 64; first += 16) {
            _Pragma("clang loop unroll(full)") for (int i = 0; i < 16; i++) {
                __m512i near = words[(i + 1) % 16], far = words[(i + 14) % 16];
                __m512i low = XOR(_mm512_ror_epi32(near, 7), _mm512_ror_epi32(near, 18), _mm512_srli_epi32(near, 3));
                __m512i high = XOR(_mm512_ror_epi32(far, 17), _mm512_ror_epi32(far, 19), _mm512_srli_epi32(far, 10));
                words[i] = _mm512_add_epi32(_mm512_add_epi32(words[i], words[(i + 9) % 16]), _mm512_add_epi32(low, high));
            }
            EIGHT_ROUNDS(first)
            EIGHT_ROUNDS(first + 8)
        }
        sum[0] = _mm512_add_epi32(sum[0], a), sum[1] = _mm512_add_epi32(sum[1], b);
        sum[2] = _mm512_add_epi32(sum[2], c), sum[3] = _mm512_add_epi32(sum[3], d);
        sum[4] = _mm512_add_epi32(sum[4], e), sum[5] = _mm512_add_epi32(sum[5], f);
        sum[6] = _mm512_add_epi32(sum[6], g), sum[7] = _mm512_add_epi32(sum[7], h);
    }
    transpose(sum);
    for (int w = 0; w < lanes; w++) _mm256_storeu_si256((__m256i *)sums[w], _mm512_castsi512_si256(sum[w]));
}

/// A message on its way: a stretch of whole blocks at a time, those that lie in several pieces through `joint`.
struct walk {
    const struct csha256_message *message;
    size_t piece, offset, total;
    const unsigned char *at;
    size_t blocks;
    bool ended;
    uint32_t sum[8];
    /// The last bytes and the padding, or a block of several pieces.
    unsigned char joint[2 * block];
    /// Blocks of base64.
    unsigned char text[text_blocks * block];
};

/// The bytes that a piece is of its message.
static size_t length(const struct csha256_piece *piece) {
    return piece->is_base64 ? cbase64_size(piece->count) : piece->count;
}

static void copy(const struct csha256_piece *piece, size_t offset, unsigned char *out, size_t count) {
    if (piece->is_base64) {
        cbase64_encode_part(cbase64_best(), piece->bytes, piece->count, offset, out, count);
    } else if (count) {
        memcpy(out, (const unsigned char *)piece->bytes + offset, count);
    }
}

static void advance(struct walk *walk) {
    const struct csha256_message *message = walk->message;
    while (walk->piece < message->count && walk->offset == length(&message->pieces[walk->piece])) walk->piece++, walk->offset = 0;
    if (walk->piece < message->count) {
        const struct csha256_piece *piece = &message->pieces[walk->piece];
        size_t whole = (length(piece) - walk->offset) / block;
        if (whole) {
            if (piece->is_base64) {
                if (whole > text_blocks) whole = text_blocks;
                copy(piece, walk->offset, walk->text, whole * block);
                walk->at = walk->text;
            } else {
                walk->at = (const unsigned char *)piece->bytes + walk->offset;
            }
            walk->blocks = whole;
            walk->offset += whole * block;
            walk->total += whole * block;
            return;
        }
    }
    size_t count = 0;
    while (count < block && walk->piece < message->count) {
        const struct csha256_piece *piece = &message->pieces[walk->piece];
        size_t part = length(piece) - walk->offset;
        if (part > block - count) part = block - count;
        copy(piece, walk->offset, walk->joint + count, part);
        count += part;
        walk->offset += part;
        if (walk->offset == length(piece)) walk->piece++, walk->offset = 0;
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

static void begin(struct walk *walk, const struct csha256_message *message) {
    walk->message = message;
    walk->piece = walk->offset = walk->total = 0;
    walk->ended = false;
    memcpy(walk->sum, start, sizeof start);
    advance(walk);
}

static void finish(const struct walk *walk) {
    unsigned char *sum = walk->message->sum;
    for (int i = 0; i < 8; i++)
        for (int byte = 0; byte < 4; byte++) sum[4 * i + byte] = (unsigned char)(walk->sum[i] >> 8 * (3 - byte));
}

void csha256_sums(const struct csha256_message *messages, size_t count, size_t most) {
    if (count < csha256_least() || most < 2) abort();
    const size_t ways = has_wide && (most == lanes || !has_sha) && count >= (has_sha ? least_wide : least_wide_alone) ? lanes : 2;
    struct walk walks[lanes], *under_way[lanes];
    size_t next = 0, active = 0;
    for (; active < ways && next < count; active++) begin(under_way[active] = &walks[active], &messages[next++]);
    uint32_t idle[8] = {0};
    while (active > 0) {
        // The last few are not worth sixteen lanes.
        const size_t many = ways == lanes && (active >= least_wide || !has_sha) ? active : active < 2 ? 1 : 2;
        size_t shortest = under_way[0]->blocks;
        for (size_t w = 1; w < many; w++)
            if (under_way[w]->blocks < shortest) shortest = under_way[w]->blocks;
        uint32_t *sums[lanes];
        const unsigned char *at[lanes];
        for (size_t w = 0; w < lanes; w++) {
            // Lanes that have nothing to do repeat the first's blocks for nobody.
            sums[w] = w < many ? under_way[w]->sum : idle;
            at[w] = under_way[w < many ? w : 0]->at;
        }
        if (many > 2 || !has_sha) {
            side_by_side(sums, at, shortest);
        } else if (many == 2) {
            together(sums, at, shortest);
        } else {
            alone(sums, at, shortest);
        }
        for (size_t w = many; w-- > 0;) {
            struct walk *walk = under_way[w];
            walk->at += shortest * block;
            walk->blocks -= shortest;
            if (walk->blocks > 0) continue;
            if (!walk->ended) {
                advance(walk);
                continue;
            }
            finish(walk);
            if (next < count) {
                begin(walk, &messages[next++]);
            } else {
                under_way[w] = under_way[--active];
            }
        }
    }
}

#else
#include <stdlib.h>

size_t csha256_most(void) { return 1; }

size_t csha256_best(void) { return 1; }

size_t csha256_least(void) { return csha256_never; }

void csha256_sums(const struct csha256_message *messages, size_t count, size_t most) {
    (void)messages, (void)count, (void)most;
    abort();
}
#endif

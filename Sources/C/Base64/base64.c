#include "CBase64.h"
#include <stdint.h>
#include <string.h>

static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

static void portable(const unsigned char *at, size_t count, char *out) {
    for (; count >= 3; at += 3, count -= 3, out += 4) {
        uint32_t group = (uint32_t)at[0] << 16 | (uint32_t)at[1] << 8 | at[2];
        out[0] = alphabet[group >> 18];
        out[1] = alphabet[group >> 12 & 63];
        out[2] = alphabet[group >> 6 & 63];
        out[3] = alphabet[group & 63];
    }
    if (count == 0) return;
    uint32_t group = (uint32_t)at[0] << 16 | (count == 2 ? (uint32_t)at[1] << 8 : 0);
    out[0] = alphabet[group >> 18];
    out[1] = alphabet[group >> 12 & 63];
    out[2] = count == 2 ? alphabet[group >> 6 & 63] : '=';
    out[3] = '=';
}

#if defined(__x86_64__)
#include <immintrin.h>

/// As far as whole steps go: 24 bytes become 32 characters. Behind the `count` bytes there are `spare` more to read.
__attribute__((target("avx2"))) static size_t by_avx2(const unsigned char *at, size_t count, size_t spare, char *out) {
    if (count < 24 || count + spare < 28) return 0;
    // Of the three bytes a b c of a group the words "b a" and "c b" hold its four sixes.
    const __m256i spread = _mm256_setr_epi8(
        1, 0, 2, 1, 4, 3, 5, 4, 7, 6, 8, 7, 10, 9, 11, 10, 1, 0, 2, 1, 4, 3, 5, 4, 7, 6, 8, 7, 10, 9, 11, 10);
    // What is added to a six: for a to z, each digit, + and /, A to Z.
    const __m256i shift = _mm256_setr_epi8(
        'a' - 26, -4, -4, -4, -4, -4, -4, -4, -4, -4, -4, '+' - 62, '/' - 63, 'A', 0, 0,
        'a' - 26, -4, -4, -4, -4, -4, -4, -4, -4, -4, -4, '+' - 62, '/' - 63, 'A', 0, 0);
    size_t done = 0;
    // Each half reads 16 bytes for the 12 that it takes.
    const size_t last = spare < 4 ? count + spare - 28 : count - 24;
    for (; done <= last; done += 24, out += 32) {
        __m256i groups = _mm256_inserti128_si256(
            _mm256_castsi128_si256(_mm_loadu_si128((const __m128i *)(at + done))),
            _mm_loadu_si128((const __m128i *)(at + done + 12)), 1);
        groups = _mm256_shuffle_epi8(groups, spread);
        // Multiplying shifts each word by its own count: the first and third six down, the second and fourth up.
        __m256i odd = _mm256_mulhi_epu16(
            _mm256_and_si256(groups, _mm256_set1_epi32(0x0fc0fc00)), _mm256_set1_epi32(0x04000040));
        __m256i even = _mm256_mullo_epi16(
            _mm256_and_si256(groups, _mm256_set1_epi32(0x003f03f0)), _mm256_set1_epi32(0x01000010));
        __m256i sixes = _mm256_or_si256(odd, even);
        // 0 for a to z, 1 to 12 for what follows, 13 for A to Z.
        __m256i kind = _mm256_subs_epu8(sixes, _mm256_set1_epi8(51));
        __m256i is_upper = _mm256_cmpgt_epi8(_mm256_set1_epi8(26), sixes);
        kind = _mm256_or_si256(kind, _mm256_and_si256(is_upper, _mm256_set1_epi8(13)));
        _mm256_storeu_si256((__m256i *)out, _mm256_add_epi8(sixes, _mm256_shuffle_epi8(shift, kind)));
    }
    return done;
}

/// All whole groups, and as many at a time as there are: 48 bytes become 64 characters.
__attribute__((target("avx512f,avx512bw,avx512vbmi"))) static size_t by_avx512(const unsigned char *at, size_t count, char *out) {
    // Of the three bytes a b c of a group the bytes b a c b hold its four sixes one behind the other, from bits 10, 4, 22 and 16.
    static const unsigned char spread[64] __attribute__((aligned(64))) = {
        1, 0, 2, 1, 4, 3, 5, 4, 7, 6, 8, 7, 10, 9, 11, 10, 13, 12, 14, 13, 16, 15, 17, 16, 19, 18, 20, 19, 22, 21, 23, 22,
        25, 24, 26, 25, 28, 27, 29, 28, 31, 30, 32, 31, 34, 33, 35, 34, 37, 36, 38, 37, 40, 39, 41, 40, 43, 42, 44, 43, 46, 45, 47, 46,
    };
    const __m512i order = _mm512_load_si512(spread), letters = _mm512_loadu_si512(alphabet);
    const __m512i shifts = _mm512_set1_epi64(0x3036242a1016040a);
    const size_t whole = count / 3 * 3;
    for (size_t done = 0; done < whole; done += 48, out += 64) {
        const size_t left = whole - done;
        const __mmask64 taken = left < 48 ? ((__mmask64)1 << left) - 1 : (__mmask64)0xffffffffffff;
        const __mmask64 written = left < 48 ? ((__mmask64)1 << left / 3 * 4) - 1 : ~(__mmask64)0;
        __m512i groups = _mm512_permutexvar_epi8(order, _mm512_maskz_loadu_epi8(taken, at + done));
        // Of an index six bits count.
        __m512i sixes = _mm512_multishift_epi64_epi8(shifts, groups);
        _mm512_mask_storeu_epi8(out, written, _mm512_permutexvar_epi8(sixes, letters));
    }
    return whole;
}

static enum cbase64_way best;

// Once: in a virtual machine the instruction that asks takes microseconds.
__attribute__((constructor)) static void ask_processor(void) {
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx2")) best = cbase64_avx2;
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vbmi")) best = cbase64_avx512;
}

static size_t vectors(enum cbase64_way way, const unsigned char *bytes, size_t count, size_t spare, char *out) {
    switch (way) {
    case cbase64_portable: return 0;
    case cbase64_avx2: return by_avx2(bytes, count, spare, out);
    case cbase64_avx512: return by_avx512(bytes, count, out);
    }
}

#else

static const enum cbase64_way best = cbase64_portable;

static size_t vectors(enum cbase64_way way, const unsigned char *bytes, size_t count, size_t spare, char *out) {
    (void)way, (void)bytes, (void)count, (void)spare, (void)out;
    return 0;
}

#endif

enum cbase64_way cbase64_best(void) { return best; }

static void encode(enum cbase64_way way, const unsigned char *bytes, size_t count, size_t spare, char *out) {
    const size_t done = vectors(way, bytes, count, spare, out);
    portable(bytes + done, count - done, out + done / 3 * 4);
}

void cbase64_encode(const void *bytes, size_t count, void *room) { encode(best, bytes, count, 0, room); }

void cbase64_encode_part(
    enum cbase64_way way, const void *bytes, size_t count, size_t offset, void *room, size_t size
) {
    char *out = room;
    while (size > 0) {
        const size_t group = offset / 4, within = offset % 4, left = count - group * 3;
        const unsigned char *at = (const unsigned char *)bytes + group * 3;
        if (within == 0 && size >= 4) {
            const size_t whole = size / 4, taken = whole * 3 < left ? whole * 3 : left;
            encode(way, at, taken, left - taken, out);
            out += whole * 4, offset += whole * 4, size -= whole * 4;
        } else {
            // A group that begins before the part or ends behind it.
            char characters[4];
            portable(at, left < 3 ? left : 3, characters);
            const size_t part = size < 4 - within ? size : 4 - within;
            memcpy(out, characters + within, part);
            out += part, offset += part, size -= part;
        }
    }
}

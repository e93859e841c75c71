#include "CBase64.h"
#include <stdint.h>
#include <string.h>

static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

void cbase64_encode_portable(const void *bytes, size_t count, void *room) {
    char *out = room;
    const unsigned char *at = bytes;
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

/// As far as whole steps go: 24 bytes become 32 characters.
__attribute__((target("avx2"))) static size_t by_avx2(const unsigned char *at, size_t count, char *out) {
    // Of the three bytes a b c of a group the words "b a" and "c b" hold its four sixes.
    const __m256i spread = _mm256_setr_epi8(
        1, 0, 2, 1, 4, 3, 5, 4, 7, 6, 8, 7, 10, 9, 11, 10, 1, 0, 2, 1, 4, 3, 5, 4, 7, 6, 8, 7, 10, 9, 11, 10);
    // What is added to a six: for a to z, each digit, + and /, A to Z.
    const __m256i shift = _mm256_setr_epi8(
        'a' - 26, -4, -4, -4, -4, -4, -4, -4, -4, -4, -4, '+' - 62, '/' - 63, 'A', 0, 0,
        'a' - 26, -4, -4, -4, -4, -4, -4, -4, -4, -4, -4, '+' - 62, '/' - 63, 'A', 0, 0);
    size_t done = 0;
    // Each half reads 16 bytes for the 12 that it takes.
    for (; count - done >= 28; done += 24, out += 32) {
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

void cbase64_encode(const void *bytes, size_t count, void *room) {
    char *out = room;
    size_t done = count >= 28 && __builtin_cpu_supports("avx2") ? by_avx2(bytes, count, out) : 0;
    cbase64_encode_portable((const unsigned char *)bytes + done, count - done, out + done / 3 * 4);
}

#else

void cbase64_encode(const void *bytes, size_t count, void *room) { cbase64_encode_portable(bytes, count, room); }

#endif

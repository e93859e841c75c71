#include "CText.h"
#include <stdint.h>
#include <string.h>

#define EACH 0x0101010101010101u

// The high bit of each byte that is not plain; exact up to the first one, and that is where a reader stops.
static inline uint64_t others(uint64_t word) {
    uint64_t quote = word ^ EACH * '"', backslash = word ^ EACH * '\\';
    uint64_t below = (word - EACH * 0x20) | (quote - EACH) | (backslash - EACH);
    return (below | word) & EACH * 0x80;
}

// A byte of 0x80 and more, or a borrow from the byte below, may mark a byte for nothing: looked at again one by one.
static inline int is_plain(unsigned char byte) {
    return byte >= 0x20 && byte < 0x80 && byte != '"' && byte != '\\';
}

size_t ctext_copy_plain_portable(void *to, const void *from, size_t count) {
    unsigned char *out = to;
    const unsigned char *in = from;
    size_t at = 0;
    while (count - at >= 8) {
        uint64_t word;
        memcpy(&word, in + at, 8);
        memcpy(out + at, &word, 8);
        if (others(word)) {
            size_t end = at + 8;
            while (at < end && is_plain(in[at])) at++;
            if (at < end) return at;
        } else {
            at += 8;
        }
    }
    while (at < count && is_plain(in[at])) {
        out[at] = in[at];
        at++;
    }
    return at;
}

#if defined(__x86_64__)
#include <immintrin.h>

static inline unsigned copy16(unsigned char *to, const unsigned char *from) {
    ctext_block bytes;
    memcpy(&bytes, from, 16);
    memcpy(to, &bytes, 16);
    return ctext_not_plain(bytes);
}

// The last step of each goes back over bytes that are known to be plain, so that none ends behind `count`.
static size_t by_16(unsigned char *to, const unsigned char *from, size_t count) {
    size_t at = 0;
    unsigned mask;
    for (; count - at > 16; at += 16)
        if ((mask = copy16(to + at, from + at))) return at + (size_t)__builtin_ctz(mask);
    at = count - 16;
    mask = copy16(to + at, from + at);
    return mask ? at + (size_t)__builtin_ctz(mask) : count;
}

// `shuffle` picks, by its low four bits, the one special byte that a byte could be.
__attribute__((target("avx2"))) static inline __m256i specials32(__m256i bytes) {
    const __m256i specials = _mm256_setr_epi8(
        1, 0, '"', 0, 0, 0, 0, 0, 0, 0, 0, 0, '\\', 0, 0, 0, 1, 0, '"', 0, 0, 0, 0, 0, 0, 0, 0, 0, '\\', 0, 0, 0
    );
    return _mm256_cmpeq_epi8(_mm256_shuffle_epi8(specials, bytes), bytes);
}

// What was seen in several steps: the lowest byte, as a signed number, at each place, and where one of the two stood.
typedef struct {
    __m256i low, special;
} seen;

__attribute__((target("avx2"))) static inline seen copy32(unsigned char *to, const unsigned char *from) {
    __m256i bytes = _mm256_loadu_si256((const __m256i *)from);
    _mm256_storeu_si256((__m256i *)to, bytes);
    return (seen){bytes, specials32(bytes)};
}

__attribute__((target("avx2"))) static inline seen both(seen a, seen b) {
    return (seen){_mm256_min_epi8(a.low, b.low), _mm256_or_si256(a.special, b.special)};
}

__attribute__((target("avx2"))) static inline __m256i others32(seen all) {
    return _mm256_or_si256(_mm256_cmpgt_epi8(_mm256_set1_epi8(0x20), all.low), all.special);
}

__attribute__((target("avx2"))) static inline int is_plain32(seen all) {
    __m256i result = others32(all);
    return _mm256_testz_si256(result, result);
}

// Steps of 128 bytes, and as few as hold the rest; of each it is asked once whether all was plain.
__attribute__((target("avx2"))) static size_t by_32(unsigned char *to, const unsigned char *from, size_t count) {
    size_t at = 0;
    for (; count - at >= 128; at += 128) {
        seen first = both(copy32(to + at, from + at), copy32(to + at + 32, from + at + 32));
        seen second = both(copy32(to + at + 64, from + at + 64), copy32(to + at + 96, from + at + 96));
        if (__builtin_expect(!is_plain32(both(first, second)), 0)) goto look;
    }
    // Over bytes that were copied already, so that none behind `count` is touched.
    size_t end = count - 32;
    seen rest = copy32(to + end, from + end);
    if (count - at > 32) {
        rest = both(rest, copy32(to + at, from + at));
        if (count - at > 64) {
            rest = both(rest, copy32(to + at + 32, from + at + 32));
            rest = both(rest, copy32(to + end - 32, from + end - 32));
        }
    }
    if (__builtin_expect(is_plain32(rest), 1)) return count;
look:
    for (; count - at > 32; at += 32) {
        unsigned mask = (unsigned)_mm256_movemask_epi8(others32(copy32(to + at, from + at)));
        if (mask) return at + (size_t)__builtin_ctz(mask);
    }
    unsigned mask = (unsigned)_mm256_movemask_epi8(others32(copy32(to + count - 32, from + count - 32)));
    return mask ? count - 32 + (size_t)__builtin_ctz(mask) : count;
}

size_t ctext_copy_plain(void *to, const void *from, size_t count) {
    if (count < 16) return ctext_copy_plain_portable(to, from, count);
    if (count >= 32 && __builtin_cpu_supports("avx2")) return by_32(to, from, count);
    return by_16(to, from, count);
}

#else

size_t ctext_copy_plain(void *to, const void *from, size_t count) { return ctext_copy_plain_portable(to, from, count); }

#endif

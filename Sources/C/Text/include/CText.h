#pragma once
#include "senders.h"
#include <stddef.h>

/// Copies the bytes that a JSON string holds as they are, ASCII without controls, quotes and backslashes, up to the first
/// other one; returns how many.
///
/// May write anything to the rest of `to`, which has room for `count`; the two do not overlap.
size_t ctext_copy_plain(void *to, const void *from, size_t count);
/// The same, never by the processor's wide instructions: to compare with.
size_t ctext_copy_plain_portable(void *to, const void *from, size_t count);

/// Copies `count` bytes, 32 at least, by 32; the last step goes back over bytes that are copied already.
///
/// For a hundred bytes a call of memcpy costs as much as they do, and so does a loop that is unrolled for many more.
static inline void ctext_copy_short(void *to, const void *from, size_t count) {
    size_t last = count - 32;
#pragma clang loop unroll(disable) vectorize(disable)
    for (size_t at = 0; at < last; at += 32) __builtin_memcpy((char *)to + at, (const char *)from + at, 32);
    __builtin_memcpy((char *)to + last, (const char *)from + last, 32);
}

/// Has the processor bring the line of memory in which `at` lies, soon to be written, while other work goes on; whatever
/// `at` is.
static inline void ctext_prefetch(const void *at) { __builtin_prefetch(at, 1); }

/// The first `count` bytes of forty, at most that many, and zeros behind them.
typedef struct { uint64_t words[5]; } ctext_forty;

static inline ctext_forty ctext_first_of_forty(const void *from, size_t count) {
    static const uint64_t masks[10] = {~0ull, ~0ull, ~0ull, ~0ull, ~0ull, 0, 0, 0, 0, 0};
    uint64_t mask[5];
    ctext_forty forty;
    __builtin_memcpy(mask, (const char *)masks + 40 - count, sizeof mask);
    __builtin_memcpy(&forty, from, sizeof forty);
    for (int word = 0; word < 5; word++) forty.words[word] &= mask[word];
    return forty;
}

/// Sixteen bytes; Swift's SIMD16<UInt8>.
typedef unsigned char ctext_block __attribute__((ext_vector_type(16)));
typedef signed char ctext_signed_block __attribute__((ext_vector_type(16)));
/// What comparing two blocks gives: all bits of a byte, or none.
typedef char ctext_result __attribute__((ext_vector_type(16)));

/// A bit for each byte of a comparison's result that is true.
static inline unsigned ctext_bits(ctext_result result) {
#if defined(__x86_64__)
    return (unsigned)__builtin_ia32_pmovmskb128(result);
#else
    unsigned bits = 0;
    for (int at = 0; at < 16; at++) bits |= (unsigned)(result[at] & 1) << at;
    return bits;
#endif
}

/// A bit for each byte that a JSON string does not hold as it is.
static inline unsigned ctext_not_plain(ctext_block bytes) {
    // Read as signed, bytes of 0x80 and more are below a space as controls are.
    ctext_result low = (ctext_signed_block)bytes < 0x20;
    return ctext_bits(low | (bytes == '"') | (bytes == '\\'));
}

/// A bit for each control character and space.
static inline unsigned ctext_stops(ctext_block bytes) { return ctext_bits(bytes <= 0x20); }

/// The same, and for each of two bytes.
static inline unsigned ctext_stops_and(ctext_block bytes, unsigned char one, unsigned char two) {
    return ctext_bits((bytes <= 0x20) | (bytes == one) | (bytes == two));
}

/// A bit for each of two bytes.
static inline unsigned ctext_either(ctext_block bytes, unsigned char one, unsigned char two) {
    return ctext_bits((bytes == one) | (bytes == two));
}

/// A bit for each byte that is the same in both.
static inline unsigned ctext_equal(ctext_block one, ctext_block other) { return ctext_bits(one == other); }

/// A bit for each control character.
static inline unsigned ctext_controls(ctext_block bytes) { return ctext_bits(bytes < 0x20); }

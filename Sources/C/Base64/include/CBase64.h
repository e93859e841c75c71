#pragma once
#include <stddef.h>

/// Ways to encode, each faster than the one before it.
enum cbase64_way { cbase64_portable, cbase64_avx2, cbase64_avx512 };

/// The fastest that this machine has.
enum cbase64_way cbase64_best(void);

/// Characters that `count` bytes become, with padding (RFC 4648).
static inline size_t cbase64_size(size_t count) { return (count + 2) / 3 * 4; }

/// Writes `count` bytes in base64, in the fastest way.
void cbase64_encode(const void *bytes, size_t count, void *out);
/// Writes `size` of those characters, from the one at `offset` on, in a way that the machine must have.
void cbase64_encode_part(
    enum cbase64_way way, const void *bytes, size_t count, size_t offset, void *out, size_t size
);

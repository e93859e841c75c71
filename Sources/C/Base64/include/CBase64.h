#pragma once
#include <stddef.h>

/// Writes `count` bytes in base64 with padding (RFC 4648), (count + 2) / 3 * 4 characters, with AVX2 where there is some.
void cbase64_encode(const void *bytes, size_t count, void *out);
/// The same without.
void cbase64_encode_portable(const void *bytes, size_t count, void *out);

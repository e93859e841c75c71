#pragma once
#include <stddef.h>
#include <stdint.h>

/// CRC-32C (Castagnoli, RFC 3720 appendix B.4) of `count` bytes, going on from `crc`; begin with 0.
uint32_t ccrc32c_update(uint32_t crc, const void *bytes, size_t count);
/// The same, never by the processor's instruction: to compare with.
uint32_t ccrc32c_update_portable(uint32_t crc, const void *bytes, size_t count);

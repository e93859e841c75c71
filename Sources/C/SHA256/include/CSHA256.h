#pragma once
#include <stdbool.h>
#include <stddef.h>

// SHA-256 (FIPS 180-4) of several messages side by side: a message's own rounds wait for each other, and cannot be cut.
//
// With AVX-512 sixteen share each instruction, which takes less than half of one after the other by the processor's SHA
// instructions. By those, the rounds of two fill each other's gaps: AMD's start two rounds a cycle, Intel's are nearly busy
// with one message.

/// A stretch of a message: bytes as they lie in memory, or in base64, which is made a few KiB at a time.
struct csha256_piece {
    const void *bytes;
    size_t count;
    bool is_base64;
};

/// A message in pieces, one behind the other.
struct csha256_message {
    const struct csha256_piece *pieces;
    size_t count;
    /// Where the 32 bytes of the sum go.
    void *sum;
};

/// How many messages this machine can hash side by side: 16, 2 or 1.
size_t csha256_most(void);
/// How many it hashes best.
size_t csha256_best(void);

/// More messages than there are: a count that Swift's Int holds, too.
enum { csha256_never = 0x7fffffff };

/// The fewest messages for which the function below takes less than OpenSSL for one after the other; `csha256_never` where it
/// must not be called.
size_t csha256_least(void);

/// Writes the sum of each message, of whatever lengths, `most` side by side: one of the two numbers above. There must be no
/// fewer messages than `csha256_least`.
void csha256_sums(const struct csha256_message *messages, size_t count, size_t most);

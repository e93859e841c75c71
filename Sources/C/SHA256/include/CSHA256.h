#pragma once
#include <stdbool.h>
#include <stddef.h>

// SHA-256 (FIPS 180-4) of two messages side by side: a message's rounds wait for each other, those of another fill the gaps.
// How much there is to fill is the processor's: AMD's start two rounds a cycle, Intel's are nearly busy with one message.

/// A stretch of a message.
struct csha256_piece {
    const void *bytes;
    size_t count;
};

/// A message in pieces, one behind the other.
struct csha256_message {
    const struct csha256_piece *pieces;
    size_t count;
    /// Where the 32 bytes of the sum go.
    void *sum;
};

/// Whether this machine has the instructions; without them, the function below must not be called.
bool csha256_can_pair(void);

/// Writes the sums of two messages, of whatever lengths.
void csha256_pair(const struct csha256_message *one, const struct csha256_message *other);

#pragma once
#include <stddef.h>

// MD5 (RFC 1321) of many messages side by side: a message's own steps cannot be cut, but several messages' can share
// each instruction.

struct cmd5_message {
    const void *bytes;
    size_t count;
    /// Where the 16 bytes of the sum go.
    void *sum;
};

enum cmd5_lanes {
    /// No vectors.
    cmd5_one = 1,
    /// What every x86-64 and aarch64 processor has.
    cmd5_four = 4,
    /// AVX2.
    cmd5_eight = 8,
    /// AVX-512.
    cmd5_sixteen = 16,
};

/// The most lanes that this machine has.
enum cmd5_lanes cmd5_best(void);

/// Writes the sum of each message, of whatever lengths; `lanes` must be no more than the machine has.
void cmd5_sums(const struct cmd5_message *messages, size_t count, enum cmd5_lanes lanes);

/// The same of messages shorter than 56 bytes, each padded in a block of its own: 64 bytes, its own, 0x80, zeros, and the
/// number of its bits in the last eight, as RFC 1321 has it. `sums` gets 16 bytes for each.
void cmd5_block_sums(const void *blocks, size_t count, void *sums, enum cmd5_lanes lanes);

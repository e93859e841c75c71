#pragma once
#include <stddef.h>
#include <stdint.h>

// Sockets of datagrams. Each returns -errno on failure.

/// A UDP socket bound to an address in digits; an IPv6 one to IPv6 alone. It does not block. Returns the descriptor.
int clinux_udp(const char *host, uint16_t port, int is_ipv6, int shares_port, int receive_buffer);
/// The port that a socket is bound to.
int clinux_udp_port(int fd);
/// The bytes that the kernel keeps for a socket, as setsockopt counts them.
int clinux_receive_buffer(int fd);
/// Asks the kernel to say who sent each datagram through a Unix socket, and when it came.
int clinux_tell_origin(int fd, int is_unix, int times);
/// No more datagrams are put into a socket's queue; those in it can still be read.
int clinux_stop_receiving(int fd, int is_unix);

/// What waits in a socket's queue, and what did not fit.
struct clinux_queue {
    uint32_t waiting;
    uint32_t limit;
    uint32_t drops;
};
int clinux_queue(int fd, struct clinux_queue *out);

/// What one call of recvmmsg needs, and what it says of each datagram.
struct clinux_datagrams;

/// Room for `most` datagrams, each with `overflow` bytes for what is longer than its slot. NULL: there is no memory.
struct clinux_datagrams *clinux_datagrams_make(unsigned most, size_t overflow, int tells_origin);
void clinux_datagrams_free(struct clinux_datagrams *batch);
/// Receives up to `count` datagrams, each into its slot of `stride` bytes, behind the slot's first `head`. Never waits.
/// Returns how many came.
int clinux_datagrams_receive(
    struct clinux_datagrams *batch, int fd, void *slots, size_t stride, size_t head, unsigned count);
/// The lengths that the datagrams of the last call had, also where there was no room for all of one.
const uint32_t *clinux_datagrams_lengths(const struct clinux_datagrams *batch);
/// Where the bytes of a datagram lie that its slot had no room for.
const void *clinux_datagrams_overflow(const struct clinux_datagrams *batch, unsigned index);
/// Gives the overflow's memory back to the system until it is used again.
void clinux_datagrams_trim(struct clinux_datagrams *batch);
/// Who sent a datagram, in at most 64 bytes: an address in digits, or the user and the process. Returns its length; 0: it is
/// not known.
int clinux_datagrams_sender(struct clinux_datagrams *batch, unsigned index, char *text);
/// When a datagram came, in nanoseconds since 1970; 0: it is not known.
int64_t clinux_datagrams_time(const struct clinux_datagrams *batch, unsigned index);

/// A UDP socket that sends to an address in digits. Returns the descriptor.
int clinux_udp_to(const char *host, uint16_t port, int is_ipv6);

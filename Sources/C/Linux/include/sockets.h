#pragma once
#include <stddef.h>
#include <stdint.h>

// Sockets and epoll. Each returns -errno on failure.

/// Who is at the other end of a connection, or where a socket is bound.
struct clinux_address {
    /// 4, 6, 1 for a Unix socket, 0 for anything else.
    int family;
    uint16_t port;
    /// The process at the other end of a Unix socket, and its user.
    int32_t process;
    uint32_t user;
    /// The address in digits, or the path; ends with a zero.
    char text[112];
};

/// A socket that does not block; `family` as above. Returns the descriptor.
int clinux_socket(int family, int is_datagram);
/// Binds a socket to an address in digits; an IPv6 one to IPv6 alone.
int clinux_bind_ip(int fd, const char *host, uint16_t port, int is_ipv6, int is_datagram);
/// Binds a socket to a new file at `path`, which nobody but its owner may use yet.
int clinux_bind_unix(int fd, const char *path);
int clinux_connect_unix(int fd, const char *path);
/// Sends a datagram to a Unix socket, by its path or by `@` and its abstract name; waits a second at most.
int clinux_notify(const char *place, const void *message, size_t size);
/// Sets the owning group (none: (unsigned)-1) and the mode of `path`.
int clinux_own(const char *path, unsigned group, unsigned mode);
/// The number of a group, or -ENOENT.
int64_t clinux_group(const char *name);
int clinux_listen(int fd, int backlog);
/// The next connection of a listening socket; it does not block.
int clinux_accept(int fd, struct clinux_address *peer);
/// Where a socket is bound.
int clinux_bound(int fd, struct clinux_address *out);
/// Whether a socket is one of datagrams (1) or of streams (0), and whether it listens.
int clinux_is_datagram(int fd);
int clinux_is_listening(int fd);
/// Makes an inherited descriptor ours: closed by exec, never blocking.
int clinux_adopt(int fd);
/// The lowest number a new descriptor would have.
int clinux_lowest_descriptor(void);

int clinux_epoll(void);
/// Waits for input on `fd` and/or room for output, and says `token` then; neither: stops waiting for it.
int clinux_epoll_set(int epoll, int fd, int is_new, int input, int output, uint64_t token);
int clinux_epoll_remove(int epoll, int fd);
/// Fills `tokens` with those that have something. Returns how many.
int clinux_epoll_wait(int epoll, uint64_t *tokens, int most, int milliseconds);

#include "CLinux.h"
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stddef.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

static int result(int value) { return value < 0 ? -errno : value; }

int clinux_socket(int family, int is_datagram) {
    int kind = is_datagram ? SOCK_DGRAM : SOCK_STREAM;
    return result(socket(family == 4 ? AF_INET : family == 6 ? AF_INET6 : AF_UNIX, kind | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
}

int clinux_bind_ip(int fd, const char *host, uint16_t port, int is_ipv6, int is_datagram) {
    int one = 1;
    // A restart need not wait for old connections; with datagrams it would let two processes share a port.
    if (!is_datagram) setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (is_ipv6) {
        struct sockaddr_in6 a = {.sin6_family = AF_INET6, .sin6_port = htons(port)};
        if (inet_pton(AF_INET6, host, &a.sin6_addr) != 1) return -EINVAL;
        setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof one);
        return result(bind(fd, (struct sockaddr *)&a, sizeof a));
    }
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(port)};
    if (inet_pton(AF_INET, host, &a.sin_addr) != 1) return -EINVAL;
    return result(bind(fd, (struct sockaddr *)&a, sizeof a));
}

static int unix_address(const char *path, struct sockaddr_un *a) {
    memset(a, 0, sizeof *a);
    a->sun_family = AF_UNIX;
    if (strlen(path) >= sizeof a->sun_path) return -ENAMETOOLONG;
    strcpy(a->sun_path, path);
    return 0;
}

int clinux_bind_unix(int fd, const char *path) {
    struct sockaddr_un a;
    int failed = unix_address(path, &a);
    if (failed) return failed;
    // The socket's own mode is what bind gives the file.
    fchmod(fd, 0600);
    return result(bind(fd, (struct sockaddr *)&a, sizeof a));
}

int clinux_connect_unix(int fd, const char *path) {
    struct sockaddr_un a;
    int failed = unix_address(path, &a);
    return failed ? failed : result(connect(fd, (struct sockaddr *)&a, sizeof a));
}

int clinux_notify(const char *place, const void *message, size_t size) {
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    size_t count = strlen(place);
    if (count < 2 || count > sizeof a.sun_path || (place[0] != '/' && place[0] != '@')) return -EINVAL;
    memcpy(a.sun_path, place, count);
    if (place[0] == '@') a.sun_path[0] = 0;
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0) return -errno;
    struct timeval patience = {.tv_sec = 1};
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
    ssize_t sent = sendto(fd, message, size, MSG_NOSIGNAL, (struct sockaddr *)&a, (socklen_t)(offsetof(struct sockaddr_un, sun_path) + count));
    int failed = sent < 0 ? -errno : 0;
    close(fd);
    return failed;
}

int clinux_own(const char *path, unsigned group, unsigned mode) {
    if (group != (unsigned)-1 && chown(path, (uid_t)-1, group)) return -errno;
    return result(chmod(path, mode));
}

int64_t clinux_group(const char *name) {
    struct group *group = getgrnam(name);
    return group ? (int64_t)group->gr_gid : -ENOENT;
}

int clinux_listen(int fd, int backlog) { return result(listen(fd, backlog)); }

static void describe(const struct sockaddr_storage *s, socklen_t size, struct clinux_address *out) {
    memset(out, 0, sizeof *out);
    if (s->ss_family == AF_INET) {
        const struct sockaddr_in *a = (const void *)s;
        out->family = 4;
        out->port = ntohs(a->sin_port);
        inet_ntop(AF_INET, &a->sin_addr, out->text, sizeof out->text);
    } else if (s->ss_family == AF_INET6) {
        const struct sockaddr_in6 *a = (const void *)s;
        out->family = 6;
        out->port = ntohs(a->sin6_port);
        if (IN6_IS_ADDR_V4MAPPED(&a->sin6_addr)) {
            out->family = 4;
            inet_ntop(AF_INET, a->sin6_addr.s6_addr + 12, out->text, sizeof out->text);
        } else {
            inet_ntop(AF_INET6, &a->sin6_addr, out->text, sizeof out->text);
        }
    } else if (s->ss_family == AF_UNIX) {
        const struct sockaddr_un *a = (const void *)s;
        out->family = 1;
        size_t count = size > offsetof(struct sockaddr_un, sun_path) ? size - offsetof(struct sockaddr_un, sun_path) : 0;
        if (count > sizeof a->sun_path) count = sizeof a->sun_path;
        memcpy(out->text, a->sun_path, count);
    }
}

int clinux_accept(int fd, struct clinux_address *peer) {
    struct sockaddr_storage s;
    socklen_t size = sizeof s;
    int connection = accept4(fd, (struct sockaddr *)&s, &size, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (connection < 0) return -errno;
    describe(&s, size, peer);
    if (peer->family == 1) {
        struct ucred who;
        socklen_t length = sizeof who;
        if (!getsockopt(connection, SOL_SOCKET, SO_PEERCRED, &who, &length)) {
            peer->process = who.pid;
            peer->user = who.uid;
        }
    } else {
        // A sender that is cut off from the network does not say so.
        int one = 1;
        setsockopt(connection, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof one);
    }
    return connection;
}

int clinux_bound(int fd, struct clinux_address *out) {
    struct sockaddr_storage s;
    socklen_t size = sizeof s;
    if (getsockname(fd, (struct sockaddr *)&s, &size)) return -errno;
    describe(&s, size, out);
    // Bound to IPv6 it is one of IPv6, also if it takes IPv4 as well.
    if (s.ss_family == AF_INET6) out->family = 6;
    return 0;
}

static int option(int fd, int name) {
    int value = 0;
    socklen_t size = sizeof value;
    return getsockopt(fd, SOL_SOCKET, name, &value, &size) ? -errno : value;
}

int clinux_is_datagram(int fd) {
    int kind = option(fd, SO_TYPE);
    return kind < 0 ? kind : kind == SOCK_DGRAM ? 1 : kind == SOCK_STREAM ? 0 : -EPROTOTYPE;
}

int clinux_is_listening(int fd) { return option(fd, SO_ACCEPTCONN); }

int clinux_adopt(int fd) {
    if (fcntl(fd, F_SETFD, FD_CLOEXEC) < 0) return -errno;
    int flags = fcntl(fd, F_GETFL);
    return flags < 0 ? -errno : result(fcntl(fd, F_SETFL, flags | O_NONBLOCK));
}

int clinux_lowest_descriptor(void) {
    int fd = open("/", O_PATH | O_CLOEXEC);
    if (fd < 0) return -errno;
    close(fd);
    return fd;
}

int clinux_epoll(void) { return result(epoll_create1(EPOLL_CLOEXEC)); }

int clinux_epoll_set(int epoll, int fd, int is_new, int input, int output, uint64_t token) {
    struct epoll_event event = {.events = (input ? EPOLLIN : 0) | (output ? EPOLLOUT : 0), .data.u64 = token};
    return result(epoll_ctl(epoll, is_new ? EPOLL_CTL_ADD : EPOLL_CTL_MOD, fd, &event));
}

int clinux_epoll_remove(int epoll, int fd) {
    struct epoll_event none = {0};
    return result(epoll_ctl(epoll, EPOLL_CTL_DEL, fd, &none));
}

int clinux_epoll_wait(int epoll, uint64_t *tokens, int most, int milliseconds) {
    struct epoll_event events[128];
    int count = epoll_wait(epoll, events, most > 128 ? 128 : most, milliseconds);
    if (count < 0) return errno == EINTR ? 0 : -errno;
    for (int i = 0; i < count; i++) tokens[i] = events[i].data.u64;
    return count;
}

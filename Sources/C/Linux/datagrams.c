#include "datagrams.h"
#include <arpa/inet.h>
#include <errno.h>
#include <linux/filter.h>
#include <linux/sock_diag.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

static int result(int value) { return value < 0 ? -errno : value; }

int clinux_udp(const char *host, uint16_t port, int is_ipv6, int shares_port, int receive_buffer) {
    int fd = socket(is_ipv6 ? AF_INET6 : AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) return -errno;
    const int one = 1;
    if (shares_port) setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &one, sizeof one);
    // Beyond net.core.rmem_max with CAP_NET_ADMIN alone.
    if (setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &receive_buffer, sizeof receive_buffer))
        setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &receive_buffer, sizeof receive_buffer);
    int failed;
    if (is_ipv6) {
        struct sockaddr_in6 address = {.sin6_family = AF_INET6, .sin6_port = htons(port)};
        setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof one);
        inet_pton(AF_INET6, host, &address.sin6_addr);
        failed = bind(fd, (struct sockaddr *)&address, sizeof address);
    } else {
        struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
        inet_pton(AF_INET, host, &address.sin_addr);
        failed = bind(fd, (struct sockaddr *)&address, sizeof address);
    }
    if (!failed) return fd;
    failed = -errno;
    close(fd);
    return failed;
}

int clinux_udp_port(int fd) {
    struct sockaddr_in6 address;
    socklen_t size = sizeof address;
    if (getsockname(fd, (struct sockaddr *)&address, &size)) return -errno;
    // At the same place in both families.
    return ntohs(address.sin6_port);
}

int clinux_receive_buffer(int fd) {
    int size = 0;
    socklen_t length = sizeof size;
    if (getsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, &length)) return -errno;
    // The kernel doubles what is asked for, for its own records.
    return size / 2;
}

int clinux_tell_origin(int fd, int is_unix, int times) {
    const int one = 1;
    if (is_unix && setsockopt(fd, SOL_SOCKET, SO_PASSCRED, &one, sizeof one)) return -errno;
    return times ? result(setsockopt(fd, SOL_SOCKET, SO_TIMESTAMPNS, &one, sizeof one)) : 0;
}

int clinux_stop_receiving(int fd, int is_unix) {
    // Unix senders are told; others cannot be, and what they send is counted as dropped.
    if (is_unix) return result(shutdown(fd, SHUT_RD));
    struct sock_filter nothing = BPF_STMT(BPF_RET | BPF_K, 0);
    struct sock_fprog filter = {.len = 1, .filter = &nothing};
    return result(setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &filter, sizeof filter));
}

int clinux_queue(int fd, struct clinux_queue *out) {
    uint32_t memory[SK_MEMINFO_VARS] = {0};
    socklen_t size = sizeof memory;
    if (getsockopt(fd, SOL_SOCKET, SO_MEMINFO, memory, &size)) return -errno;
    out->waiting = memory[SK_MEMINFO_RMEM_ALLOC];
    out->limit = memory[SK_MEMINFO_RCVBUF];
    out->drops = memory[SK_MEMINFO_DROPS];
    return 0;
}

enum { control_size = 128 };

struct clinux_datagrams {
    unsigned most;
    int tells_origin;
    size_t overflow;
    char *overflows;
    struct mmsghdr *headers;
    struct iovec *parts;
    uint32_t *lengths;
    struct sockaddr_storage *senders;
    char *controls;
    // The last sender's text: many datagrams in a row are often of one.
    struct sockaddr_storage last;
    socklen_t last_size;
    int last_length;
    char last_text[64];
};

struct clinux_datagrams *clinux_datagrams_make(unsigned most, size_t overflow, int tells_origin) {
    struct clinux_datagrams *batch = calloc(1, sizeof *batch);
    if (!batch) return 0;
    batch->most = most;
    batch->overflow = overflow;
    batch->tells_origin = tells_origin;
    batch->headers = calloc(most, sizeof *batch->headers);
    batch->parts = calloc(most, 2 * sizeof *batch->parts);
    batch->lengths = calloc(most, sizeof *batch->lengths);
    // Touched only by datagrams that are longer than those before them.
    batch->overflows =
        mmap(0, most * overflow, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (tells_origin) {
        batch->senders = calloc(most, sizeof *batch->senders);
        batch->controls = calloc(most, control_size);
    }
    if (!batch->headers || !batch->parts || !batch->lengths || batch->overflows == MAP_FAILED
        || (tells_origin && (!batch->senders || !batch->controls))) {
        clinux_datagrams_free(batch);
        return 0;
    }
    for (unsigned i = 0; i < most; i++) {
        struct msghdr *header = &batch->headers[i].msg_hdr;
        header->msg_iov = &batch->parts[2 * i];
        header->msg_iovlen = 2;
        batch->parts[2 * i + 1] = (struct iovec){batch->overflows + i * overflow, overflow};
        if (!tells_origin) continue;
        header->msg_name = &batch->senders[i];
        header->msg_control = batch->controls + i * control_size;
    }
    return batch;
}

void clinux_datagrams_free(struct clinux_datagrams *batch) {
    if (batch->overflows && batch->overflows != MAP_FAILED) munmap(batch->overflows, batch->most * batch->overflow);
    free(batch->headers);
    free(batch->parts);
    free(batch->lengths);
    free(batch->senders);
    free(batch->controls);
    free(batch);
}

/// Closes what a local sender has passed along: nobody wants it, and every descriptor of the process would be used up.
static void close_passed(struct msghdr *header) {
    for (struct cmsghdr *each = CMSG_FIRSTHDR(header); each; each = CMSG_NXTHDR(header, each)) {
        if (each->cmsg_level != SOL_SOCKET || each->cmsg_type != SCM_RIGHTS) continue;
        size_t count = (each->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < count; i++) {
            int fd;
            memcpy(&fd, CMSG_DATA(each) + i * sizeof fd, sizeof fd);
            close(fd);
        }
    }
}

int clinux_datagrams_receive(
    struct clinux_datagrams *batch, int fd, void *slots, size_t stride, size_t head, unsigned count) {
    for (unsigned i = 0; i < count; i++) {
        batch->parts[2 * i] = (struct iovec){(char *)slots + i * stride + head, stride - head};
        if (!batch->tells_origin) continue;
        batch->headers[i].msg_hdr.msg_namelen = sizeof *batch->senders;
        batch->headers[i].msg_hdr.msg_controllen = control_size;
    }
    // MSG_TRUNC: the length is the datagram's, not that of the room.
    int received = recvmmsg(fd, batch->headers, count, MSG_DONTWAIT | MSG_TRUNC | MSG_CMSG_CLOEXEC, 0);
    if (received < 0) return -errno;
    for (int i = 0; i < received; i++) {
        struct msghdr *header = &batch->headers[i].msg_hdr;
        batch->lengths[i] = batch->headers[i].msg_len;
        // Without room for it the kernel drops it. UDP has none, and always a sender's address.
        if (batch->tells_origin && (header->msg_namelen == 0 || batch->senders[i].ss_family == AF_UNIX)) close_passed(header);
    }
    return received;
}

const uint32_t *clinux_datagrams_lengths(const struct clinux_datagrams *batch) { return batch->lengths; }

const void *clinux_datagrams_overflow(const struct clinux_datagrams *batch, unsigned index) {
    return batch->overflows + index * batch->overflow;
}

void clinux_datagrams_trim(struct clinux_datagrams *batch) {
    madvise(batch->overflows, batch->most * batch->overflow, MADV_DONTNEED);
}

static struct cmsghdr *control(const struct clinux_datagrams *batch, unsigned index, int type) {
    struct msghdr *header = &batch->headers[index].msg_hdr;
    for (struct cmsghdr *each = CMSG_FIRSTHDR(header); each; each = CMSG_NXTHDR(header, each))
        if (each->cmsg_level == SOL_SOCKET && each->cmsg_type == type) return each;
    return 0;
}

int clinux_datagrams_sender(struct clinux_datagrams *batch, unsigned index, char *text) {
    if (!batch->tells_origin) return 0;
    const struct sockaddr_storage *sender = &batch->senders[index];
    socklen_t size = batch->headers[index].msg_hdr.msg_namelen;
    if (size == 0 || sender->ss_family == AF_UNIX) {
        struct cmsghdr *found = control(batch, index, SCM_CREDENTIALS);
        if (!found) return 0;
        struct ucred credentials;
        memcpy(&credentials, CMSG_DATA(found), sizeof credentials);
        return snprintf(text, 64, "uid:%u pid:%d", credentials.uid, credentials.pid);
    }
    if (size != batch->last_size || memcmp(sender, &batch->last, size)) {
        const void *address = sender->ss_family == AF_INET6 ? (const void *)&((struct sockaddr_in6 *)sender)->sin6_addr
                                                            : (const void *)&((struct sockaddr_in *)sender)->sin_addr;
        if (!inet_ntop(sender->ss_family, address, batch->last_text, sizeof batch->last_text)) return 0;
        memcpy(&batch->last, sender, size);
        batch->last_size = size;
        batch->last_length = (int)strlen(batch->last_text);
    }
    memcpy(text, batch->last_text, (size_t)batch->last_length);
    return batch->last_length;
}

int64_t clinux_datagrams_time(const struct clinux_datagrams *batch, unsigned index) {
    if (!batch->tells_origin) return 0;
    struct cmsghdr *found = control(batch, index, SO_TIMESTAMPNS);
    if (!found) return 0;
    struct timespec time;
    memcpy(&time, CMSG_DATA(found), sizeof time);
    return (int64_t)time.tv_sec * 1000000000 + time.tv_nsec;
}

int clinux_udp_to(const char *host, uint16_t port, int is_ipv6) {
    int fd = socket(is_ipv6 ? AF_INET6 : AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0) return -errno;
    struct sockaddr_in6 six = {.sin6_family = AF_INET6, .sin6_port = htons(port)};
    struct sockaddr_in four = {.sin_family = AF_INET, .sin_port = htons(port)};
    inet_pton(is_ipv6 ? AF_INET6 : AF_INET, host, is_ipv6 ? (void *)&six.sin6_addr : (void *)&four.sin_addr);
    int failed = connect(
        fd, is_ipv6 ? (struct sockaddr *)&six : (struct sockaddr *)&four, is_ipv6 ? sizeof six : sizeof four);
    if (!failed) return fd;
    failed = -errno;
    close(fd);
    return failed;
}

// The least work that takes datagrams: gathered for a moment, received many at a time, copied into a ring, drops read.
//   clang -O3 -o udpfloor udpfloor.c && ./udpfloor PORT RECEIVE_BUFFER GATHER_MICROSECONDS     ends with SIGTERM
// GATHER is waited after each wake-up, so that one call brings many: it halves the cost of a datagram.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <poll.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#ifndef SO_MEMINFO
#define SO_MEMINFO 55
#endif

enum { BATCH = 256, SLOT = 2048, RING = 8 << 20 };

int main(int count, char **words) {
    if (count != 4) return 64;
    int fd = socket(AF_INET, SOCK_DGRAM, 0), buffer = atoi(words[2]);
    struct sockaddr_in address = {AF_INET, htons(atoi(words[1])), {htonl(INADDR_LOOPBACK)}, {0}};
    if (setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &buffer, sizeof buffer))
        setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &buffer, sizeof buffer);
    if (bind(fd, (void *)&address, sizeof address)) return 71;
    struct timespec gather = {0, atol(words[3]) * 1000};
    static struct mmsghdr headers[BATCH];
    static struct iovec parts[BATCH];
    char *slots = malloc(BATCH * SLOT), *ring = malloc(RING);
    size_t at = 0;
    for (int i = 0; i < BATCH; i++) {
        parts[i] = (struct iovec){slots + i * SLOT, SLOT};
        headers[i].msg_hdr.msg_iov = &parts[i];
        headers[i].msg_hdr.msg_iovlen = 1;
    }
    struct pollfd ready = {fd, POLLIN, 0};
    while (poll(&ready, 1, -1) > 0) {
        if (gather.tv_nsec) nanosleep(&gather, 0);
        int some;
        do {
            some = recvmmsg(fd, headers, BATCH, MSG_DONTWAIT, 0);
            for (int i = 0; i < some; i++) {
                if (at + headers[i].msg_len > RING) at = 0;
                memcpy(ring + at, parts[i].iov_base, headers[i].msg_len);
                at += headers[i].msg_len;
            }
        } while (some == BATCH);
        uint32_t memory[9];
        socklen_t size = sizeof memory;
        getsockopt(fd, SOL_SOCKET, SO_MEMINFO, memory, &size);
    }
}

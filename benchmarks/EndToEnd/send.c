// Sends numbered UDP datagrams as fast as it can, or at a rate.
//   send PORT COUNT SIZE RATE [whole]     RATE a second; 0: as fast as it can. Prints how many the kernel took, and the seconds.
// With `whole` a call gives the kernel one buffer to cut (UDP_SEGMENT): twice as fast, and what arrives is the same datagrams.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/udp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#ifndef UDP_SEGMENT
#define UDP_SEGMENT 103
#endif

enum { batch = 64, longest = 65000 };

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec + time.tv_nsec / 1e9;
}

int main(int count, char **words) {
    if (count < 5) return 64;
    long total = atol(words[2]), size = atol(words[3]), rate = atol(words[4]);
    if (size < 64 || size > longest) return 64;
    int whole = count > 5, most = whole && size * batch > longest ? longest / size : batch;
    int fd = socket(AF_INET, SOCK_DGRAM, 0);
    struct sockaddr_in to = {AF_INET, htons(atoi(words[1])), {htonl(INADDR_LOOPBACK)}};
    if (connect(fd, (struct sockaddr *)&to, sizeof to)) return 71;
    int segment = (int)size;
    if (whole && setsockopt(fd, IPPROTO_UDP, UDP_SEGMENT, &segment, sizeof segment)) return 71;
    char *texts = malloc((size_t)batch * size);
    static struct mmsghdr headers[batch];
    static struct iovec parts[batch];
    memset(texts, 'x', (size_t)batch * size);
    for (int i = 0; i < batch; i++) {
        parts[i] = (struct iovec){texts + i * size, size};
        headers[i].msg_hdr.msg_iov = &parts[i];
        headers[i].msg_hdr.msg_iovlen = 1;
    }
    long sent = 0, refused = 0;
    double start = now();
    while (sent < total) {
        int some = total - sent < most ? (int)(total - sent) : most;
        for (int i = 0; i < some; i++) {
            char *text = texts + i * size;
            text[snprintf(text, 64, "<13>Nov 21 08:00:00 host app: %010ld ", sent + i)] = 'x';
        }
        int done = 0;
        while (done < some) {
            if (whole) {
                if (send(fd, texts, (size_t)some * size, 0) < 0) refused++;
                else done = some;
                continue;
            }
            int taken = sendmmsg(fd, headers + done, some - done, 0);
            if (taken < 0) { refused++; continue; }
            done += taken;
        }
        sent += some;
        double due = rate ? start + (double)sent / rate - now() : 0;
        if (due > 0) {
            struct timespec pause = {0, (long)(due * 1e9)};
            nanosleep(&pause, 0);
        }
    }
    printf("%ld %.3f %ld\n", sent, now() - start, refused);
}

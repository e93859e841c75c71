// Sends numbered UDP datagrams as fast as it can, or at a rate.
//   send PORT COUNT SIZE RATE     RATE a second; 0: as fast as it can. Prints how many the kernel took, and the seconds.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

enum { batch = 64 };

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec + time.tv_nsec / 1e9;
}

int main(int count, char **words) {
    if (count != 5) return 64;
    long total = atol(words[2]), size = atol(words[3]), rate = atol(words[4]);
    int fd = socket(AF_INET, SOCK_DGRAM, 0);
    struct sockaddr_in to = {AF_INET, htons(atoi(words[1])), {htonl(INADDR_LOOPBACK)}};
    if (connect(fd, (struct sockaddr *)&to, sizeof to)) return 71;
    static char texts[batch][65536];
    static struct mmsghdr headers[batch];
    static struct iovec parts[batch];
    for (int i = 0; i < batch; i++) {
        memset(texts[i], 'x', sizeof texts[i]);
        parts[i] = (struct iovec){texts[i], size};
        headers[i].msg_hdr.msg_iov = &parts[i];
        headers[i].msg_hdr.msg_iovlen = 1;
    }
    long sent = 0, refused = 0;
    double start = now();
    while (sent < total) {
        int some = total - sent < batch ? total - sent : batch;
        for (int i = 0; i < some; i++)
            texts[i][snprintf(texts[i], 64, "<13>Nov 21 08:00:00 host app: %010ld ", sent + i)] = 'x';
        int done = 0;
        while (done < some) {
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

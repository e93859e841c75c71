// Writes numbered lines into a file or a stream, as fast as they are taken, or at a rate.
//   feed file|unix|tcp WHERE COUNT SIZE RATE     SIZE with the line's end; RATE a second; 0: as fast as it can, 64 KiB a write
// At a rate each line is written by itself and begins with @@ and when that was (CLOCK_MONOTONIC, ns), for sink.c to read.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

static long now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1000000000 + time.tv_nsec;
}

static int open_place(const char *kind, const char *where) {
    if (!strcmp(kind, "file")) return open(where, O_WRONLY | O_CREAT | O_APPEND, 0644);
    struct sockaddr_un local = {.sun_family = AF_UNIX};
    struct sockaddr_in port = {.sin_family = AF_INET, .sin_port = htons(atoi(where)), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int is_local = !strcmp(kind, "unix");
    strncpy(local.sun_path, where, sizeof local.sun_path - 1);
    int fd = socket(is_local ? AF_UNIX : AF_INET, SOCK_STREAM, 0);
    if (connect(fd, is_local ? (void *)&local : (void *)&port, is_local ? sizeof local : sizeof port)) return -1;
    return fd;
}

static void write_all(int fd, const char *bytes, size_t count) {
    while (count) {
        ssize_t taken = write(fd, bytes, count);
        if (taken < 0) { perror("write"); exit(74); }
        bytes += taken;
        count -= taken;
    }
}

int main(int words, char **word) {
    if (words != 6) return 64;
    long count = atol(word[3]), size = atol(word[4]), rate = atol(word[5]);
    int fd = open_place(word[1], word[2]);
    if (fd < 0) { perror(word[2]); return 74; }
    static char lines[1 << 20];
    if (size < 32 || size > (1 << 16)) return 64;
    if (rate) {
        memset(lines, 'x', size);
        lines[size - 1] = '\n';
        for (long number = 0, start = now(); number < count; number++) {
            long time, due = start + number * 1000000000 / rate;
            while ((time = now()) < due) nanosleep(&(struct timespec){0, due - time}, 0);
            lines[snprintf(lines, 32, "@@%019ld", time)] = ' ';
            write_all(fd, lines, size);
        }
    } else {
        long some = (1 << 16) / size;
        for (long number = 0; number < count; number += some) {
            if (count - number < some) some = count - number;
            for (long i = 0; i < some; i++) {
                char *line = lines + i * size;
                memset(line, 'x', size);
                line[snprintf(line, 32, "%012ld", number + i)] = ' ';
                line[size - 1] = '\n';
            }
            write_all(fd, lines, some * size);
        }
    }
    return 0;
}

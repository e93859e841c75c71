// The least work that ships a file of lines as KPL aggregates: split, frame, MD5 sums side by side, one SHA-256 a call, write.
//   clang -O3 -I../../Sources/C/MD5/include -o floor floor.c ../../Sources/C/MD5/md5.c -lcrypto && ./floor PORT FILE STREAM [MIB]
// One thread, one connection, CBOR. No checkpoints, limits, retries or placement: no agent can do less with the same libraries.
// Calls are of 1 MiB, what the agent's are, unless MIB says otherwise: 5 MiB a call takes as much or more (0.22 s of CPU for
// 217 MB with 1 MiB, 0.23 with 5, medians of 7), because a body of 1 MiB is still in the cache when it is hashed and sent.
// A line that no aggregate holds is a record of its own, sent from where it lies.
#define _GNU_SOURCE
#include <CMD5.h>
#include <arpa/inet.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

enum { AGGREGATE = 51200, MOST = 5 << 20, RECORDS = MOST / AGGREGATE };

static uint8_t *varint(uint8_t *out, uint64_t value) {
    for (; value > 127; value >>= 7) *out++ = value | 128;
    *out++ = value;
    return out;
}

static uint8_t *text(uint8_t *out, const char *text) {
    size_t size = strlen(text);
    *out++ = 0x60 | (size < 24 ? size : 24);
    if (size >= 24) *out++ = size;
    memcpy(out, text, size);
    return out + size;
}

static void write_all(int fd, struct iovec *v, int n) {
    while (n) {
        ssize_t sent = writev(fd, v, n);
        if (sent < 0) { perror("writev"); exit(1); }
        while (n && (size_t)sent >= v->iov_len) { sent -= v->iov_len; v++; n--; }
        if (n) { v->iov_base = (char *)v->iov_base + sent; v->iov_len -= sent; }
    }
}

static void read_answer(int fd) {
    static char answer[1 << 16];
    size_t have = 0, want = 0;
    do {
        ssize_t n = read(fd, answer + have, sizeof answer - 1 - have);
        if (n <= 0) { perror("read"); exit(1); }
        have += n;
        answer[have] = 0;
        char *end = strstr(answer, "\r\n\r\n"), *length = strcasestr(answer, "content-length:");
        if (end && length) want = end + 4 - answer + atol(length + 15);
    } while (!want || have < want);
    if (strncmp(answer + 9, "200", 3)) { fprintf(stderr, "%s\n", answer); exit(1); }
}

int main(int argc, char **argv) {
    if (argc < 4) return 64;
    size_t call = (size_t)(argc > 4 ? atoi(argv[4]) : 1) << 20;
    if (call < 1 << 20 || call > MOST) return 64;
    int file = open(argv[2], O_RDONLY);
    struct stat status;
    if (file < 0 || fstat(file, &status)) { perror(argv[2]); return 1; }
    const uint8_t *at = mmap(0, status.st_size, PROT_READ, MAP_PRIVATE, file, 0), *end = at + status.st_size;
    int connection = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in address = {AF_INET, htons(atoi(argv[1])), {htonl(INADDR_LOOPBACK)}};
    if (connect(connection, (void *)&address, sizeof address)) { perror("connect"); return 1; }
    static uint8_t data[RECORDS][AGGREGATE + 64], heads[RECORDS][96], prefix[128];
    EVP_MD *sha = EVP_MD_fetch(0, "SHA256", 0);
    EVP_MD_CTX *body = EVP_MD_CTX_new();
    long lines = 0;
    while (at < end) {
        struct iovec v[2 + 2 * RECORDS];
        struct cmd5_message sums[RECORDS];
        int records = 0, pieces = 2, sealed = 0;
        size_t total = 0, left = call;
        while (at < end && records < RECORDS && left >= AGGREGATE) {
            uint8_t *out = data[records];
            const uint8_t *whole = at;
            memcpy(out, "\xF3\x89\x9A\xC2\x0a\x01\x61\x12\x01\x30", 10);
            out += 10;
            while (at < end) {
                const uint8_t *stop = memchr(at, '\n', end - at);
                size_t size = (stop ? stop : end) - at;
                if (out + size + 36 > data[records] + AGGREGATE) break;
                uint8_t length[10];
                size_t digits = varint(length, size) - length;
                *out++ = 0x1a;
                out = varint(out, 5 + digits + size);
                memcpy(out, "\x08\x00\x10\x00\x1a", 5);
                out = varint(out + 5, size);
                memcpy(out, at, size);
                out += size;
                at += size + 1;
                lines++;
            }
            size_t count;
            if (out == data[records] + 10) {
                const uint8_t *stop = memchr(at, '\n', end - at);
                count = (stop ? stop : end) - at;
                if (records && count > left) break;
                at += count + 1;
                lines++;
            } else {
                sums[sealed++] = (struct cmd5_message){data[records] + 4, out - data[records] - 4, out};
                count = out + 16 - data[records];
                whole = data[records];
            }
            left -= count < left ? count : left;
            uint8_t *head = heads[records];
            *head++ = 0xa3;
            head = text(text(text(text(text(head, "PartitionKey"), "a"), "ExplicitHashKey"), "0"), "Data");
            uint32_t big = htonl(count);
            *head++ = 0x5a;
            memcpy(head, &big, 4);
            v[pieces++] = (struct iovec){heads[records], head + 4 - heads[records]};
            v[pieces++] = (struct iovec){(void *)whole, count};
            records++;
        }
        cmd5_sums(sums, sealed, cmd5_best());
        uint8_t *out = prefix;
        *out++ = 0xa2;
        out = text(text(text(out, "StreamName"), argv[3]), "Records");
        *out++ = 0x98;
        *out++ = records;
        v[1] = (struct iovec){prefix, out - prefix};
        EVP_DigestInit_ex2(body, sha, 0);
        for (int i = 1; i < pieces; i++) { EVP_DigestUpdate(body, v[i].iov_base, v[i].iov_len); total += v[i].iov_len; }
        uint8_t hash[32];
        EVP_DigestFinal_ex(body, hash, 0);
        char head[512];
        int size = snprintf(head, sizeof head,
            "POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/x-amz-cbor-1.1\r\n"
            "X-Amz-Target: Kinesis_20131202.PutRecords\r\nX-Hash: %02x%02x\r\nContent-Length: %zu\r\n\r\n", hash[0], hash[1], total);
        v[0] = (struct iovec){head, size};
        write_all(connection, v, pieces);
        read_answer(connection);
    }
    struct rusage use;
    getrusage(RUSAGE_SELF, &use);
    printf("%ld %.6f %ld\n", lines, use.ru_utime.tv_sec + use.ru_stime.tv_sec + (use.ru_utime.tv_usec + use.ru_stime.tv_usec) / 1e6, use.ru_maxrss);
}

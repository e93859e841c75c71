// A Kinesis that keeps nothing: lists its shards, answers PutRecords with the shard of each record, and counts what it was sent.
//   clang -O2 -o sink sink.c -lcrypto && ./sink SHARDS     prints its port; ends with SIGTERM
// GET / answers what it counted since its start, as JSON. Bodies hold CBOR or JSON as Penstock and floor.c write them: names in
// this order, lengths known. Lines that begin with @@ and 19 digits tell when they were written (CLOCK_MONOTONIC, ns): how long
// each took until its call was answered is kept in steps of 10 µs, those of the first three seconds apart: an agent that knows
// nothing of its stream begins with a low rate. One thread, so that it takes as little as it can of a machine
// on which others are measured.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <openssl/evp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

typedef unsigned __int128 hash;
enum { STEP = 10, STEPS = 1000000, UNIT = 25 << 10 };

// Of lines that told when they were written.
struct delays {
    long lines;
    uint32_t took[STEPS + 1];
};

struct connection {
    int fd;
    size_t have, room;
    char *bytes;
};

struct text {
    char *bytes;
    size_t count, room;
};

static int shards;
static hash width;
static long calls, records, data, units;
static double listed, put;
static double first;
static struct delays start, steady;
static struct text list_cbor, list_json;

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec + time.tv_nsec / 1e9;
}

static void add(struct text *to, const void *bytes, size_t count) {
    if (to->count + count > to->room) to->bytes = realloc(to->bytes, to->room = 2 * (to->count + count));
    memcpy(to->bytes + to->count, bytes, count);
    to->count += count;
}

static void say(struct text *to, const char *words) { add(to, words, strlen(words)); }

// A CBOR head of three bytes at most.
static void head(struct text *to, int major, unsigned count) {
    uint8_t bytes[3] = {major << 5 | (count < 24 ? count : 25), count >> 8, count};
    add(to, bytes, count < 24 ? 1 : 3);
}

static void word(struct text *to, const char *words) {
    head(to, 3, strlen(words));
    say(to, words);
}

static const char *decimal(hash value) {
    static char digits[40];
    char *at = digits + 39;
    do *--at = '0' + (int)(value % 10);
    while (value /= 10);
    return at;
}

static void list(void) {
    head(&list_cbor, 5, 1);
    word(&list_cbor, "Shards");
    head(&list_cbor, 4, shards);
    say(&list_json, "{\"Shards\":[");
    for (int i = 0; i < shards; i++) {
        char id[32], first[40], last[40], text[256];
        snprintf(id, sizeof id, "shardId-%012d", i);
        strcpy(first, decimal(i * width));
        strcpy(last, decimal(i == shards - 1 ? ~(hash)0 : (i + 1) * width - 1));
        head(&list_cbor, 5, 3);
        word(&list_cbor, "ShardId"), word(&list_cbor, id);
        word(&list_cbor, "HashKeyRange"), head(&list_cbor, 5, 2);
        word(&list_cbor, "StartingHashKey"), word(&list_cbor, first);
        word(&list_cbor, "EndingHashKey"), word(&list_cbor, last);
        word(&list_cbor, "SequenceNumberRange"), head(&list_cbor, 5, 1);
        word(&list_cbor, "StartingSequenceNumber"), word(&list_cbor, "1");
        snprintf(text, sizeof text, "%s{\"ShardId\":\"%s\",\"HashKeyRange\":{\"StartingHashKey\":\"%s\",\"EndingHashKey\":\"%s\"},"
            "\"SequenceNumberRange\":{\"StartingSequenceNumber\":\"1\"}}", i ? "," : "", id, first, last);
        say(&list_json, text);
    }
    say(&list_json, "]}");
}

static void write_all(int fd, const char *bytes, size_t count) {
    while (count) {
        ssize_t sent = send(fd, bytes, count, MSG_NOSIGNAL);
        if (sent <= 0) return;
        bytes += sent;
        count -= sent;
    }
}

static void answer(int fd, int is_cbor, const struct text *body) {
    static struct text whole;
    char start[160];
    whole.count = 0;
    add(&whole, start, snprintf(start, sizeof start,
        "HTTP/1.1 200 OK\r\nContent-Type: application/%s\r\nContent-Length: %zu\r\n\r\n",
        is_cbor ? "x-amz-cbor-1.1" : "x-amz-json-1.1", body->count));
    add(&whole, body->bytes, body->count);
    write_all(fd, whole.bytes, whole.count);
}

static void bad(const char *what) {
    fprintf(stderr, "sink: cannot read %s\n", what);
    exit(65);
}

// Reads a CBOR head; the major type must be the one that is expected.
static size_t length(const uint8_t **at, int major) {
    uint8_t first = *(*at)++;
    if (first >> 5 != major) bad("a body in CBOR");
    size_t value = first & 31;
    if (value < 24) return value;
    int bytes = 1 << (value - 24);
    for (value = 0; bytes--;) value = value << 8 | *(*at)++;
    return value;
}

static struct text take_text(const uint8_t **at, int major) {
    size_t count = length(at, major);
    struct text text = {.bytes = (char *)*at, .count = count};
    *at += count;
    return text;
}

// The text between a JSON string's quotes, behind so many bytes. Keys hold no escapes here.
static struct text quoted(const uint8_t **at, size_t behind) {
    *at += behind;
    uint8_t *end = (void *)strchr((const char *)*at, '"');
    if (!end) bad("a body in JSON");
    struct text text = {.bytes = (char *)*at, .count = end - *at};
    *at = end + 1;
    return text;
}

static int shard_of(struct text key, struct text explicit) {
    hash value = 0;
    if (explicit.count) {
        for (size_t i = 0; i < explicit.count; i++) value = value * 10 + (explicit.bytes[i] - '0');
    } else {
        uint8_t sum[16];
        EVP_Digest(key.bytes, key.count, sum, 0, EVP_md5(), 0);
        for (int i = 0; i < 16; i++) value = value << 8 | sum[i];
    }
    hash shard = value / width;
    return shard < (hash)shards ? (int)shard : shards - 1;
}

// Counts a record and answers it.
static void take(struct text key, struct text explicit, size_t count, int is_cbor, int is_first, struct text *out) {
    char id[96];
    int shard = shard_of(key, explicit);
    records++;
    size_t size = count + key.count;
    data += size;
    units += (size + UNIT - 1) / UNIT;
    if (is_cbor) {
        snprintf(id, sizeof id, "shardId-%012d", shard);
        head(out, 5, 2);
        word(out, "SequenceNumber"), word(out, "1");
        word(out, "ShardId"), word(out, id);
    } else {
        snprintf(id, sizeof id, "%s{\"SequenceNumber\":\"1\",\"ShardId\":\"shardId-%012d\"}", is_first ? "" : ",", shard);
        say(out, id);
    }
}

static void put_cbor(const uint8_t *at, struct text *out) {
    length(&at, 5);
    for (int member = 0; member < 2; member++) {
        struct text name = take_text(&at, 3);
        if (name.bytes[0] == 'S') { take_text(&at, 3); continue; }
        size_t count = length(&at, 4);
        head(out, 5, 2);
        word(out, "FailedRecordCount"), head(out, 0, 0);
        word(out, "Records"), head(out, 4, count);
        for (size_t i = 0; i < count; i++) {
            struct text key = {}, explicit = {}, bytes = {};
            for (size_t members = length(&at, 5); members--;) {
                name = take_text(&at, 3);
                struct text value = take_text(&at, name.bytes[0] == 'D' ? 2 : 3);
                *(name.bytes[0] == 'D' ? &bytes : name.bytes[0] == 'P' ? &key : &explicit) = value;
            }
            take(key, explicit, bytes.count, 1, i == 0, out);
        }
    }
}

static void put_json(const uint8_t *at, struct text *out) {
    at = (void *)strchr((const char *)at, '[');
    if (!at) bad("a body in JSON");
    say(out, "{\"FailedRecordCount\":0,\"Records\":[");
    int is_first = 1;
    for (at++; *at != ']'; at++) {
        if (*at == ',') at++;
        struct text key = quoted(&at, strlen("{\"PartitionKey\":\"")), explicit = {};
        if (at[2] == 'E') explicit = quoted(&at, strlen(",\"ExplicitHashKey\":\""));
        struct text bytes = quoted(&at, strlen(",\"Data\":\""));
        size_t pads = (bytes.bytes[bytes.count - 1] == '=') + (bytes.bytes[bytes.count - 2] == '=');
        take(key, explicit, bytes.count / 4 * 3 - pads, 0, is_first, out);
        is_first = 0;
    }
    say(out, "]}");
}

static void note_delays(const char *at, const char *end) {
    double answered = now();
    while ((at = memmem(at, end - at, "@@", 2)) && end - at > 21) {
        at += 2;
        // A checksum may look like it.
        if (strspn(at, "0123456789") != 19) continue;
        double written = strtoll(at, 0, 10) / 1e9;
        if (!first) first = written;
        struct delays *of = written < first + 3 ? &start : &steady;
        long steps = (answered - written) * 1e6 / STEP;
        if (steps < 0) continue;
        of->took[steps < STEPS ? steps : STEPS]++;
        of->lines++;
    }
}

static double within(const struct delays *of, double share) {
    long left = of->lines * share;
    for (int step = 0; step < STEPS; step++)
        if ((left -= of->took[step]) < 0) return (step + 1) * STEP / 1e3;
    return STEPS * STEP / 1e3;
}

static void figures(int fd) {
    char words[512];
    struct text body = {.bytes = words};
    body.count = snprintf(words, sizeof words, "{\"calls\":%ld,\"records\":%ld,\"bytes\":%ld,\"units\":%ld,"
        "\"listed\":%.6f,\"put\":%.6f,\"lines\":%ld,\"p50\":%.2f,\"p99\":%.2f,\"p99.9\":%.2f,\"most\":%.2f,"
        "\"start_p50\":%.2f,\"start_p99\":%.2f}\n",
        calls, records, data, units, listed, put, start.lines + steady.lines, within(&steady, 0.5), within(&steady, 0.99),
        within(&steady, 0.999), within(&steady, 0.9999999), within(&start, 0.5), within(&start, 0.99));
    answer(fd, 0, &body);
}

// Answers what has come whole. False when more is to come.
static int answer_one(struct connection *from) {
    from->bytes[from->have] = 0;
    char *end = memmem(from->bytes, from->have, "\r\n\r\n", 4);
    if (!end) return 0;
    *end = 0;
    char *field = strcasestr(from->bytes, "content-length:");
    char *body = end + 4;
    size_t whole = body - from->bytes + (field ? atol(field + 15) : 0);
    int is_cbor = strstr(from->bytes, "cbor") != 0, is_list = strstr(from->bytes, "ListShards") != 0;
    *end = '\r';
    if (from->have < whole) return 0;
    if (!strncmp(from->bytes, "GET", 3)) {
        figures(from->fd);
    } else if (is_list) {
        answer(from->fd, is_cbor, is_cbor ? &list_cbor : &list_json);
        listed = now();
    } else {
        static struct text out;
        out.count = 0;
        (is_cbor ? put_cbor : put_json)((const uint8_t *)body, &out);
        answer(from->fd, is_cbor, &out);
        calls++;
        put = now();
        // Lines that were written to be timed stand alone: the first aggregate begins with one.
        char *stop = from->bytes + whole;
        if (is_cbor && stop - body > 256 && memmem(body, 256, "@@", 2)) note_delays(body, stop);
    }
    from->have -= whole;
    memmove(from->bytes, from->bytes + whole, from->have);
    return from->have > 0;
}

static int receive(struct connection *from) {
    if (from->room - from->have < 64 << 10) from->bytes = realloc(from->bytes, from->room = from->room * 2 + (128 << 10));
    ssize_t count = recv(from->fd, from->bytes + from->have, from->room - from->have - 1, MSG_DONTWAIT);
    if (count <= 0) return 0;
    from->have += count;
    while (answer_one(from)) {}
    return 1;
}

int main(int count, char **words) {
    if (count != 2) return 64;
    shards = atoi(words[1]);
    // 2^128 over the shards, less a little that goes to the last one.
    width = shards == 1 ? ~(hash)0 : ~(hash)0 / shards + 1;
    list();
    int listener = socket(AF_INET, SOCK_STREAM, 0), queue = epoll_create1(0), one = 1;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    if (bind(listener, (void *)&address, size) || listen(listener, 128)) return 71;
    if (getsockname(listener, (void *)&address, &size)) return 71;
    printf("%d\n", ntohs(address.sin_port));
    fflush(stdout);
    epoll_ctl(queue, EPOLL_CTL_ADD, listener, &(struct epoll_event){EPOLLIN, {.ptr = 0}});
    for (;;) {
        struct epoll_event events[64];
        int some = epoll_wait(queue, events, 64, -1);
        for (int i = 0; i < some; i++) {
            struct connection *from = events[i].data.ptr;
            if (!from) {
                from = calloc(1, sizeof *from);
                from->fd = accept4(listener, 0, 0, SOCK_CLOEXEC);
                setsockopt(from->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
                epoll_ctl(queue, EPOLL_CTL_ADD, from->fd, &(struct epoll_event){EPOLLIN, {.ptr = from}});
            } else if (!receive(from)) {
                close(from->fd);
                free(from->bytes);
                free(from);
            }
        }
    }
}

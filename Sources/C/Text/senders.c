#include "CText.h"
#include <stdbool.h>
#include <string.h>

// 64 bytes: as many instructions as the processor needs for them, by what the function around them may use.
typedef unsigned char window __attribute__((ext_vector_type(64)));
typedef signed char result __attribute__((ext_vector_type(64)));
typedef bool bits __attribute__((ext_vector_type(64)));
typedef uint32_t halves __attribute__((ext_vector_type(16)));
typedef uint64_t words __attribute__((ext_vector_type(8)));

// Entries where a sender may stand: among 64 senders there are seldom five that have the same ones.
#define WAYS 4

#define INLINE static inline __attribute__((always_inline))

// A bit for each byte of a comparison's result that is true.
#define BITS(result) ({ bits truths = __builtin_convertvector(result, bits); uint64_t all; memcpy(&all, &truths, 8); all; })

// From 64 - count on: as many ones, and zeros.
static const unsigned char masks[128] __attribute__((aligned(64))) = {
#define ONES8 255, 255, 255, 255, 255, 255, 255, 255
    ONES8, ONES8, ONES8, ONES8, ONES8, ONES8, ONES8, ONES8,
};

// Odd numbers without a pattern.
static const halves keys = {
    0x9e3779b1, 0x85ebca77, 0xc2b2ae3d, 0x27d4eb2f, 0x165667b1, 0xd3a2646d, 0xfd7046c5, 0xb55a4f09,
    0x7fb5d329, 0x728eb637, 0x2c1b3c6d, 0x297a2d39, 0x21f0aaad, 0xd35a2d97, 0x6d2b79f5, 0x1b873593,
};

typedef struct {
    uint64_t first, last;
} ends;

// Without a loop, for which every register would have to be saved.
INLINE ends peer_ends(const unsigned char *peer, size_t count) {
    ends both = {0, 0};
    if (__builtin_expect(count >= 8, 1)) {
        memcpy(&both.first, peer, 8);
        memcpy(&both.last, peer + count - 8, 8);
    } else if (count >= 4) {
        uint32_t first, last;
        memcpy(&first, peer, 4);
        memcpy(&last, peer + count - 4, 4);
        both = (ends){first, last};
    } else if (count > 0) {
        both.first = peer[0] | (uint64_t)peer[count / 2] << 8 | (uint64_t)peer[count - 1] << 16;
    }
    return both;
}

// Whether two names are the same between their ends; without a call for the same reason.
INLINE bool same_middle(const unsigned char *one, const unsigned char *other, size_t count) {
    uint64_t left, right;
    for (size_t at = 8; at + 8 < count; at += 8) {
        memcpy(&left, one + at, 8);
        memcpy(&right, other + at, 8);
        if (left != right) return false;
    }
    return true;
}

INLINE size_t head_count(const unsigned char *at, uint64_t spaces, ctext_sender_kind kind) {
    if (kind == ctext_sender_structured) {
        spaces &= spaces - 1;
        spaces &= spaces - 1;
        spaces &= spaces - 1;
    } else if (spaces && at[__builtin_ctzll(spaces) - 1] != ':') {
        spaces &= spaces - 1;
    }
    return spaces ? (size_t)__builtin_ctzll(spaces) + 1 : 0;
}

// The head's length is told by its last byte, a space, behind which there are zeros.
INLINE uint16_t shape_of(ctext_sender_kind kind, size_t peer_count) { return (uint16_t)(kind << 8 | peer_count); }

// The first of the four entries where a sender may stand.
INLINE size_t place_of(const window *head, ends peer) {
    words sums = (words)((halves)*head + keys);
    words products = (sums & 0xffffffff) * (sums >> 32);
    uint64_t hash = __builtin_reduce_add(products) + peer.first * 0x27d4eb2f + peer.last * 0x165667b1;
    return (size_t)(hash * 0x9e3779b97f4a7c15 >> 57) * WAYS;
}
_Static_assert(ctext_sender_count == WAYS << 7, "the hash's seven highest bits choose the four");

INLINE const ctext_sender *find(
    const ctext_sender *table,
    const unsigned char *at,
    ctext_sender_kind kind,
    const unsigned char *peer,
    size_t peer_count,
    unsigned char *to
) {
    if (peer_count > ctext_sender_longest_peer) return NULL;
    window head, mask, known;
    memcpy(&head, at, 64);
    size_t count = head_count(at, BITS((result)(head == ' ')), kind);
    if (count == 0) return NULL;
    memcpy(&mask, masks + 64 - count, 64);
    head &= mask;
    ends both = peer_ends(peer, peer_count);
    uint16_t shape = shape_of(kind, peer_count);
    const ctext_sender *entry = table + place_of(&head, both);
    for (int way = 0; way < WAYS; way++, entry++) {
        if (entry->shape != shape || entry->peer_first != both.first || entry->peer_last != both.last) continue;
        memcpy(&known, entry->head, 64);
        if (BITS((result)(head != known)) != 0) continue;
        if (peer_count > 16 && !same_middle(entry->peer, peer, peer_count)) continue;
        memcpy(to, entry->text, 128);
        if (entry->text_count > 128) memcpy(to + 128, entry->text + 128, 64);
        return entry;
    }
    return NULL;
}

const ctext_sender *ctext_sender_find_portable(
    const ctext_sender *table,
    const unsigned char *at,
    ctext_sender_kind kind,
    const unsigned char *peer,
    size_t peer_count,
    void *to
) {
    return find(table, at, kind, peer, peer_count, to);
}

#if defined(__x86_64__)

__attribute__((target("avx2"))) static const ctext_sender *find_by_32(
    const ctext_sender *table,
    const unsigned char *at,
    ctext_sender_kind kind,
    const unsigned char *peer,
    size_t peer_count,
    void *to
) {
    return find(table, at, kind, peer, peer_count, to);
}

const ctext_sender *ctext_sender_find(
    const ctext_sender *table,
    const unsigned char *at,
    ctext_sender_kind kind,
    const unsigned char *peer,
    size_t peer_count,
    void *to
) {
    if (__builtin_cpu_supports("avx2")) return find_by_32(table, at, kind, peer, peer_count, to);
    return find(table, at, kind, peer, peer_count, to);
}

#else

const ctext_sender *ctext_sender_find(
    const ctext_sender *table,
    const unsigned char *at,
    ctext_sender_kind kind,
    const unsigned char *peer,
    size_t peer_count,
    void *to
) {
    return find(table, at, kind, peer, peer_count, to);
}

#endif

size_t ctext_sender_head_count(const unsigned char *at, ctext_sender_kind kind, size_t peer_count) {
    if (peer_count > ctext_sender_longest_peer) return 0;
    window head;
    memcpy(&head, at, 64);
    return head_count(at, BITS((result)(head == ' ')), kind);
}

ctext_sender *ctext_sender_replace(
    ctext_sender *table,
    const unsigned char *at,
    ctext_sender_kind kind,
    const unsigned char *peer,
    size_t peer_count,
    unsigned turn
) {
    window head, mask;
    memcpy(&head, at, 64);
    size_t count = head_count(at, BITS((result)(head == ' ')), kind);
    memcpy(&mask, masks + 64 - count, 64);
    head &= mask;
    ends both = peer_ends(peer, peer_count);
    ctext_sender *first = table + place_of(&head, both), *entry = first + turn % WAYS;
    for (int way = WAYS - 1; way >= 0; way--)
        if (first[way].shape == 0) entry = first + way;
    memcpy(entry->head, &head, 64);
    entry->peer_first = both.first;
    entry->peer_last = both.last;
    entry->shape = shape_of(kind, peer_count);
    entry->head_count = (uint8_t)count;
    if (peer_count > 0) memcpy(entry->peer, peer, peer_count);
    return entry;
}

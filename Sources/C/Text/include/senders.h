#pragma once
#include <stddef.h>
#include <stdint.h>

/// What a syslog message says about its sender, as it was written before: an entry of a table of `ctext_sender_count`,
/// aligned to 64 bytes, all zeros at first.
typedef struct {
    /// The message's bytes from its host on, up to the space in front of its text; zeros behind them. Of RFC 5424 up to the
    /// space behind its MSGID.
    unsigned char head[64];
    /// The first and the last eight bytes of the peer's name, all of it if it is shorter.
    uint64_t peer_first, peer_last;
    /// Kind, and the length of the peer's name; zero in an entry that is free.
    uint16_t shape;
    uint8_t head_count;
    /// Bytes of `text` in front of the peer, and all.
    uint8_t field_count, text_count;
    /// The host's place in the head.
    uint8_t host_start, host_count;
    unsigned char peer[40];
    unsigned char text[192];
} ctext_sender;

enum {
    ctext_sender_count = 512,
    /// Bytes of a message that are read from its host on.
    ctext_sender_window = 64,
    ctext_sender_longest_peer = 40,
    ctext_sender_longest_text = 192,
};

/// Which space ends a head: of RFC 3164 the first one behind a colon, or else the second; of RFC 5424 the fourth.
typedef enum { ctext_sender_bsd = 1, ctext_sender_structured = 2 } ctext_sender_kind;

/// The entry of the sender, and writes all `ctext_sender_longest_text` bytes of its text to `to`; null if there is none.
///
/// Reads 64 bytes from `at` on, and the byte in front of them, whatever they are.
const ctext_sender *ctext_sender_find(
    const ctext_sender *table,
    const unsigned char *at,
    ctext_sender_kind kind,
    const unsigned char *peer,
    size_t peer_count,
    void *to
);
/// The same, never by the processor's wide instructions: to compare with.
const ctext_sender *ctext_sender_find_portable(
    const ctext_sender *table,
    const unsigned char *at,
    ctext_sender_kind kind,
    const unsigned char *peer,
    size_t peer_count,
    void *to
);

/// How long the head is that `ctext_sender_find` looks for; 0 if it looks for none.
size_t ctext_sender_head_count(const unsigned char *at, ctext_sender_kind kind, size_t peer_count);

/// An entry for the sender in place of another one: its head and its peer are written, and the text is the caller's to write.
///
/// There is a head. `turn` chooses which one makes room.
ctext_sender *ctext_sender_replace(
    ctext_sender *table,
    const unsigned char *at,
    ctext_sender_kind kind,
    const unsigned char *peer,
    size_t peer_count,
    unsigned turn
);

#include "CCRC32C.h"
#include <string.h>

// A table of one byte's remainders, made when it is first needed; two threads that make it at once write the same.
static uint32_t table[256];
static int is_made;

static void make_table(void) {
    for (uint32_t byte = 0; byte < 256; byte++) {
        uint32_t crc = byte;
        for (int bit = 0; bit < 8; bit++) crc = crc & 1 ? crc >> 1 ^ 0x82f63b78u : crc >> 1;
        __atomic_store_n(&table[byte], crc, __ATOMIC_RELAXED);
    }
    __atomic_store_n(&is_made, 1, __ATOMIC_RELEASE);
}

uint32_t ccrc32c_update_portable(uint32_t crc, const void *bytes, size_t count) {
    if (!__atomic_load_n(&is_made, __ATOMIC_ACQUIRE)) make_table();
    const unsigned char *at = bytes;
    crc = ~crc;
    while (count--) crc = table[(crc ^ *at++) & 255] ^ crc >> 8;
    return ~crc;
}

#if defined(__x86_64__)

__attribute__((target("sse4.2"))) static uint32_t by_instruction(uint32_t crc, const unsigned char *at, size_t count) {
    uint64_t state = ~crc;
    for (; count >= 8; at += 8, count -= 8) {
        uint64_t word;
        memcpy(&word, at, 8);
        state = __builtin_ia32_crc32di(state, word);
    }
    uint32_t rest = (uint32_t)state;
    for (; count; at++, count--) rest = __builtin_ia32_crc32qi(rest, *at);
    return ~rest;
}

static int has_instruction(void) { return __builtin_cpu_supports("sse4.2"); }

#elif defined(__aarch64__)
#include <sys/auxv.h>

__attribute__((target("crc"))) static uint32_t by_instruction(uint32_t crc, const unsigned char *at, size_t count) {
    crc = ~crc;
    for (; count >= 8; at += 8, count -= 8) {
        uint64_t word;
        memcpy(&word, at, 8);
        crc = __builtin_arm_crc32cd(crc, word);
    }
    for (; count; at++, count--) crc = __builtin_arm_crc32cb(crc, *at);
    return ~crc;
}

static int has_instruction(void) { return (getauxval(AT_HWCAP) & 1 << 7) != 0; }

#else

static uint32_t by_instruction(uint32_t crc, const unsigned char *at, size_t count) {
    return ccrc32c_update_portable(crc, at, count);
}
static int has_instruction(void) { return 0; }

#endif

uint32_t ccrc32c_update(uint32_t crc, const void *bytes, size_t count) {
    return has_instruction() ? by_instruction(crc, bytes, count) : ccrc32c_update_portable(crc, bytes, count);
}

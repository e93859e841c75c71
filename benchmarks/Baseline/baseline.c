#include "CBaseline.h"

#if defined(__x86_64__)

/// What __builtin_cpu_supports reads, in libgcc and compiler-rt alike; filled in before main.
extern struct {
    unsigned vendor, type, subtype, features[1];
} __cpu_model __attribute__((visibility("hidden")));

/// Conditional moves, MMX, SSE and SSE2: numbers 0, 1, 3 and 4 of GCC's processor features.
enum { baseline = 1 << 0 | 1 << 1 | 1 << 3 | 1 << 4 };

static unsigned features;

void cbaseline_hide(void) {
    if (!features) features = __cpu_model.features[0];
    __cpu_model.features[0] = features & baseline;
}

void cbaseline_show(void) {
    if (features) __cpu_model.features[0] = features;
}

#else

void cbaseline_hide(void) {}
void cbaseline_show(void) {}

#endif

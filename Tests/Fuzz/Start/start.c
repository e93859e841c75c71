// SwiftPM makes `main` another name for `<target>_main`, which hides libFuzzer's own: so each target gets that function.
#include <stddef.h>
#include <stdint.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerRunDriver(int *argc, char ***argv, int (*test)(const uint8_t *data, size_t size));

#define START(target) \
    int target##_main(int argc, char **argv) { return LLVMFuzzerRunDriver(&argc, &argv, LLVMFuzzerTestOneInput); }

START(fuzz_cbor)
START(fuzz_configuration)
START(fuzz_deaggregator)
START(fuzz_framer)
START(fuzz_json)
START(fuzz_syslog)

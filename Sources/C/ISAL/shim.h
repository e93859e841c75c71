#include <isa-l/igzip_lib.h>

// Bytes that level 2 wants besides its stream; Swift cannot read macros that compute.
enum { cisal_level_2_bytes = ISAL_DEF_LVL2_MEDIUM };

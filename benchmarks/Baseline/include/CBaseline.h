#pragma once

/// From now on this process's C code finds a processor with nothing beyond what every x86-64 one has: no AVX2, no SSE4.2.
///
/// For benchmarks and tests of the paths that such a processor takes. Where there are no others, nothing changes.
void cbaseline_hide(void);
/// Ends it.
void cbaseline_show(void);

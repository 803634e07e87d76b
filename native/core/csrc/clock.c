/* Chooses the recorder's counter and relates it to the monotonic clock. Must never run in the calling thread of an event. */
#include "clock.h"

#include <stdio.h>
#include <string.h>

#if defined(__x86_64__)
#include <cpuid.h>
#endif

int mm_clock_uses_counter = 0;

#if MM_HAS_COUNTER
static int counter_is_invariant(void)
{
#if defined(__x86_64__)
    unsigned int eax, ebx, ecx, edx;
    if (!__get_cpuid(0x80000007, &eax, &ebx, &ecx, &edx) || !(edx & (1u << 8))) {
        return 0;
    }
    /* The kernel watches the TSC of all cores; when it gave up on it, so must we. */
    char source[32] = "";
    FILE *file = fopen("/sys/devices/system/clocksource/clocksource0/current_clocksource", "r");
    if (file) {
        if (!fgets(source, sizeof source, file)) {
            source[0] = 0;
        }
        fclose(file);
    }
    return strncmp(source, "tsc", 3) == 0;
#else
    return 1; /* the architecture defines cntvct_el0 as constant and common to all cores */
#endif
}
#endif

void mm_clock_choose(int force_monotonic)
{
#if MM_HAS_COUNTER
    mm_clock_uses_counter = !force_monotonic && counter_is_invariant();
#else
    (void)force_monotonic;
#endif
}

void mm_clock_pair(uint64_t *ticks, uint64_t *monotonic_ns)
{
    uint64_t narrowest = UINT64_MAX;
    /* A pre-emption between the reads would skew the pair: of a few tries the narrowest is the best. */
    for (int attempt = 0; attempt < 5; attempt++) {
        uint64_t before = mm_ticks();
        uint64_t nanoseconds = mm_monotonic_ns();
        uint64_t after = mm_ticks();
        if (after - before < narrowest) {
            narrowest = after - before;
            *ticks = before + (after - before) / 2;
            *monotonic_ns = nanoseconds;
        }
    }
}

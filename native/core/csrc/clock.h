/* The recorder's clock: one read per event, as cheap as the machine allows.
 *
 * `mm_ticks` gives raw counter ticks; the native thread turns them into nanoseconds of the monotonic clock by
 * interpolating between pairs taken with `mm_clock_pair`, so that no frequency has to be guessed beforehand.
 * Must never make a system call where the counter is usable.
 */
#ifndef MM_CLOCK_H
#define MM_CLOCK_H

#include <stdint.h>
#include <time.h>

#if defined(__x86_64__) && !defined(MM_FORCE_MONOTONIC)
#include <x86intrin.h>
#define MM_HAS_COUNTER 1
#define MM_READ_COUNTER() __rdtsc()
#elif defined(__aarch64__) && !defined(MM_FORCE_MONOTONIC)
#define MM_HAS_COUNTER 1
static inline uint64_t mm_read_cntvct(void)
{
    uint64_t value;
    __asm__ volatile("mrs %0, cntvct_el0" : "=r"(value));
    return value;
}
#define MM_READ_COUNTER() mm_read_cntvct()
#else
#define MM_HAS_COUNTER 0
#endif

extern int mm_clock_uses_counter __attribute__((visibility("hidden")));

static inline uint64_t mm_monotonic_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* Whether reading the clock is one instruction, not a call. */
static inline int mm_clock_is_short(void)
{
#if MM_HAS_COUNTER
    return mm_clock_uses_counter;
#else
    return 0;
#endif
}

static inline uint64_t mm_ticks(void)
{
#if MM_HAS_COUNTER
    if (__builtin_expect(mm_clock_uses_counter, 1)) {
        return MM_READ_COUNTER();
    }
#endif
    return mm_monotonic_ns();
}

/* Stores the counter's ticks. Only where mm_clock_is_short. */
static inline void mm_store_counter(uint64_t *into)
{
#if defined(__x86_64__) && MM_HAS_COUNTER
    /* The processor gives two halves, which nobody here needs as one. */
    typedef uint32_t __attribute__((may_alias)) half;
    uint32_t low, high;
    __asm__ volatile("rdtsc" : "=a"(low), "=d"(high));
    ((half *)into)[0] = low;
    ((half *)into)[1] = high;
#else
    *into = mm_ticks();
#endif
}

/* Chooses the counter when it is invariant (or the monotonic clock when `force_monotonic`). Called once, before the first event. */
void mm_clock_choose(int force_monotonic);

/* One instant on both clocks: counter ticks and monotonic nanoseconds. */
void mm_clock_pair(uint64_t *ticks, uint64_t *monotonic_ns);

#endif

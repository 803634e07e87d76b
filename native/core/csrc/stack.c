/* See stack.h. */
#define _GNU_SOURCE
#include "stack.h"

#if PY_VERSION_HEX < 0x030C0000

#include <pthread.h>
#include <sys/mman.h>
#include <ucontext.h>

#define MM_STACK_BYTES ((size_t)64 << 20) /* of addresses; memory is taken as it is used */
#define MM_STACK_MARGIN ((size_t)512 << 10)
#define MM_GUARD_BYTES ((size_t)64 << 10)

__thread uintptr_t mm_stack_end __attribute__((tls_model("initial-exec"))) = UINTPTR_MAX;

int mm_stack_find_end(void)
{
    if (mm_stack_end == UINTPTR_MAX) {
        pthread_attr_t attributes;
        void *lowest = NULL;
        size_t size = 0;
        mm_stack_end = 0; /* unknown: never short */
        if (pthread_getattr_np(pthread_self(), &attributes) == 0) {
            if (pthread_attr_getstack(&attributes, &lowest, &size) == 0) {
                size_t margin = size / 4 < MM_STACK_MARGIN ? size / 4 : MM_STACK_MARGIN;
                mm_stack_end = (uintptr_t)lowest + margin;
            }
            pthread_attr_destroy(&attributes);
        }
    }
    return (uintptr_t)__builtin_frame_address(0) < mm_stack_end;
}

typedef struct {
    void (*function)(void *);
    void *argument;
} errand;

static void run(unsigned high, unsigned low)
{
    errand *of = (errand *)(((uintptr_t)high << 32) | low);
    of->function(of->argument);
}

int mm_call_on_new_stack(void (*function)(void *), void *argument)
{
    void *memory =
        mmap(NULL, MM_STACK_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_STACK, -1, 0);
    if (memory == MAP_FAILED) {
        return 0;
    }
    mprotect(memory, MM_GUARD_BYTES, PROT_NONE);
    ucontext_t here, there;
    errand of = {function, argument};
    uintptr_t end = mm_stack_end;
    getcontext(&there);
    there.uc_stack.ss_sp = memory;
    there.uc_stack.ss_size = MM_STACK_BYTES;
    there.uc_link = &here;
    makecontext(&there, (void (*)(void))run, 2, (unsigned)((uintptr_t)&of >> 32), (unsigned)(uintptr_t)&of);
    mm_stack_end = (uintptr_t)memory + MM_GUARD_BYTES + MM_STACK_MARGIN;
    swapcontext(&here, &there);
    mm_stack_end = end;
    munmap(memory, MM_STACK_BYTES);
    return 1;
}

#endif

/* Room for deep recursion through C on 3.11, which does not watch the C stack itself.
 *
 * Python-to-Python calls need no C stack there until a wrapper or an evaluation function stands in between. When little of
 * the thread's stack is left, the call goes on on a stack of its own, so that a program that recursed as deep before does
 * so still.
 */
#ifndef MM_STACK_H
#define MM_STACK_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#if PY_VERSION_HEX < 0x030C0000

#include <stdint.h>

/* Below this address little is left; the highest one until it was found out. */
extern __thread uintptr_t mm_stack_end __attribute__((tls_model("initial-exec")));
int mm_stack_find_end(void);

static inline int mm_stack_is_short(void)
{
    return __builtin_expect((uintptr_t)__builtin_frame_address(0) < mm_stack_end, 0) && mm_stack_find_end();
}

/* 0 when there is no memory for it, and then nothing was called. */
int mm_call_on_new_stack(void (*function)(void *), void *argument);

#endif
#endif

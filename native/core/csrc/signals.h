/* Signals that our own doing would bring to the program. */
#ifndef MM_SIGNALS_H
#define MM_SIGNALS_H

#include <signal.h>

/* A file that may not grow further (RLIMIT_FSIZE) is told by EFBIG, and by SIGXFSZ, which ends a program that knows nothing
 * of it. Between these two calls the thread gets no such signal. errno may change. */
typedef struct {
    sigset_t before;
    int is_on;
} mm_hushed;

void mm_block_signals(void);
void mm_hush(mm_hushed *hushed);
void mm_unhush(const mm_hushed *hushed);

#endif

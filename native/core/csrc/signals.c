/* Keeps signals away: from the recorder's own threads, so that they interrupt the program's waits as if we were not there;
 * and from the program where it is us who provoke them. */
#include "signals.h"

#include <pthread.h>
#include <string.h>
#include <sys/resource.h>

void mm_block_signals(void)
{
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, NULL);
}

void mm_hush(mm_hushed *hushed)
{
    struct rlimit limit;
    memset(hushed, 0, sizeof *hushed);
    if (getrlimit(RLIMIT_FSIZE, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY) {
        return; /* nobody sends it */
    }
    sigset_t one, pending;
    sigemptyset(&one);
    sigaddset(&one, SIGXFSZ);
    if (sigpending(&pending) != 0 || sigismember(&pending, SIGXFSZ)) {
        return; /* blocked already, and not ours */
    }
    hushed->is_on = pthread_sigmask(SIG_BLOCK, &one, &hushed->before) == 0;
}

void mm_unhush(const mm_hushed *hushed)
{
    if (!hushed->is_on) {
        return;
    }
    sigset_t one, pending;
    sigemptyset(&one);
    sigaddset(&one, SIGXFSZ);
    int number;
    if (sigpending(&pending) == 0 && sigismember(&pending, SIGXFSZ)) {
        sigwait(&one, &number);
    }
    pthread_sigmask(SIG_SETMASK, &hushed->before, NULL);
}

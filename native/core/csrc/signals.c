/* Keeps signals away from the recorder's own threads, so that they interrupt the program's waits as if we were not there. */
#include <pthread.h>
#include <signal.h>

void mm_block_signals(void)
{
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, NULL);
}

/* What is done when a signal is about to end the process: the native thread sends what was recorded (and, for a crash, a
 * report with the Python tracebacks), then the signal has the effect that it would have had without us.
 *
 * Everything here may run in a signal handler, in any state of the program: no lock, no memory, no Python object, no
 * waiting beyond MM_LAST_WORDS_MS.
 */
#include "recorder.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define MM_LAST_WORDS_MS 5000
#define MM_REPORT_BYTES (32u << 10)
#define MM_SIGNAL_STACK_BYTES (128u << 10)

static const struct {
    int number;
    const char *name;
} fatal_signals[] = {
    {SIGSEGV, "SIGSEGV, segmentation fault"}, {SIGBUS, "SIGBUS, bus error"},       {SIGFPE, "SIGFPE, arithmetic error"},
    {SIGILL, "SIGILL, illegal instruction"},  {SIGABRT, "SIGABRT, abort() called"},
};
#define FATAL_SIGNALS (sizeof fatal_signals / sizeof *fatal_signals)

static struct sigaction previous[FATAL_SIGNALS];
static int catches_fatal;

/* The process whose native thread listens; a forked child has none until it records itself. */
static pid_t listening;
static pid_t dying_thread;
static int wanted; /* the signal that ends the process */
static int said;
static char report[MM_REPORT_BYTES];
static size_t report_size;

/* ---- the native thread's side ----------------------------------------------------------------------------------------- */

void mm_last_words_listen(void)
{
    dying_thread = 0;
    wanted = said = 0;
    __atomic_store_n(&listening, getpid(), __ATOMIC_RELEASE);
}

void mm_last_words_deaf(void)
{
    __atomic_store_n(&listening, 0, __ATOMIC_RELEASE);
}

/* The signal that ends the process, 0: none. `text` is empty unless it is a crash. */
int mm_last_words_wanted(const char **text, size_t *size)
{
    int signal = __atomic_load_n(&wanted, __ATOMIC_ACQUIRE);
    *text = report;
    *size = signal ? report_size : 0;
    return signal;
}

void mm_last_words_said(void)
{
    __atomic_store_n(&said, 1, __ATOMIC_RELEASE);
}

/* ---- the dying thread's side ------------------------------------------------------------------------------------------ */

static void nap(void)
{
    struct timespec millisecond = {.tv_sec = 0, .tv_nsec = 1000000};
    nanosleep(&millisecond, NULL);
}

static void have_it_sent(int signal)
{
    if (__atomic_load_n(&listening, __ATOMIC_ACQUIRE) != getpid()) {
        return;
    }
    __atomic_store_n(&wanted, signal, __ATOMIC_RELEASE);
    for (int waited = 0; waited < MM_LAST_WORDS_MS; waited++) {
        if (__atomic_load_n(&said, __ATOMIC_ACQUIRE) ||
            __atomic_load_n(&listening, __ATOMIC_ACQUIRE) != getpid()) { /* it had ended before it could hear us */
            return;
        }
        nap();
    }
}

/* Whether this thread is the first that dies. Another one waits for the first to end the process. */
static int is_first_to_die(void)
{
    pid_t me = (pid_t)syscall(SYS_gettid);
    pid_t nobody = 0;
    if (__atomic_compare_exchange_n(&dying_thread, &nobody, me, 0, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE)) {
        return 1;
    }
    if (nobody != me) {
        for (int waited = 0; waited < MM_LAST_WORDS_MS + 1000; waited++) {
            nap();
        }
    }
    return 0; /* a fault in the middle of reporting one */
}

static void write_report(int fd, int signal, const siginfo_t *info)
{
    mm_write_text(fd, "killed by signal ");
    mm_write_number(fd, (uintptr_t)signal, 10);
    for (size_t index = 0; index < FATAL_SIGNALS; index++) {
        if (fatal_signals[index].number == signal) {
            mm_write_text(fd, " (");
            mm_write_text(fd, fatal_signals[index].name);
            mm_write_text(fd, ")");
        }
    }
    if (info->si_code > 0) {
        mm_write_text(fd, " at address 0x");
        mm_write_number(fd, (uintptr_t)info->si_addr, 16);
    }
    else {
        mm_write_text(fd, " sent by process ");
        mm_write_number(fd, (uintptr_t)info->si_pid, 10);
    }
    mm_write_text(fd, "\n");
    mm_write_tracebacks(fd);
}

static void report_crash(int signal, const siginfo_t *info)
{
    int fd = (int)syscall(SYS_memfd_create, "micromegas-crash", (unsigned)MFD_CLOEXEC);
    if (fd < 0) {
        return;
    }
    write_report(fd, signal, info);
    ssize_t size = pread(fd, report, sizeof report, 0);
    close(fd);
    report_size = size > 0 ? (size_t)size : 0;
}

static void on_fatal_signal(int signal, siginfo_t *info, void *context)
{
    (void)context;
    int saved_errno = errno;
    if (is_first_to_die()) {
        report_crash(signal, info);
        have_it_sent(signal);
    }
    for (size_t index = 0; index < FATAL_SIGNALS; index++) {
        if (fatal_signals[index].number == signal) {
            sigaction(signal, &previous[index], NULL);
        }
    }
    errno = saved_errno;
    /* A fault happens again when we return, with all that a core dump tells. What was sent has to be sent again. */
    if (info->si_code <= 0) {
        raise(signal);
    }
}

/* Ends the process by this signal's own effect. Does not return. */
void mm_die_by(int signal)
{
    if (is_first_to_die()) {
        have_it_sent(signal);
    }
    struct sigaction plain = {.sa_handler = SIG_DFL};
    sigaction(signal, &plain, NULL);
    sigset_t alone;
    sigemptyset(&alone);
    sigaddset(&alone, signal);
    raise(signal);
    pthread_sigmask(SIG_UNBLOCK, &alone, NULL);
    _exit(128 + signal); /* only for a signal that is harmless by itself */
}

/* ---- taking the signals over ------------------------------------------------------------------------------------------ */

/* So that a handler can run when the stack has overflowed. Of the calling thread; one that is there stays. */
static void need_signal_stack(void)
{
    stack_t current;
    if (sigaltstack(NULL, &current) == 0 && (current.ss_flags & SS_DISABLE)) {
        void *memory = mmap(NULL, MM_SIGNAL_STACK_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (memory != MAP_FAILED) {
            stack_t ours = {.ss_sp = memory, .ss_size = MM_SIGNAL_STACK_BYTES};
            sigaltstack(&ours, NULL);
        }
    }
}

void mm_catch_fatal_signals(void)
{
    need_signal_stack();
    if (catches_fatal) {
        return;
    }
    catches_fatal = 1;
    struct sigaction ours = {.sa_sigaction = on_fatal_signal, .sa_flags = SA_SIGINFO | SA_ONSTACK};
    sigemptyset(&ours.sa_mask);
    for (size_t index = 0; index < FATAL_SIGNALS; index++) {
        sigaction(fatal_signals[index].number, &ours, &previous[index]);
    }
}

/* Gives the signals back where nobody has taken them after us. */
void mm_leave_fatal_signals(void)
{
    for (size_t index = 0; catches_fatal && index < FATAL_SIGNALS; index++) {
        struct sigaction current;
        int signal = fatal_signals[index].number;
        if (sigaction(signal, NULL, &current) == 0 && (current.sa_flags & SA_SIGINFO) &&
            current.sa_sigaction == on_fatal_signal) {
            sigaction(signal, &previous[index], NULL);
        }
        else {
            return; /* who came after us will call us: then `previous` is still needed */
        }
    }
    catches_fatal = 0;
}

/* From now on the signal, which has its default effect, has it after the rest was sent. `replace_handler`: also if it has a
 * handler. Tells whether it was taken. */
int mm_catch_termination(int signal, int replace_handler)
{
    struct sigaction current;
    if (sigaction(signal, NULL, &current) != 0 || (!replace_handler && current.sa_handler != SIG_DFL)) {
        return 0;
    }
    struct sigaction ours = {.sa_handler = mm_die_by, .sa_flags = SA_ONSTACK | SA_RESTART};
    sigemptyset(&ours.sa_mask);
    return sigaction(signal, &ours, NULL) == 0;
}

/* The standard error stream without waiting for whoever reads it. Only the collector calls this. */
#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <stddef.h>
#include <unistd.h>

int mm_stderr_is_terminal(void)
{
    return isatty(STDERR_FILENO);
}

/* A pipe that is ready takes PIPE_BUF bytes without blocking. 0: not all was taken. */
int mm_write_stderr(const char *text, size_t size)
{
    while (size > 0) {
        struct pollfd ready = {.fd = STDERR_FILENO, .events = POLLOUT};
        int found = poll(&ready, 1, 0);
        if (found < 0 && errno == EINTR) {
            continue;
        }
        if (found <= 0 || !(ready.revents & POLLOUT)) {
            return 0;
        }
        ssize_t written = write(STDERR_FILENO, text, size < PIPE_BUF ? size : PIPE_BUF);
        if (written < 0 && errno == EINTR) {
            continue;
        }
        if (written <= 0) {
            return 0;
        }
        text += written;
        size -= (size_t)written;
    }
    return 1;
}

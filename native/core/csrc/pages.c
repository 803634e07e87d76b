/* See pages.h. Without Linux's calls there is no folder, and all memory is private. */
#define _GNU_SOURCE
#include "pages.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "recorder.h"
#include "signals.h"

#define REGION_STEP (64u << 10)
/* Whole steps: what lies behind the region is not ours to map the file over. */
#define REGION_BYTES ((MM_CONTROL_BYTES + MM_MAX_SUMS * sizeof(mm_sum) + REGION_STEP - 1) / REGION_STEP * REGION_STEP)

int mm_pages_folder = -1;

static uint64_t next_number = 1;
static uint8_t *region;        /* control page and sums; the address stays, what is behind it changes */
static size_t region_in_file;  /* bytes of it that are in the file of the current folder */
static mm_control spare;       /* in place of the region when there was no memory for it: counts, but no sums */
static int held[MM_HELDS] = {-1, -1, -1, -1};

void mm_hold(enum mm_held place, int descriptor)
{
    __atomic_store_n(&held[place], descriptor, __ATOMIC_RELEASE);
}

void mm_let_go(enum mm_held place, int descriptor)
{
    int expected = descriptor; /* a later session may have another there */
    __atomic_compare_exchange_n(&held[place], &expected, -1, 0, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE);
}

void mm_note_clock(uint64_t ticks, uint64_t nanoseconds)
{
    mm_control *control = mm_the_control();
    uint64_t turn = control->clock_turns + 1;
    control->clock[turn & 1][0] = ticks;
    control->clock[turn & 1][1] = nanoseconds;
    __atomic_store_n(&control->clock_turns, turn, __ATOMIC_RELEASE);
}

mm_control *mm_the_control(void)
{
    if (!region) {
        void *memory = mmap(NULL, REGION_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (memory == MAP_FAILED) {
            return &spare;
        }
        ((mm_control *)memory)->magic = MM_CONTROL_MAGIC;
        region = memory;
    }
    return (mm_control *)region;
}

#if defined(__linux__)
static size_t region_used(void)
{
    return MM_CONTROL_BYTES + mm_the_control()->sums * sizeof(mm_sum);
}

static void file_name(char *name, size_t size, uint64_t number)
{
    snprintf(name, size, "buffer-%llu", (unsigned long long)number);
}

/* Makes sure of the room of a file's first bytes: 0, or -1 with errno. Not posix_fallocate: where the file system can't
 * allocate, that one would only pretend. */
static int allocate(int file, size_t bytes)
{
    mm_hushed hushed;
    mm_hush(&hushed);
    int reason = fallocate(file, 0, 0, (off_t)bytes) == 0 ? 0 : errno;
    mm_unhush(&hushed);
    errno = reason;
    return reason ? -1 : 0;
}

static int make_file(const char *name, size_t bytes)
{
    int file = openat(mm_pages_folder, name, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (file < 0) {
        return -1;
    }
    if (allocate(file, bytes) != 0) {
        int reason = errno;
        close(file);
        unlinkat(mm_pages_folder, name, 0);
        errno = reason;
        return -1;
    }
    return file;
}

void *mm_pages_map(size_t bytes, uint64_t *number)
{
    if (mm_pages_folder < 0) {
        return NULL;
    }
    *number = __atomic_fetch_add(&next_number, 1, __ATOMIC_RELAXED);
    char name[32];
    file_name(name, sizeof name, *number);
    int file = make_file(name, bytes);
    if (file < 0) {
        return NULL;
    }
    void *address = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, file, 0);
    close(file);
    if (address == MAP_FAILED) {
        unlinkat(mm_pages_folder, name, 0);
        return NULL;
    }
    if (madvise(address, bytes, MADV_DONTFORK) != 0) {
        mm_pages_unmap(address, bytes, *number); /* a child could write to it */
        return NULL;
    }
    return address;
}

void mm_pages_unmap(void *address, size_t bytes, uint64_t number)
{
    munmap(address, bytes);
    if (mm_pages_folder >= 0) {
        char name[32];
        file_name(name, sizeof name, number);
        unlinkat(mm_pages_folder, name, 0); /* numbers are not used again, so another folder has no such file */
    }
}

/* Puts the file behind the next part of the region. */
static int extend_region(int file, size_t to)
{
    if (allocate(file, to) != 0) {
        return -1;
    }
    size_t length = to - region_in_file;
    if (mmap(region + region_in_file, length, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED | MAP_POPULATE, file,
             (off_t)region_in_file) == MAP_FAILED) {
        return -1;
    }
    region_in_file = to;
    return 0;
}

int mm_pages_open(int folder)
{
    if (mm_the_control() == &spare) {
        errno = ENOMEM;
        return -1;
    }
    size_t used = region_used();
    size_t size = (used + REGION_STEP - 1) / REGION_STEP * REGION_STEP;
    mm_pages_folder = folder;
    int file = make_file("control", size);
    if (file >= 0) {
        region_in_file = 0;
        /* Callers add to sums with the GIL, which the caller of this has: nothing is added between copy and mapping. */
        if (pwrite(file, region, used, 0) == (ssize_t)used && extend_region(file, size) == 0) {
            close(file);
            return 0;
        }
        int reason = errno;
        close(file);
        errno = reason;
    }
    mm_pages_folder = -1;
    return -1;
}

void mm_pages_close(int folder)
{
    /* A later session may have its folder already. */
    int expected = folder;
    if (__atomic_compare_exchange_n(&mm_pages_folder, &expected, -1, 0, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE)) {
        __atomic_store_n(&region_in_file, REGION_BYTES, __ATOMIC_RELEASE); /* the file is gone: nothing to extend */
    }
}

void mm_pages_forget(void)
{
    mm_journal_end(held[MM_HELD_JOURNAL]);
    for (int place = 0; place < MM_HELDS; place++) {
        if (held[place] >= 0) {
            close(held[place]);
            held[place] = -1;
        }
    }
    mm_pages_folder = -1;
    if (!region_in_file || !region) {
        return;
    }
    size_t bytes = (region_used() + 4095) & ~(size_t)4095;
    void *copy = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (copy == MAP_FAILED) {
        _exit(70); /* the alternative is to count into the parent's sums */
    }
    memcpy(copy, region, bytes);
    mmap(region, REGION_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    mremap(copy, bytes, bytes, MREMAP_MAYMOVE | MREMAP_FIXED, region);
    region_in_file = 0;
}
#else
void *mm_pages_map(size_t bytes, uint64_t *number)
{
    (void)bytes;
    (void)number;
    return NULL;
}

void mm_pages_unmap(void *address, size_t bytes, uint64_t number)
{
    (void)address;
    (void)bytes;
    (void)number;
}

int mm_pages_open(int folder)
{
    (void)folder;
    errno = ENOSYS;
    return -1;
}

void mm_pages_close(int folder)
{
    (void)folder;
}

void mm_pages_forget(void)
{
    mm_journal_end(held[MM_HELD_JOURNAL]);
    for (int place = 0; place < MM_HELDS; place++) {
        if (held[place] >= 0) {
            close(held[place]);
            held[place] = -1;
        }
    }
}
#endif

mm_sum *mm_new_sum(void)
{
    mm_control *control = mm_the_control();
    if (control == &spare || control->sums >= MM_MAX_SUMS) {
        return NULL;
    }
    size_t end = MM_CONTROL_BYTES + (control->sums + 1) * sizeof(mm_sum);
#if defined(__linux__)
    if (mm_pages_folder >= 0 && end > region_in_file) {
        int file = openat(mm_pages_folder, "control", O_RDWR | O_NOFOLLOW | O_CLOEXEC);
        if (file >= 0) {
            extend_region(file, region_in_file + REGION_STEP); /* else this sum is in private memory, and as good */
            close(file);
        }
    }
#endif
    mm_sum *sum = (mm_sum *)(region + end) - 1;
    control->sums++;
    return sum;
}

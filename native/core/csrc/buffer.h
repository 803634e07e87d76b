/* Per-thread buffers between the calling threads and the native thread.
 *
 * Each thread fills its own chain of blocks; the native thread follows behind and reads what is committed. The chain is
 * single producer, single consumer, so a full block changes hands by one pointer store: no lock, no system call, no wake-up.
 * Producers hold the GIL (which serialises everything here that is shared between producers); the consumer never does.
 */
#ifndef MM_BUFFER_H
#define MM_BUFFER_H

#include <stddef.h>
#include <stdint.h>

#include "clock.h"
#include "record.h"

/* Nothing outside of this module: no detour by its table of symbols. */
#pragma GCC visibility push(hidden)

#define MM_BLOCK_BYTES (256u << 10)
/* A thread begins with a small block: most threads of a program record little, and there may be thousands. */
#define MM_SMALL_BLOCK_BYTES (16u << 10)
#define MM_NAME_BYTES 256

struct mm_thread;

/* The head of a block: the first line is the callers', the rest is there for whoever finds the block in a file after the
 * process has died (src/recorder/spool/pages.rs reads it). */
typedef struct mm_block {
    uint8_t *cursor; /* end of the committed records; stored last, with release order */
    uint8_t *limit;  /* producer only: `room`, or before `cursor` where the clock takes a call: no event is written at once */
    uint8_t *end;    /* end of the memory */
    uint8_t *read;   /* consumer only */
    struct mm_block *next; /* stored by the producer once this block gets no more records */
    struct mm_thread *thread;
    size_t bytes; /* of the whole allocation */
    struct mm_extent *extent;
    uint64_t serial;    /* of the thread; 0 while the block is free. Stored last */
    uint64_t sequence;  /* in the thread's chain */
    uint64_t address;   /* of this head: `cursor` and `committed` count from there */
    uint64_t committed; /* consumer: what lies before it was handed on without being kept (the spool had no room) */
    uint64_t native_id;
    uint64_t layout; /* of records: mm_record_layout */
    uint8_t *room;   /* producer only: as far as events need no step of a change of blocks; before `cursor` when recording is off */
    uint64_t name_size;
    char name[MM_NAME_BYTES];
} mm_block;

_Static_assert(sizeof(mm_block) == 384, "src/recorder/spool/pages.rs reads this layout");

#define MM_BLOCK_DATA(block) ((uint8_t *)((block) + 1))

/* One pointer of thread-local storage, initial-exec: glibc keeps little static room for loaded modules. Never NULL. */
extern __thread mm_block *mm_current __attribute__((tls_model("initial-exec")));

enum mm_recording { MM_OFF = 0, MM_ON = 1, MM_FORKED = 2 };
extern int mm_recording __attribute__((visibility("hidden")));

/* Makes room for `size` bytes and returns the block, or NULL when the event is not to be recorded. Needs the GIL. */
mm_block *mm_make_room(size_t size, enum mm_kind kind);

/* Whether an event of `size` bytes can be written at once, its time read from the counter. What can't is for a function of
 * its own, not inlined and called last: so the hot path saves no register, keeps no stack frame and calls nothing.
 * Sizes up to half of what an address can be. */
static inline int mm_is_ready(const mm_block *block, size_t size)
{
    return __builtin_expect((uintptr_t)block->cursor + size <= (uintptr_t)block->limit, 1);
}

/* The first step of a change of blocks (see buffer.c): so many bytes before the end, the instructions of the others are asked
 * for. Here, where the instructions of the caller are near; mm_make_room itself has not run for a long time. */
#define MM_AHEAD_CODE (6u << 10)
#define MM_AHEAD_DATA (4u << 10)
#define MM_LINE 64
/* Of mm_make_room, about. */
#define MM_CODE_BYTES 1024

static inline void mm_set_room(mm_block *block, uint8_t *room)
{
    block->room = room;
    block->limit = mm_clock_is_short() ? room : MM_BLOCK_DATA(block);
}

static inline mm_block *mm_reserve(size_t size, enum mm_kind kind)
{
    mm_block *block = mm_current;
    if (__builtin_expect((uintptr_t)block->cursor + size <= (uintptr_t)block->room, 1)) {
        return block;
    }
    if (block->room == block->end - MM_AHEAD_CODE && (size_t)(block->end - block->cursor) >= size && mm_recording == MM_ON) {
        for (size_t line = 0; line < MM_CODE_BYTES; line += MM_LINE) {
            __builtin_prefetch((const char *)(uintptr_t)mm_make_room + line);
        }
        mm_set_room(block, block->end - MM_AHEAD_DATA);
        return block;
    }
    return mm_make_room(size, kind);
}

/* So far ahead of what is written, a line of the block is asked for to be written to. Blocks come back from the native
 * thread's processor, so each line would be waited for, at the latest by the store after it, and the processor does not
 * guess across pages. Any distance from 512 bytes to 1.5 KiB does. */
#define MM_FETCH_AHEAD 1024

static inline void mm_fetch_to_write(const uint8_t *line)
{
#if defined(__x86_64__)
    /* The compiler's own would ask for it to be read, unless the program were for newer processors only. Older ones do
     * nothing here. */
    __asm__ volatile("prefetchw %0" : : "m"(*line));
#else
    __builtin_prefetch(line, 1);
#endif
}

/* Ends an event that lies between the block's cursor and `end`. */
static inline void mm_commit_until(mm_block *block, uint8_t *end)
{
    mm_fetch_to_write(end + MM_FETCH_AHEAD);
    __atomic_store_n(&block->cursor, end, __ATOMIC_RELEASE);
}

static inline void mm_commit(mm_block *block, size_t size)
{
    mm_commit_until(block, block->cursor + size);
}

/* The second word of a record. */
static inline uint64_t mm_tagged(const void *descriptor, enum mm_kind kind)
{
    return (uint64_t)(uintptr_t)descriptor | (uint64_t)kind;
}

static inline void mm_write_tagged_head(mm_block *block, uint64_t tagged_descriptor)
{
    mm_record *record = (mm_record *)block->cursor;
    record->ticks = mm_ticks();
    record->tagged_descriptor = tagged_descriptor;
}

static inline void mm_write_head(mm_block *block, const void *descriptor, enum mm_kind kind)
{
    mm_write_tagged_head(block, mm_tagged(descriptor, kind));
}

/* The same where mm_is_ready said so. */
static inline void mm_write_head_at_once(mm_record *record, uint64_t tagged_descriptor)
{
    mm_store_counter(&record->ticks);
    record->tagged_descriptor = tagged_descriptor;
}

/* An event that is only a time and a descriptor. 0: not at once. */
static inline int mm_emit_at_once(const void *descriptor, enum mm_kind kind)
{
    mm_block *block = mm_current;
    if (!mm_is_ready(block, sizeof(mm_record))) {
        return 0;
    }
    mm_record *record = (mm_record *)block->cursor;
    mm_write_head_at_once(record, mm_tagged(descriptor, kind));
    mm_commit_until(block, (uint8_t *)(record + 1));
    return 1;
}

void mm_emit_slowly(uint64_t tagged_descriptor);

static inline void mm_emit(const void *descriptor, enum mm_kind kind)
{
    if (!mm_emit_at_once(descriptor, kind)) {
        mm_emit_slowly(mm_tagged(descriptor, kind));
    }
}

#pragma GCC visibility pop

#endif

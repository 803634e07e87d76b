/* Memory that outlives the process: files mapped shared, in a folder of the session (src/recorder/spool reads them).
 *
 * What a caller stores there is in the page cache at once, so a process that is killed loses none of it and pays nothing
 * for it. Pages are allocated before they are mapped: touching them can't fail for want of room.
 */
#ifndef MM_PAGES_H
#define MM_PAGES_H

#include <stddef.h>
#include <stdint.h>

#define MM_CONTROL_MAGIC 0x314c5254434d4du /* "MMCTRL1" */
#define MM_KIND_SLOTS 16

/* The first page of the file `control`; behind it the sums of the counters. Mirrored by src/recorder/spool/pages.rs. */
typedef struct {
    uint64_t magic;
    uint64_t sums;        /* how many are in use */
    uint64_t clock_turns; /* the pair last written is `clock[clock_turns & 1]` */
    uint64_t clock[2][2]; /* ticks, monotonic nanoseconds */
    uint64_t dropped[MM_KIND_SLOTS];
} mm_control;

#define MM_CONTROL_BYTES 4096u
#define MM_MAX_SUMS 4096u /* each is looked at once per flush period, and by every declaration of a counter */

/* Never NULL: private memory as long as no session has a folder. */
mm_control *mm_the_control(void);

/* The folder of pages, or -1; changed under the GIL, or when nobody uses it any more. */
extern int mm_pages_folder;

/* Maps a new file of that size. NULL: no folder, or no room in it. */
void *mm_pages_map(size_t bytes, uint64_t *number);
void mm_pages_unmap(void *address, size_t bytes, uint64_t number);

/* Uses a folder from now on (its descriptor stays the caller's). Needs the GIL. Returns 0, or -1 with errno. */
int mm_pages_open(int folder);
void mm_pages_close(int folder);

/* In a forked child: the parent's pages are not ours to write. */
void mm_pages_forget(void);

/* Descriptors of files that a forked child must not keep: a lock is held as long as anybody has its file open. */
enum mm_held { MM_HELD_LOCK = 0, MM_HELD_JOURNAL = 1, MM_HELD_FOLDER = 2, MM_HELD_RECOVERY = 3, MM_HELDS = 4 };
void mm_hold(enum mm_held place, int descriptor);
void mm_let_go(enum mm_held place, int descriptor);

/* Collector only. */
void mm_note_clock(uint64_t ticks, uint64_t nanoseconds);

#endif

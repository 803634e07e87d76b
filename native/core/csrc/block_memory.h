/* The memory of blocks. A block is made and destroyed by either side of a chain; seldom, for there is a pool of them. */
#ifndef MM_BLOCK_MEMORY_H
#define MM_BLOCK_MEMORY_H

#include "buffer.h"

#pragma GCC visibility push(hidden)

/* Every block's memory, so that a forked child can let go of it without looking into it: of what is in a file only the
 * parent has the pages. */
typedef struct mm_extent {
    void *address;
    struct mm_extent *next, *previous;
    size_t bytes;
    uint64_t number; /* of the file */
    uint32_t generation;
    int in_file;
} mm_extent;

/* Of a session's `generation`; NULL: there is no memory, or it would be more than the limit. Its head is all zeros but for
 * what tells the memory. */
mm_block *mm_block_new(size_t bytes, uint32_t generation);
void mm_block_destroy(mm_block *block);

uint64_t mm_whole_blocks(void);

/* Whether a quarter of what all blocks may take is left beside one more of MM_BLOCK_BYTES. */
int mm_blocks_leave_room(void);

/* Of all blocks together. */
void mm_blocks_limit(uint64_t bytes);

/* A session begins: counts blocks outside of files anew. */
void mm_blocks_begin(void);

/* Around a fork, so that the list of blocks is whole in the child; there, with the lock held, they are let go of. */
void mm_blocks_hold(void);
void mm_blocks_let_go(void);
void mm_blocks_forget(void);

#pragma GCC visibility pop

#endif

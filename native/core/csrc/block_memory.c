/* The memory of blocks: in files where there is a folder for them, else private. See block_memory.h. */
#include "block_memory.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "pages.h"
#include "recorder.h"

static mm_extent *extents;
static pthread_mutex_t extents_lock = PTHREAD_MUTEX_INITIALIZER; /* held for a few instructions */
static uint64_t memory_in_use __attribute__((aligned(64)));
static uint64_t whole_blocks; /* of MM_BLOCK_BYTES, wherever they are */
static uint64_t memory_limit = 64u << 20;
static uint64_t blocks_outside_file; /* of sessions that wanted files */

static void link_extent(mm_extent *extent)
{
    pthread_mutex_lock(&extents_lock);
    extent->previous = NULL;
    extent->next = extents;
    if (extents) {
        extents->previous = extent;
    }
    extents = extent;
    pthread_mutex_unlock(&extents_lock);
}

static void unlink_extent(mm_extent *extent)
{
    pthread_mutex_lock(&extents_lock);
    if (extent->previous) {
        extent->previous->next = extent->next;
    }
    else {
        extents = extent->next;
    }
    if (extent->next) {
        extent->next->previous = extent->previous;
    }
    pthread_mutex_unlock(&extents_lock);
}

mm_block *mm_block_new(size_t bytes, uint32_t generation)
{
    if (__atomic_load_n(&memory_in_use, __ATOMIC_RELAXED) + bytes > memory_limit) {
        return NULL;
    }
    mm_extent *extent = malloc(sizeof *extent);
    if (!extent) {
        return NULL;
    }
    extent->bytes = bytes;
    extent->generation = generation;
    extent->address = mm_pages_map(bytes, &extent->number);
    extent->in_file = extent->address != NULL;
    if (!extent->in_file) {
        extent->address = aligned_alloc(64, bytes);
        if (!extent->address) {
            free(extent);
            return NULL;
        }
        memset(extent->address, 0, sizeof(mm_block));
        __atomic_fetch_add(&blocks_outside_file, 1, __ATOMIC_RELAXED);
    }
    link_extent(extent);
    __atomic_fetch_add(&memory_in_use, bytes, __ATOMIC_RELAXED);
    __atomic_fetch_add(&whole_blocks, bytes == MM_BLOCK_BYTES, __ATOMIC_RELAXED);
    mm_block *block = extent->address;
    block->bytes = bytes;
    block->extent = extent;
    block->address = (uint64_t)(uintptr_t)block;
    block->layout = mm_record_layout;
    return block;
}

void mm_block_destroy(mm_block *block)
{
    mm_extent *extent = block->extent;
    unlink_extent(extent);
    __atomic_fetch_sub(&memory_in_use, extent->bytes, __ATOMIC_RELAXED);
    __atomic_fetch_sub(&whole_blocks, extent->bytes == MM_BLOCK_BYTES, __ATOMIC_RELAXED);
    if (extent->in_file) {
        mm_pages_unmap(extent->address, extent->bytes, extent->number);
    }
    else {
        free(extent->address);
    }
    free(extent);
}

/* Of MM_BLOCK_BYTES, wherever they are. */
uint64_t mm_whole_blocks(void)
{
    return __atomic_load_n(&whole_blocks, __ATOMIC_RELAXED);
}

int mm_blocks_leave_room(void)
{
    return __atomic_load_n(&memory_in_use, __ATOMIC_RELAXED) + MM_BLOCK_BYTES <= memory_limit - memory_limit / 4;
}

void mm_blocks_limit(uint64_t bytes)
{
    memory_limit = bytes;
}

void mm_blocks_begin(void)
{
    blocks_outside_file = 0;
}

uint64_t mm_blocks_outside_file(void)
{
    return __atomic_load_n(&blocks_outside_file, __ATOMIC_RELAXED);
}

void mm_blocks_hold(void)
{
    pthread_mutex_lock(&extents_lock);
}

void mm_blocks_let_go(void)
{
    pthread_mutex_unlock(&extents_lock);
}

void mm_blocks_forget(void)
{
    while (extents) {
        mm_extent *extent = extents;
        extents = extent->next;
        if (!extent->in_file) {
            free(extent->address);
        }
        free(extent);
    }
    whole_blocks = memory_in_use = 0;
}

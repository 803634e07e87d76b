/* The consumer's side of the chains: reads what is committed, and gives back blocks that were read. No GIL. */
#include "thread_buffer.h"

#include <string.h>

#include "pages.h"
#include "recorder.h"

mm_thread *mm_next_thread(const mm_thread *thread)
{
    return thread->next;
}

/* `name` has room for MM_NAME_BYTES. */
int mm_thread_describe(const mm_thread *thread, uint64_t *serial, uint64_t *native_id, char *name, size_t *name_size)
{
    int state = __atomic_load_n(&thread->state, __ATOMIC_ACQUIRE);
    *serial = thread->serial;
    *native_id = thread->native_id;
    *name_size = 0;
    if (state == MM_LIVE || state == MM_ENDED) {
        pthread_mutex_lock(&mm_recycling); /* it may get another name right now */
        *name_size = thread->name_size;
        memcpy(name, thread->name, thread->name_size);
        pthread_mutex_unlock(&mm_recycling);
    }
    return state;
}

size_t mm_thread_read(mm_thread *thread, const uint8_t **begin)
{
    mm_block *block = thread->reading;
    while (block) {
        /* `next` first: once it is set, the cursor of this block is final. */
        mm_block *next = __atomic_load_n(&block->next, __ATOMIC_ACQUIRE);
        uint8_t *cursor = __atomic_load_n(&block->cursor, __ATOMIC_ACQUIRE);
        if (block->read < cursor) {
            *begin = block->read;
            return (size_t)(cursor - block->read);
        }
        if (!next) {
            break;
        }
        thread->reading = block = next;
    }
    return 0;
}

void mm_thread_advance(mm_thread *thread, size_t size)
{
    thread->reading->read += size;
}

/* How far the thread was read: the block's place in its chain, and bytes from the block's head. */
void mm_thread_position(const mm_thread *thread, uint64_t *sequence, uint64_t *offset)
{
    *sequence = thread->reading->sequence;
    *offset = (uint64_t)(thread->reading->read - (uint8_t *)thread->reading);
}

/* What was read was handed on, but could not be kept: it must not be read again. */
void mm_thread_forgo(mm_thread *thread)
{
    for (mm_block *block = thread->head;; block = block->next) {
        block->committed = (uint64_t)(block->read - (uint8_t *)block);
        if (block == thread->reading) {
            return;
        }
    }
}

/* Gives back the blocks that were read to their end. What was read from them must be safe elsewhere by now. */
void mm_thread_release(mm_thread *thread)
{
    while (thread->head != thread->reading) {
        mm_block *block = thread->head;
        thread->head = block->next;
        mm_block_release(block);
    }
}

/* To be called for a thread that was seen as ended before its last (empty) read. */
void mm_thread_recycle(mm_thread *thread)
{
    mm_thread_release(thread);
    pthread_mutex_lock(&mm_recycling);
    mm_block *block = thread->head;
    mm_block *spare = thread->spare;
    thread->head = thread->reading = thread->tail = thread->spare = NULL;
    __atomic_store_n(&thread->state, MM_FREE, __ATOMIC_RELEASE);
    mm_block_release(block);
    if (spare) {
        mm_block_release(spare);
    }
    pthread_mutex_unlock(&mm_recycling);
}

uint64_t mm_dropped_events(int kind)
{
    return __atomic_load_n(&mm_the_control()->dropped[kind], __ATOMIC_RELAXED);
}

/* What a thread of the program has for the two sides of its chain of blocks: buffer.c is the producers' side, buffer_reader.c the
 * consumer's. */
#ifndef MM_THREAD_BUFFER_H
#define MM_THREAD_BUFFER_H

#include <pthread.h>

#include "buffer.h"

#pragma GCC visibility push(hidden)

enum { MM_FREE = 0, MM_STARTING = 1, MM_LIVE = 2, MM_ENDED = 3 };

/* What the two sides write lies in different lines of the caches, that neither waits for the other's. */
typedef struct mm_thread {
    mm_block *tail;    /* producer */
    mm_block *spare;   /* producer: taken from the pool shortly before the tail is full */
    uint64_t sequence; /* producer: of the tail */
    struct mm_thread *next;
    int state;
    uint32_t name_size;
    uint64_t serial;
    uint64_t native_id;
    char name[MM_NAME_BYTES];
    mm_block *head __attribute__((aligned(64))); /* consumer: the first that is not given back */
    mm_block *reading;                           /* consumer */
} mm_thread;

/* Between the end of a thread, which needs no GIL, and whoever looks into the buffers of other threads, or at their names. */
extern pthread_mutex_t mm_recycling;

/* Gives a block to the pool, or its memory back. Consumer only. */
void mm_block_release(mm_block *block);

/* The list grows at its head only. */
mm_thread *mm_first_thread(void);

#pragma GCC visibility pop

#endif

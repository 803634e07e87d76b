/* Chains of blocks: registration of threads, hand-over, the pool, fork. See buffer.h for who may touch what. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#ifdef Py_GIL_DISABLED
#error "the recorder's buffers rely on the GIL: free-threaded builds are not supported yet"
#endif

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "buffer.h"
#include "recorder.h"

enum { MM_FREE = 0, MM_STARTING = 1, MM_LIVE = 2, MM_ENDED = 3 };

typedef struct mm_thread {
    mm_block *head;    /* consumer: the first that is not given back */
    mm_block *reading; /* consumer */
    mm_block *tail;    /* producer */
    struct mm_thread *next;
    int state;
    uint32_t name_size;
    uint64_t serial;
    uint64_t native_id;
    char name[MM_NAME_BYTES];
} mm_thread;

static mm_block nowhere;
__thread mm_block *mm_current __attribute__((tls_model("initial-exec"))) = &nowhere;

int mm_recording = MM_OFF;

static mm_thread *threads;       /* grows only; a thread that ended leaves its place to a later one */
static uint64_t next_serial = 1; /* under the GIL */
static uint64_t dropped[MM_KINDS];
static mm_block *pool; /* popped under the GIL only, so that a pop needs no protection against reuse */
static uint64_t pool_count;
static uint64_t memory_in_use;
static uint64_t memory_limit = 64u << 20;
static pthread_key_t ending_key;
static PyObject *thread_namer;
/* Between the end of a thread, which needs no GIL, and whoever looks into the buffers of other threads. */
static pthread_mutex_t recycling = PTHREAD_MUTEX_INITIALIZER;

/* ---- pool ------------------------------------------------------------------------------------------------------- */

static mm_block *new_block(size_t bytes)
{
    if (__atomic_load_n(&memory_in_use, __ATOMIC_RELAXED) + bytes > memory_limit) {
        return NULL;
    }
    mm_block *block = aligned_alloc(64, bytes);
    if (block) {
        block->bytes = bytes;
        __atomic_fetch_add(&memory_in_use, bytes, __ATOMIC_RELAXED);
    }
    return block;
}

static void pool_push(mm_block *block)
{
    mm_block *top = __atomic_load_n(&pool, __ATOMIC_RELAXED);
    do {
        block->next = top;
    } while (!__atomic_compare_exchange_n(&pool, &top, block, 1, __ATOMIC_RELEASE, __ATOMIC_RELAXED));
    __atomic_fetch_add(&pool_count, 1, __ATOMIC_RELAXED);
}

static mm_block *pool_pop(void)
{
    mm_block *top = __atomic_load_n(&pool, __ATOMIC_ACQUIRE);
    while (top && !__atomic_compare_exchange_n(&pool, &top, top->next, 1, __ATOMIC_ACQUIRE, __ATOMIC_ACQUIRE)) {
    }
    if (top) {
        __atomic_fetch_sub(&pool_count, 1, __ATOMIC_RELAXED);
    }
    return top;
}

static void release_block(mm_block *block)
{
    if (block->bytes == MM_BLOCK_BYTES && __atomic_load_n(&pool_count, __ATOMIC_RELAXED) < 32) {
        pool_push(block);
    }
    else {
        __atomic_fetch_sub(&memory_in_use, block->bytes, __ATOMIC_RELAXED);
        free(block);
    }
}

static mm_block *block_with_room(size_t size, mm_thread *thread, int is_first)
{
    mm_block *block = NULL;
    size_t needed = size + sizeof(mm_block);
    if (is_first && needed <= MM_SMALL_BLOCK_BYTES) {
        block = new_block(MM_SMALL_BLOCK_BYTES);
    }
    else if (needed > MM_BLOCK_BYTES) {
        block = new_block((needed + 4095) & ~(size_t)4095);
    }
    else {
        block = pool_pop();
        if (!block) {
            block = new_block(MM_BLOCK_BYTES);
        }
        if (!block && needed <= MM_SMALL_BLOCK_BYTES) {
            block = new_block(MM_SMALL_BLOCK_BYTES); /* the last of the memory is shared more finely */
        }
    }
    if (block) {
        block->cursor = block->read = MM_BLOCK_DATA(block);
        block->limit = block->end = (uint8_t *)block + block->bytes;
        block->next = NULL;
        block->thread = thread;
    }
    return block;
}

/* Keeps a few blocks ready, touched, so that a producer seldom has to ask the system for memory. Consumer only. */
void mm_pool_prepare(void)
{
    while (__atomic_load_n(&pool_count, __ATOMIC_RELAXED) < 4) {
        mm_block *block = new_block(MM_BLOCK_BYTES);
        if (!block) {
            return;
        }
        for (size_t offset = sizeof(mm_block); offset < MM_BLOCK_BYTES; offset += 4096) {
            ((volatile uint8_t *)block)[offset] = 0;
        }
        pool_push(block);
    }
}

/* ---- producer --------------------------------------------------------------------------------------------------- */

static void thread_ends(void *block)
{
    mm_current = &nowhere;
    __atomic_store_n(&((mm_block *)block)->thread->state, MM_ENDED, __ATOMIC_RELEASE);
}

static void copy_thread_name(mm_thread *thread)
{
    thread->name_size = 0;
    if (!thread_namer) {
        return;
    }
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    PyObject *name = PyObject_CallNoArgs(thread_namer);
    if (name && PyBytes_Check(name)) {
        size_t size = (size_t)PyBytes_GET_SIZE(name);
        if (size > MM_NAME_BYTES) {
            size = MM_NAME_BYTES;
        }
        memcpy(thread->name, PyBytes_AS_STRING(name), size);
        thread->name_size = (uint32_t)size;
    }
    Py_XDECREF(name);
    PyErr_Restore(type, value, traceback); /* also drops an error of the namer: a thread without a name is no failure */
}

static mm_block *register_thread(size_t size)
{
    mm_thread *thread = threads;
    while (thread && __atomic_load_n(&thread->state, __ATOMIC_ACQUIRE) != MM_FREE) {
        thread = thread->next;
    }
    int is_new = thread == NULL;
    if (is_new && !(thread = calloc(1, sizeof *thread))) {
        return NULL;
    }
    mm_block *block = block_with_room(size, thread, 1);
    if (!block) {
        if (is_new) {
            free(thread);
        }
        return NULL;
    }
    thread->head = thread->reading = thread->tail = block;
    thread->serial = next_serial++;
    thread->native_id = PyThread_get_thread_native_id();
    __atomic_store_n(&thread->state, MM_STARTING, __ATOMIC_RELEASE);
    if (is_new) {
        thread->next = threads;
        __atomic_store_n(&threads, thread, __ATOMIC_RELEASE);
    }
    mm_current = block;
    pthread_setspecific(ending_key, block);
    /* Python code runs here and may record events itself, so the thread must already have its buffer. */
    copy_thread_name(thread);
    __atomic_store_n(&thread->state, MM_LIVE, __ATOMIC_RELEASE);
    return mm_reserve(size, MM_KINDS);
}

mm_block *mm_make_room(size_t size, enum mm_kind kind)
{
    if (mm_recording != MM_ON) {
        if (mm_recording != MM_FORKED || !mm_recorder_restart()) {
            return NULL;
        }
    }
    mm_block *block = mm_current;
    if (block == &nowhere) {
        block = register_thread(size);
    }
    else {
        block->limit = block->end; /* recording may have been off when the limit was set */
        if ((size_t)(block->end - block->cursor) < size) {
            mm_block *full = block;
            block = block_with_room(size, full->thread, 0);
            if (block) {
                full->thread->tail = block;
                mm_current = block;
                pthread_setspecific(ending_key, block);
                __atomic_store_n(&full->next, block, __ATOMIC_RELEASE);
            }
        }
    }
    if (!block && kind < MM_KINDS) {
        __atomic_fetch_add(&dropped[kind], 1, __ATOMIC_RELAXED);
    }
    return block;
}

void mm_emit_slowly(const void *descriptor, enum mm_kind kind)
{
    if (mm_recording == MM_OFF) {
        return;
    }
    mm_block *block = mm_reserve(sizeof(mm_record), kind);
    if (block) {
        mm_write_head(block, descriptor, kind);
        mm_commit(block, sizeof(mm_record));
    }
}

void mm_set_recording(int recording)
{
    mm_recording = recording;
    mm_log_levels_changed();
    if (recording != MM_ON) {
        pthread_mutex_lock(&recycling);
        for (mm_thread *thread = threads; thread; thread = thread->next) {
            int state = __atomic_load_n(&thread->state, __ATOMIC_ACQUIRE);
            if (state == MM_LIVE || state == MM_STARTING) {
                thread->tail->limit = thread->tail->cursor;
            }
        }
        pthread_mutex_unlock(&recycling);
    }
}

/* ---- consumer --------------------------------------------------------------------------------------------------- */

mm_thread *mm_first_thread(void)
{
    return __atomic_load_n(&threads, __ATOMIC_ACQUIRE);
}

mm_thread *mm_next_thread(const mm_thread *thread)
{
    return thread->next;
}

int mm_thread_describe(const mm_thread *thread, uint64_t *serial, uint64_t *native_id, const char **name, size_t *name_size)
{
    int state = __atomic_load_n(&thread->state, __ATOMIC_ACQUIRE);
    *serial = thread->serial;
    *native_id = thread->native_id;
    *name = thread->name;
    *name_size = thread->name_size;
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

/* Gives back the blocks that were read to their end. What was read from them must be safe elsewhere by now. */
void mm_thread_release(mm_thread *thread)
{
    while (thread->head != thread->reading) {
        mm_block *block = thread->head;
        thread->head = block->next; /* before the release: a fork in between then leaks one block instead of sharing it */
        release_block(block);
    }
}

/* To be called for a thread that was seen as ended before its last (empty) read. */
void mm_thread_recycle(mm_thread *thread)
{
    mm_thread_release(thread);
    pthread_mutex_lock(&recycling);
    mm_block *block = thread->head;
    thread->head = thread->reading = thread->tail = NULL;
    __atomic_store_n(&thread->state, MM_FREE, __ATOMIC_RELEASE);
    release_block(block);
    pthread_mutex_unlock(&recycling);
}

uint64_t mm_dropped_events(int kind)
{
    return __atomic_load_n(&dropped[kind], __ATOMIC_RELAXED);
}

/* ---- fork ------------------------------------------------------------------------------------------------------- */

/* In the child only the forking thread lives on. What the parent had not sent yet is the parent's to send. */
static void forget_parent(void)
{
    mm_thread *mine = mm_current == &nowhere ? NULL : mm_current->thread;
    recycling = (pthread_mutex_t)PTHREAD_MUTEX_INITIALIZER; /* the parent's collector may have held it */
    for (mm_thread *thread = threads; thread; thread = thread->next) {
        mm_block *block = thread->head;
        mm_block *kept = thread == mine ? mm_current : NULL;
        while (block) {
            mm_block *next = block == thread->tail ? NULL : block->next;
            if (block != kept) {
                release_block(block);
            }
            block = next;
        }
        thread->head = thread->reading = thread->tail = kept;
        if (kept) {
            kept->cursor = kept->limit = kept->read = MM_BLOCK_DATA(kept);
            thread->serial = next_serial++;
        }
        else {
            thread->state = MM_FREE;
        }
    }
    memset(dropped, 0, sizeof dropped);
    if (mm_recording == MM_ON) {
        mm_recording = MM_FORKED;
    }
}

int mm_buffers_init(PyObject *namer, uint64_t limit)
{
    static int prepared = 0;
    if (!prepared) {
        nowhere.cursor = nowhere.limit = MM_BLOCK_DATA(&nowhere);
        if (pthread_key_create(&ending_key, thread_ends) != 0 || pthread_atfork(NULL, NULL, forget_parent) != 0) {
            PyErr_SetString(PyExc_RuntimeError, "recorder: no thread key left in this process");
            return -1;
        }
        prepared = 1;
    }
    memory_limit = limit;
    Py_XSETREF(thread_namer, Py_NewRef(namer));
    return 0;
}

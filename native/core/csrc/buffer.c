/* Chains of blocks: registration of threads, hand-over, the pool, fork. See buffer.h for who may touch what; the consumer's
 * side is buffer_reader.c. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#ifdef Py_GIL_DISABLED
#error "the recorder's buffers rely on the GIL: free-threaded builds are not supported yet"
#endif

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "block_memory.h"
#include "pages.h"
#include "recorder.h"
#include "thread_buffer.h"

static mm_block nowhere;
__thread mm_block *mm_current __attribute__((tls_model("initial-exec"))) = &nowhere;

int mm_recording = MM_OFF;

static mm_thread *threads;       /* grows only; a thread that ended leaves its place to a later one */
static uint64_t next_serial = 1; /* under the GIL */
/* A queue of free blocks, filled by the consumer only and emptied under the GIL only: so neither side needs a locked
 * instruction, which would wait until all that its thread has stored (events, a moment ago) has reached the caches. */
#define MM_POOL_PLACES 64u
#define MM_POOL_LEAST 4u
static mm_block *pool[MM_POOL_PLACES] __attribute__((aligned(64)));
static uint64_t pool_pushed __attribute__((aligned(64))); /* consumer */
static uint64_t pool_pops_seen;                           /* consumer */
static uint64_t pool_popped __attribute__((aligned(64))); /* producer */
static pthread_key_t ending_key;
static PyObject *thread_namer;
static uint32_t generation;          /* of the folder of pages, or of having none */
static int folder_wanted;            /* the session makes its folder with the first block */
pthread_mutex_t mm_recycling = PTHREAD_MUTEX_INITIALIZER;

/* ---- pool ------------------------------------------------------------------------------------------------------- */

static uint64_t pool_count(void)
{
    return __atomic_load_n(&pool_pushed, __ATOMIC_ACQUIRE) - __atomic_load_n(&pool_popped, __ATOMIC_ACQUIRE);
}

/* There must be a place. */
static void pool_push(mm_block *block)
{
    pool[pool_pushed % MM_POOL_PLACES] = block;
    __atomic_store_n(&pool_pushed, pool_pushed + 1, __ATOMIC_RELEASE);
}

static mm_block *pool_pop(void)
{
    if (pool_count() == 0) {
        return NULL;
    }
    mm_block *block = pool[pool_popped % MM_POOL_PLACES];
    __atomic_store_n(&pool_popped, pool_popped + 1, __ATOMIC_RELEASE);
    return block;
}

void mm_block_release(mm_block *block)
{
    /* Whoever finds the block after our death must not read it again. */
    __atomic_store_n(&block->serial, 0, __ATOMIC_RELEASE);
    if (block->bytes == MM_BLOCK_BYTES && block->extent->generation == __atomic_load_n(&generation, __ATOMIC_ACQUIRE) &&
        pool_count() < MM_POOL_PLACES) {
        pool_push(block);
    }
    else {
        mm_block_destroy(block);
    }
}

/* A change of blocks comes seldom, and finds all that it needs far away in the memory: its own instructions, the pool, the
 * first lines of the next block, which were last another processor's. So it is done in short steps, each with so many bytes
 * left: these instructions are asked for by whoever records (MM_AHEAD_CODE), then the data, which arrive while events are
 * recorded; then the next block is taken from the pool, and its first lines are asked for by writing to them; at the end it
 * changes hands without a wait. */
#define MM_AHEAD_SPARE (2u << 10)

static void open_block(mm_block *block)
{
    size_t left = (size_t)(block->end - block->cursor);
    size_t ahead = left > MM_AHEAD_CODE ? MM_AHEAD_CODE : left > MM_AHEAD_DATA ? MM_AHEAD_DATA : MM_AHEAD_SPARE;
    mm_set_room(block, block->thread->spare ? block->end : block->end - ahead);
}

static void fetch_data(const mm_block *block)
{
    const char *const data[] = {(const char *)&pool_pushed, (const char *)&pool_popped, (const char *)&generation,
                                (const char *)block->thread, (const char *)block->extent};
    for (size_t index = 0; index < sizeof data / sizeof *data; index++) {
        __builtin_prefetch(data[index]);
    }
    for (size_t line = 0; line < sizeof pool; line += MM_LINE) {
        __builtin_prefetch((const char *)pool + line);
    }
}

static void begin_block(mm_block *block, mm_thread *thread)
{
    block->cursor = block->read = MM_BLOCK_DATA(block);
    block->end = (uint8_t *)block + block->bytes;
    block->next = NULL;
    block->thread = thread;
    block->committed = 0;
}

static void take_spare(mm_thread *thread)
{
    mm_block *spare = pool_pop();
    thread->spare = spare;
    if (spare) {
        begin_block(spare, thread);
        for (size_t line = offsetof(mm_block, name); line < sizeof *spare + 2 * MM_LINE; line += MM_LINE) {
            ((volatile uint8_t *)spare)[line] = 0;
        }
    }
}

/* The spare block, if it is of this session. Needs the GIL. */
static mm_block *spare_of(mm_thread *thread)
{
    mm_block *spare = thread->spare;
    thread->spare = NULL;
    if (spare && spare->extent->generation != generation) {
        mm_block_destroy(spare);
        return NULL;
    }
    return spare;
}

static mm_block *block_with_room(size_t size, mm_thread *thread, int is_first)
{
    mm_block *block = NULL;
    size_t needed = size + sizeof(mm_block);
    if (is_first && needed <= MM_SMALL_BLOCK_BYTES) {
        block = mm_block_new(MM_SMALL_BLOCK_BYTES, generation);
    }
    else if (needed > MM_BLOCK_BYTES) {
        block = mm_block_new((needed + 4095) & ~(size_t)4095, generation);
    }
    else {
        block = spare_of(thread);
        if (!block) {
            block = pool_pop();
        }
        if (!block) {
            block = mm_block_new(MM_BLOCK_BYTES, generation);
        }
        if (!block && needed <= MM_SMALL_BLOCK_BYTES) {
            block = mm_block_new(MM_SMALL_BLOCK_BYTES, generation); /* the last of the memory is shared more finely */
        }
    }
    if (block) {
        begin_block(block, thread);
        open_block(block);
        block->sequence = ++thread->sequence;
        block->native_id = thread->native_id;
        block->name_size = thread->name_size;
        memcpy(block->name, thread->name, thread->name_size);
        __atomic_store_n(&block->serial, thread->serial, __ATOMIC_RELEASE);
    }
    return block;
}

/* Blocks that will come back to the pool: all but those in it, and but one that each thread goes on with. */
static uint64_t blocks_away(void)
{
    uint64_t stay = pool_count();
    for (mm_thread *thread = __atomic_load_n(&threads, __ATOMIC_ACQUIRE); thread; thread = thread->next) {
        stay += __atomic_load_n(&thread->state, __ATOMIC_ACQUIRE) == MM_LIVE;
    }
    uint64_t all = mm_whole_blocks();
    return all > stay ? all - stay : 0;
}

/* Keeps blocks ready, touched, so that a producer seldom has to ask the system for memory: twice as many as were taken
 * since the last time. What comes back with the next cut must find its place, or it would be destroyed, to be made again.
 * Consumer only. */
void mm_pool_prepare(void)
{
    if (__atomic_load_n(&folder_wanted, __ATOMIC_ACQUIRE)) {
        return; /* the folder is made by the first event */
    }
    uint64_t popped = __atomic_load_n(&pool_popped, __ATOMIC_RELAXED);
    uint64_t wanted = 2 * (popped - pool_pops_seen);
    pool_pops_seen = popped;
    uint64_t away = blocks_away();
    uint64_t places = away < MM_POOL_PLACES ? MM_POOL_PLACES - away : 0;
    wanted = wanted > places ? places : wanted;
    wanted = wanted < MM_POOL_LEAST ? MM_POOL_LEAST : wanted;
    /* Nor may the pool take what threads begin with: it would be full, and nobody could come to take a block out of it. */
    while (pool_count() < wanted && mm_blocks_leave_room()) {
        mm_block *block = mm_block_new(MM_BLOCK_BYTES, generation);
        if (!block) {
            return;
        }
        for (size_t offset = sizeof(mm_block); offset < MM_BLOCK_BYTES; offset += 4096) {
            ((volatile uint8_t *)block)[offset] = 0;
        }
        pool_push(block);
    }
}

/* The blocks in the pool, and those that threads still have, belong to a session that has ended. Needs the GIL. */
static void next_generation(void)
{
    __atomic_fetch_add(&generation, 1, __ATOMIC_RELEASE);
    mm_block *block;
    while ((block = pool_pop())) {
        mm_block_destroy(block);
    }
}

/* Begins a session: with a folder of pages from its first block on, or without. Needs the GIL. */
void mm_buffers_begin(int with_folder)
{
    next_generation();
    mm_blocks_begin();
    __atomic_store_n(&folder_wanted, with_folder, __ATOMIC_RELEASE);
}

/* Has the session's folder made, if it is to have one. Needs the GIL. */
void mm_buffers_want_folder(void)
{
    if (folder_wanted) {
        mm_spool_make_folder();
        __atomic_store_n(&folder_wanted, 0, __ATOMIC_RELEASE);
    }
}

/* ---- producer --------------------------------------------------------------------------------------------------- */

static void thread_ends(void *thread)
{
    mm_current = &nowhere;
    __atomic_store_n(&((mm_thread *)thread)->state, MM_ENDED, __ATOMIC_RELEASE);
}

static void take_name(mm_thread *thread, const char *name, size_t size)
{
    thread->name_size = size < MM_NAME_BYTES ? (uint32_t)size : MM_NAME_BYTES;
    memcpy(thread->name, name, thread->name_size);
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
        take_name(thread, PyBytes_AS_STRING(name), (size_t)PyBytes_GET_SIZE(name));
    }
    Py_XDECREF(name);
    char system_name[64];
    if (thread->name_size == 0 && pthread_getname_np(pthread_self(), system_name, sizeof system_name) == 0) {
        take_name(thread, system_name, strnlen(system_name, sizeof system_name)); /* of a thread that Python did not start */
    }
    PyErr_Restore(type, value, traceback); /* also drops an error of the namer: a thread without a name is no failure */
}

static mm_block *register_thread(size_t size)
{
    mm_thread *thread = threads;
    while (thread && __atomic_load_n(&thread->state, __ATOMIC_ACQUIRE) != MM_FREE) {
        thread = thread->next;
    }
    int is_new = thread == NULL;
    if (is_new) {
        thread = aligned_alloc(_Alignof(mm_thread), sizeof *thread);
        if (!thread) {
            return NULL;
        }
        memset(thread, 0, sizeof *thread);
    }
    mm_buffers_want_folder();
    thread->serial = next_serial++;
    thread->sequence = 0;
    thread->spare = NULL;
    thread->native_id = PyThread_get_thread_native_id();
    thread->name_size = 0;
    mm_block *block = block_with_room(size, thread, 1);
    if (!block) {
        if (is_new) {
            free(thread);
        }
        return NULL;
    }
    thread->head = thread->reading = thread->tail = block;
    __atomic_store_n(&thread->state, MM_STARTING, __ATOMIC_RELEASE);
    if (is_new) {
        thread->next = threads;
        __atomic_store_n(&threads, thread, __ATOMIC_RELEASE);
    }
    mm_current = block;
    pthread_setspecific(ending_key, thread);
    /* Python code runs here and may record events itself, so the thread must already have its buffer. */
    copy_thread_name(thread);
    memcpy(thread->tail->name, thread->name, thread->name_size);
    thread->tail->name_size = thread->name_size;
    __atomic_store_n(&thread->state, MM_LIVE, __ATOMIC_RELEASE);
    return mm_reserve(size, MM_KINDS);
}

PyObject *mm_rename_thread(PyObject *module, PyObject *args)
{
    (void)module;
    unsigned long long native_id;
    const char *name;
    Py_ssize_t size;
    if (!PyArg_ParseTuple(args, "Ky#", &native_id, &name, &size)) {
        return NULL;
    }
    pthread_mutex_lock(&mm_recycling);
    for (mm_thread *thread = threads; thread; thread = thread->next) {
        /* One that has ended may have left its id to another. */
        if (thread->native_id == native_id && __atomic_load_n(&thread->state, __ATOMIC_ACQUIRE) == MM_LIVE) {
            take_name(thread, name, (size_t)size);
            thread->tail->name_size = thread->name_size;
            memcpy(thread->tail->name, thread->name, thread->name_size);
        }
    }
    pthread_mutex_unlock(&mm_recycling);
    Py_RETURN_NONE;
}

mm_block *mm_make_room(size_t size, enum mm_kind kind)
{
    mm_block *block = mm_current;
    size_t left = (size_t)(block->end - block->cursor);
    if (mm_recording == MM_ON && block->room == block->end - MM_AHEAD_DATA && left >= size) {
        fetch_data(block);
        mm_set_room(block, block->end - MM_AHEAD_SPARE);
        return block;
    }
    if (mm_recording != MM_ON) {
        if (mm_recording != MM_FORKED || !mm_recorder_restart()) {
            return NULL;
        }
    }
    block = mm_current; /* starting to record anew in a forked child changes it */
    if (block == &nowhere) {
        block = register_thread(size);
    }
    else {
        int is_of_another_session = block->extent->generation != generation;
        if (!is_of_another_session && !block->thread->spare && (size_t)(block->end - block->cursor) < MM_AHEAD_SPARE) {
            take_spare(block->thread);
        }
        open_block(block); /* recording may have been off when its room was set */
        if (is_of_another_session || (size_t)(block->end - block->cursor) < size) {
            mm_buffers_want_folder();
            mm_block *full = block;
            block = block_with_room(size, full->thread, 0);
            if (block) {
                full->thread->tail = block;
                mm_current = block;
                __atomic_store_n(&full->next, block, __ATOMIC_RELEASE);
            }
        }
    }
    /* Recording may have ended while the thread was named, which gives up the GIL: then nothing was lost. */
    if (!block && kind < MM_KINDS && mm_recording != MM_OFF) {
        __atomic_fetch_add(&mm_the_control()->dropped[kind], 1, __ATOMIC_RELAXED);
    }
    return block;
}

void mm_emit_slowly(uint64_t tagged_descriptor)
{
    if (mm_recording == MM_OFF) {
        return;
    }
    mm_block *block = mm_reserve(sizeof(mm_record), (enum mm_kind)(tagged_descriptor & MM_KIND_BITS));
    if (block) {
        mm_write_tagged_head(block, tagged_descriptor);
        mm_commit(block, sizeof(mm_record));
    }
}

PyObject *mm_emit_slowly_for_none(uint64_t tagged_descriptor)
{
    mm_emit_slowly(tagged_descriptor);
    Py_RETURN_NONE;
}

void mm_set_recording(int recording)
{
    mm_recording = recording;
    mm_log_levels_changed();
    if (recording != MM_ON) {
        pthread_mutex_lock(&mm_recycling);
        for (mm_thread *thread = threads; thread; thread = thread->next) {
            int state = __atomic_load_n(&thread->state, __ATOMIC_ACQUIRE);
            if (state == MM_LIVE || state == MM_STARTING) {
                mm_set_room(thread->tail, MM_BLOCK_DATA(thread->tail));
            }
        }
        pthread_mutex_unlock(&mm_recycling);
    }
}

mm_thread *mm_first_thread(void)
{
    return __atomic_load_n(&threads, __ATOMIC_ACQUIRE);
}

/* ---- fork ------------------------------------------------------------------------------------------------------- */

/* No other thread is within what the child will use. */
static void hold_locks(void)
{
    mm_descriptors_hold();
    mm_blocks_hold();
}

static void let_go_of_locks(void)
{
    mm_blocks_let_go();
    mm_descriptors_let_go();
}

/* In the child only the forking thread lives on. What the parent had not sent yet is the parent's to send, and the pages
 * that it is in are not even mapped here. */
static void forget_parent(void)
{
    mm_recycling = (pthread_mutex_t)PTHREAD_MUTEX_INITIALIZER; /* the parent's collector may have held it */
    mm_pages_forget();
    mm_current = &nowhere;
    pthread_setspecific(ending_key, NULL);
    for (mm_thread *thread = threads; thread; thread = thread->next) {
        thread->head = thread->reading = thread->tail = thread->spare = NULL;
        thread->state = MM_FREE;
    }
    mm_blocks_forget();
    let_go_of_locks();
    pool_pushed = pool_popped = pool_pops_seen = 0;
    memset(mm_the_control()->dropped, 0, sizeof mm_the_control()->dropped);
    if (mm_recording == MM_ON) {
        mm_recording = MM_FORKED;
    }
}

int mm_buffers_init(PyObject *namer, uint64_t limit)
{
    static int prepared = 0;
    if (!prepared) {
        mm_the_control();
        nowhere.cursor = nowhere.limit = nowhere.room = MM_BLOCK_DATA(&nowhere);
        if (pthread_key_create(&ending_key, thread_ends) != 0 || 
            pthread_atfork(hold_locks, let_go_of_locks, forget_parent) != 0) {
            PyErr_SetString(PyExc_RuntimeError, "recorder: no thread key left in this process");
            return -1;
        }
        prepared = 1;
    }
    mm_blocks_limit(limit);
    Py_XSETREF(thread_namer, Py_NewRef(namer));
    return 0;
}

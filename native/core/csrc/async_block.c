/* `with span:` in code that can be suspended: an async span on the stack of its context's scope.
 *
 * Blocks are ended by the frame that they stand in, so they end whatever context, task or thread leaves them.
 */
#include "async_scope.h"

#include <stdlib.h>

/* All blocks there ever were at a time: few programs have many open, and who looks through them is seldom. */
#define MM_CHUNK_BLOCKS 64
typedef struct mm_chunk {
    struct mm_chunk *next;
    mm_open blocks[MM_CHUNK_BLOCKS];
} mm_chunk;

static mm_chunk *chunks;
static mm_open *free_blocks; /* by `outer` */
size_t mm_open_blocks;
static size_t open_in_generators;

static int make_blocks(void)
{
    mm_chunk *chunk = calloc(1, sizeof *chunk);
    if (!chunk) {
        return 0;
    }
    chunk->next = chunks;
    chunks = chunk;
    for (size_t index = 0; index < MM_CHUNK_BLOCKS; index++) {
        chunk->blocks[index].outer = free_blocks;
        free_blocks = &chunk->blocks[index];
    }
    return 1;
}

static inline void open_block(mm_open *block, mm_async_span *scope, const void *descriptor, uintptr_t frame, uint64_t id, mm_parent parent)
{
    free_blocks = block->outer;
    block->outer = scope->top;
    scope->top = block;
    block->scope = scope;
    block->frame = frame;
    block->descriptor = descriptor;
    block->id = id;
    block->parent = parent.id;
    block->depth = parent.depth;
    block->epoch = mm_async.epoch;
    mm_open_blocks++;
}

static inline void free_block(mm_open *block)
{
    block->frame = 0;
    block->outer = free_blocks;
    free_blocks = block;
    mm_open_blocks--;
}

static inline int is_generator(uintptr_t frame)
{
    return frame == MM_NO_FRAME || mm_frame_is_generator(frame);
}

int mm_block_begin(PyThreadState *thread, const void *descriptor, PyObject *name, uintptr_t frame)
{
    int in_generator = is_generator(frame);
    if (in_generator && !mm_inside_context_run(thread)) {
        return 0;
    }
    mm_async_span *scope = mm_recording != MM_OFF ? mm_async_scope_of(thread) : NULL;
    if (!scope || (!free_blocks && !make_blocks())) {
        return 1;
    }
    mm_parent parent = mm_async_innermost(scope, scope->context);
    uint64_t id = mm_async.next_id++;
    if (mm_async_record(descriptor, name, MM_ASYNC_BEGIN, id, parent.id, parent.depth)) {
        mm_open *block = free_blocks;
        open_block(block, scope, descriptor, frame, id, parent);
        block->name = Py_XNewRef(name);
        block->in_generator = in_generator;
        open_in_generators += (size_t)in_generator;
    }
    return 1;
}

static __attribute__((noinline)) PyObject *enter_otherwise(PyObject *span, const void *descriptor, PyThreadState *thread, uintptr_t frame)
{
    if (!mm_block_begin(thread, descriptor, NULL, frame) && mm_recording != MM_OFF) {
        mm_emit(descriptor, MM_SPAN_BEGIN);
    }
    return Py_NewRef(span);
}

/* In the scope that was seen last, with a block to open, but without room for the event at once. */
static __attribute__((noinline)) PyObject *enter_slowly(PyObject *span, const void *descriptor, uintptr_t frame)
{
    mm_async_span *scope = mm_async.seen.scope;
    mm_parent parent = mm_async_innermost(scope, scope->context);
    uint64_t id = mm_async.next_id++;
    if (mm_async_record_slowly(descriptor, MM_ASYNC_BEGIN, id, parent.id, parent.depth)) {
        open_block(free_blocks, scope, descriptor, frame, id, parent);
    }
    return Py_NewRef(span);
}

PyObject *mm_block_enter(PyObject *span, const void *descriptor, PyThreadState *thread, uintptr_t frame)
{
    mm_open *block = free_blocks;
    if (!block || !mm_async_is_seen(thread) || is_generator(frame)) {
        return enter_otherwise(span, descriptor, thread, frame);
    }
    if (!mm_is_ready(mm_current, sizeof(mm_async_event))) {
        return enter_slowly(span, descriptor, frame);
    }
    mm_async_span *scope = mm_async.seen.scope;
    mm_parent parent = mm_async_innermost(scope, scope->context);
    uint64_t id = mm_async.next_id++;
    mm_async_record_at_once(mm_current, descriptor, MM_ASYNC_BEGIN, id, parent.id, parent.depth);
    open_block(block, scope, descriptor, frame, id, parent);
    return Py_NewRef(span);
}

static void end_block(mm_open *block)
{
    PyObject *name = block->name;
    if (block->epoch == mm_async.epoch) {
        mm_async_record(block->descriptor, name, MM_ASYNC_END, block->id, block->parent, block->depth);
    }
    open_in_generators -= (size_t)block->in_generator;
    block->name = NULL;
    block->in_generator = 0;
    free_block(block);
    Py_XDECREF(name);
}

static mm_open *newest_of(uintptr_t frame, const void *descriptor)
{
    mm_open *newest = NULL;
    for (mm_chunk *chunk = chunks; chunk; chunk = chunk->next) {
        for (mm_open *block = chunk->blocks; block < chunk->blocks + MM_CHUNK_BLOCKS; block++) {
            if (block->frame == frame && block->descriptor == descriptor &&
                (!newest || block->epoch > newest->epoch || (block->epoch == newest->epoch && block->id > newest->id))) {
                newest = block;
            }
        }
    }
    return newest;
}

/* One that was left in another context than it was entered in, or not as the innermost one there. */
static int end_distant_block(const void *descriptor, uintptr_t frame)
{
    mm_open *block = newest_of(frame, descriptor);
    if (!block) {
        return 0;
    }
    mm_open **link = block->scope ? &block->scope->top : NULL;
    while (link && *link && *link != block) {
        link = &(*link)->outer;
    }
    if (link && *link) {
        *link = block->outer;
    }
    end_block(block);
    return 1;
}

static __attribute__((noinline)) int end_otherwise(PyThreadState *thread, const void *descriptor, uintptr_t frame)
{
    mm_async_span *scope = mm_async_known_scope(thread);
    mm_open *block = scope ? scope->top : NULL;
    if (block && block->frame == frame && block->descriptor == descriptor) {
        scope->top = block->outer;
        end_block(block);
        return 1;
    }
    int in_generator = is_generator(frame);
    if (in_generator && !open_in_generators) {
        return 0;
    }
    /* What a coroutine began while nothing was recorded has no end either. */
    return end_distant_block(descriptor, frame) || !in_generator;
}

static __attribute__((noinline)) int end_slowly(mm_open *block)
{
    mm_async_record_slowly(block->descriptor, MM_ASYNC_END, block->id, block->parent, block->depth);
    block->scope->top = block->outer;
    free_block(block);
    return 1;
}

int mm_block_end(PyThreadState *thread, const void *descriptor, uintptr_t frame)
{
    mm_async_span *scope = mm_async.seen.scope;
    mm_open *block;
    if (!mm_async_is_seen(thread) || !(block = scope->top) || block->frame != frame || block->descriptor != descriptor ||
        block->epoch != mm_async.epoch || block->name || block->in_generator) {
        return end_otherwise(thread, descriptor, frame);
    }
    if (!mm_is_ready(mm_current, sizeof(mm_async_event))) {
        return end_slowly(block);
    }
    mm_async_record_at_once(mm_current, descriptor, MM_ASYNC_END, block->id, block->parent, block->depth);
    scope->top = block->outer;
    free_block(block);
    return 1;
}

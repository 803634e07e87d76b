/* `with span:` in code that can be suspended: an async span on the stack of its context's scope.
 *
 * Blocks are ended by the frame that they stand in, so they end whatever context, task or thread leaves them.
 */
#include "async_scope.h"

#include <stdlib.h>

static mm_open open_blocks = {.previous = &open_blocks, .next = &open_blocks};
size_t mm_open_blocks;
static size_t open_in_generators;
static mm_open *free_blocks;

static inline void end_block(mm_open *block)
{
    block->previous->next = block->next;
    block->next->previous = block->previous;
    if (block->epoch == mm_async.epoch) {
        mm_async_record(block->descriptor, block->name, MM_ASYNC_END, block->id, block->parent, block->depth);
    }
    mm_open_blocks--;
    open_in_generators -= (size_t)block->in_generator;
    PyObject *name = block->name;
    block->outer = free_blocks;
    free_blocks = block;
    Py_XDECREF(name);
}

static void push_block(PyThreadState *thread, const void *descriptor, PyObject *name, uintptr_t frame, int in_generator)
{
    mm_async_span *scope = mm_async_scope_of(thread);
    mm_open *block = free_blocks;
    if (__builtin_expect(block != NULL, 1)) {
        free_blocks = block->outer;
    }
    else if (!(block = malloc(sizeof *block))) {
        return;
    }
    mm_parent parent = {0, 0, NULL};
    if (__builtin_expect(scope != NULL, 1)) {
        parent = mm_async_innermost(scope, scope->context);
    }
    uint64_t id = mm_async.next_id++;
    if (!scope || !mm_async_record(descriptor, name, MM_ASYNC_BEGIN, id, parent.id, parent.depth)) {
        block->outer = free_blocks;
        free_blocks = block;
        return;
    }
    block->frame = frame;
    block->descriptor = descriptor;
    block->name = Py_XNewRef(name);
    block->id = id;
    block->parent = parent.id;
    block->depth = parent.depth;
    block->epoch = mm_async.epoch;
    block->in_generator = in_generator;
    mm_open_blocks++;
    open_in_generators += (size_t)in_generator;
    block->scope = scope;
    block->outer = scope->top;
    scope->top = block;
    block->next = open_blocks.next;
    block->previous = &open_blocks;
    open_blocks.next->previous = block;
    open_blocks.next = block;
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
    if (mm_recording != MM_OFF) {
        push_block(thread, descriptor, name, frame, in_generator);
    }
    return 1;
}

static __attribute__((noinline)) int end_distant_block(const void *descriptor, uintptr_t frame)
{
    for (mm_open *block = open_blocks.next; block != &open_blocks; block = block->next) {
        if (block->frame == frame && block->descriptor == descriptor) {
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
    }
    return 0;
}

int mm_block_end(PyThreadState *thread, const void *descriptor, uintptr_t frame)
{
    if (mm_async_is_seen(thread)) {
        mm_async_span *scope = mm_async.seen.scope;
        mm_open *block = scope->top;
        if (__builtin_expect(block && block->frame == frame && block->descriptor == descriptor, 1)) {
            scope->top = block->outer;
            end_block(block);
            return 1;
        }
    }
    int in_generator = is_generator(frame);
    if (in_generator && !open_in_generators) {
        return 0;
    }
    /* What a coroutine mm_async.began while nothing was recorded has no end either. */
    return end_distant_block(descriptor, frame) || !in_generator;
}

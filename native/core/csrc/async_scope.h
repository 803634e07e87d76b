/* What the C files of async spans share: the spans that are open, which of them is innermost in a context, and their records.
 *
 * The innermost open span of a context is found in two steps. A context variable holds a *scope*: the async span that was
 * opened there by `async with` or `open_async` (precise, also for tasks created inside it, and dear: a context variable is
 * set). `with span:` in a coroutine is cheap: it only pushes onto the stack of its context's scope. A context that has no
 * scope of its own yet (a copy) gets one whose parent is what is innermost in the scope that it inherited.
 */
#ifndef MM_ASYNC_SCOPE_H
#define MM_ASYNC_SCOPE_H

#include "recorder.h"

#include "caller.h"

#pragma GCC visibility push(hidden)

struct mm_async_span;

/* A block: `with span:` in code that can be suspended. */
typedef struct mm_open {
    struct mm_open *outer;       /* in the stack of the scope, or among the free ones */
    struct mm_async_span *scope; /* not counted; NULL once it is gone */
    uintptr_t frame;             /* 0: the block is free */
    const void *descriptor;
    PyObject *name; /* strong: of a span named at run time, else NULL */
    uint64_t id, parent, depth;
    uint64_t epoch;
    int in_generator;
} mm_open;

/* What the context variable holds. Without a descriptor it only stands for what its context inherited. */
typedef struct mm_async_span {
    PyObject_HEAD
    const void *descriptor;
    PyObject *name;  /* of a span named at run time, else NULL */
    PyObject *trace; /* the W3C trace id of an adopted trace, else NULL: our own */
    uint64_t id;     /* 0 is "none" */
    uint64_t parent;
    uint64_t depth;
    uint64_t epoch;
    struct mm_async_span *outer; /* the one that was current before */
    PyObject *token;             /* while current */
    PyObject *context;           /* not counted: the one that it was made current in */
    mm_open *top;                /* the innermost block on it */
    struct mm_async_span *previous, *next; /* among the open ones of `async with`; strong while `frame` is set */
    uintptr_t frame;
    int open;
} mm_async_span;

/* Of all contexts and threads; under the GIL. */
typedef struct {
    PyObject *variable; /* the context variable */
    uint64_t next_id;
    /* Spans of an earlier session (or of the parent process) are none of ours: their ids mean nothing here. */
    uint64_t epoch;
    char trace[33];
    /* When the session began, on both clocks. */
    struct {
        uint64_t ticks, ns;
    } began;
    /* The scope that was found last. A thread's context and its version tell whether it is still the one. */
    struct {
        uint64_t thread;
        uint64_t version;
        PyObject *context;
        mm_async_span *scope; /* not counted: the context holds it */
    } seen;
} mm_async_state;

extern mm_async_state mm_async;

/* What a new span has as its parent. */
typedef struct {
    uint64_t id;
    uint64_t depth;  /* of the new span */
    PyObject *trace; /* not counted */
} mm_parent;

/* ---- records ------------------------------------------------------------------------------------------------------------ */

typedef struct {
    mm_record head;
    uint64_t id, parent, depth;
} mm_async_event;

/* 0: it could not be recorded. */
int mm_async_record_named(const void *descriptor, PyObject *name, enum mm_kind kind, uint64_t id, uint64_t parent, uint64_t depth,
                          uint64_t age_ticks);
int mm_async_record_slowly(const void *descriptor, enum mm_kind kind, uint64_t id, uint64_t parent, uint64_t depth);

/* Where mm_is_ready said so. */
static inline void mm_async_record_at_once(mm_block *block, const void *descriptor, enum mm_kind kind, uint64_t id, uint64_t parent,
                                           uint64_t depth)
{
    mm_async_event *record = (mm_async_event *)block->cursor;
    mm_write_head_at_once(&record->head, mm_tagged(descriptor, kind));
    record->id = id;
    record->parent = parent;
    record->depth = depth;
    mm_commit_until(block, (uint8_t *)(record + 1));
}

static inline int mm_async_record(const void *descriptor, PyObject *name, enum mm_kind kind, uint64_t id, uint64_t parent, uint64_t depth)
{
    if (__builtin_expect(name != NULL, 0)) {
        return mm_async_record_named(descriptor, name, kind, id, parent, depth, 0);
    }
    if (!mm_is_ready(mm_current, sizeof(mm_async_event))) {
        return mm_async_record_slowly(descriptor, kind, id, parent, depth);
    }
    mm_async_record_at_once(mm_current, descriptor, kind, id, parent, depth);
    return 1;
}

/* ---- scopes ------------------------------------------------------------------------------------------------------------- */

static inline uint64_t depth_below(uint64_t id, uint64_t depth)
{
    return id ? depth + 1 : 0;
}

/* The innermost in a scope. In the context that a span was opened in, one that was closed from elsewhere does not count
 * any more; to a copy of that context it is still what it was created in. */
static inline mm_parent mm_async_innermost(const mm_async_span *scope, const PyObject *context)
{
    if (!scope || scope->epoch != mm_async.epoch) {
        return (mm_parent){0, 0, NULL};
    }
    int is_own = scope->context == context;
    while (is_own && !scope->open && !scope->top && scope->outer) {
        scope = scope->outer;
    }
    PyObject *trace = scope->trace;
    if (scope->top) {
        return (mm_parent){scope->top->id, scope->top->depth + 1, trace};
    }
    if (is_own && !scope->open) {
        return (mm_parent){0, 0, NULL};
    }
    return (mm_parent){scope->id, depth_below(scope->id, scope->depth), trace};
}

/* New reference, open; NULL with an exception set. */
mm_async_span *mm_async_span_new(const void *descriptor, PyObject *name, mm_async_span *outer, mm_parent parent);
/* Without memory the variable stays as it is: spans inside get the outer parent. */
void mm_async_make_current(mm_async_span *span);
void mm_async_make_not_current(mm_async_span *span);
/* The scope of the running context, not counted; NULL when it has none of its own. */
mm_async_span *mm_async_known_scope(PyThreadState *thread);
/* The same, which makes one when there is none. NULL without memory. */
mm_async_span *mm_async_find_scope(PyThreadState *thread);

static inline int mm_async_is_seen(const PyThreadState *thread)
{
    return __builtin_expect(mm_async.seen.thread == thread->id && mm_async.seen.version == thread->context_ver &&
                                mm_async.seen.context == thread->context, 1);
}

static inline mm_async_span *mm_async_scope_of(PyThreadState *thread)
{
    return mm_async_is_seen(thread) ? mm_async.seen.scope : mm_async_find_scope(thread);
}

/* Opens an async span below `given`, or below what is innermost, and makes it current. NULL with an exception set. */
mm_async_span *mm_async_span_begin(const void *descriptor, PyObject *name, const mm_parent *given);
/* `age` in ns as ticks of the clock: no event is older than the session. */
uint64_t mm_async_ticks_of_age(unsigned long long age_ns);
int mm_async_scope_init(void);

#pragma GCC visibility pop

#endif

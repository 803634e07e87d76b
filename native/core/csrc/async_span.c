/* Async spans: work that may pause and go on in another thread or beside other work, so begin and end carry an id.
 *
 * The innermost open span of a context is found in two steps. A context variable holds a *scope*: the async span that was
 * opened there by `async with` or `open_async` (precise, also for tasks created inside it, and dear: a context variable is
 * set). `with span:` in a coroutine is cheap: it only pushes onto the stack of its context's scope. A context that has no
 * scope of its own yet (a copy) gets one whose parent is what is innermost in the scope that it inherited.
 *
 * Blocks are ended by the frame that they stand in, so they end whatever context, task or thread leaves them.
 */
#include "recorder.h"

#include <stdlib.h>
#include <string.h>

#include "caller.h"

struct mm_async_span;

/* An open block: `with span:` in code that can be suspended. */
typedef struct mm_open {
    struct mm_open *previous, *next; /* among all that are open */
    struct mm_open *outer;           /* in the stack of the scope */
    struct mm_async_span *scope;     /* not counted; NULL once it is gone */
    uintptr_t frame;
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

static PyObject *current; /* context variable */
static uint64_t next_id = 1;
/* Spans of an earlier session (or of the parent process) are none of ours: their ids mean nothing here. */
static uint64_t epoch;
static char own_trace[33];

static mm_open open_blocks = {.previous = &open_blocks, .next = &open_blocks};
size_t mm_open_blocks;
static size_t open_in_generators;
static mm_open *free_blocks;
static mm_async_span open_spans = {.previous = &open_spans, .next = &open_spans};

/* When the session began, on both clocks. */
static struct {
    uint64_t ticks, ns;
} began;

/* The scope that was found last. A thread's context and its version tell whether it is still the one. */
static struct {
    uint64_t thread;
    uint64_t version;
    PyObject *context;
    mm_async_span *scope; /* not counted: the context holds it */
} seen;

void mm_async_ids_restart(uint64_t first, const char *trace)
{
    next_id = first;
    epoch++;
    memset(&seen, 0, sizeof seen);
    memcpy(own_trace, trace, 32);
    mm_clock_pair(&began.ticks, &began.ns);
}

/* ---- records ------------------------------------------------------------------------------------------------------------ */

static __attribute__((noinline)) int record_named(const void *descriptor, PyObject *name, enum mm_kind kind, uint64_t id,
                                                  uint64_t parent, uint64_t depth, uint64_t age_ticks)
{
    mm_value value;
    mm_value_measure(&value, name, 's'); /* an exact str: can't fail, runs no code */
    const size_t head = sizeof(mm_record) + 32;
    kind = kind == MM_ASYNC_BEGIN ? MM_ASYNC_NAMED_BEGIN : MM_ASYNC_NAMED_END;
    mm_block *block = mm_reserve(head + value.size, kind);
    if (!block) {
        return 0;
    }
    mm_write_head(block, descriptor, kind);
    ((mm_record *)block->cursor)->ticks -= age_ticks;
    uint64_t *words = (uint64_t *)(block->cursor + sizeof(mm_record));
    words[0] = head + value.size;
    words[1] = id;
    words[2] = parent;
    words[3] = depth;
    mm_value_write(&value, (uint8_t *)(words + 4));
    mm_commit(block, head + value.size);
    return 1;
}

typedef struct {
    mm_record head;
    uint64_t id, parent, depth;
} async_record;

static __attribute__((noinline)) int record_slowly(const void *descriptor, enum mm_kind kind, uint64_t id, uint64_t parent,
                                                   uint64_t depth)
{
    mm_block *block = mm_reserve(sizeof(async_record), kind);
    if (!block) {
        return 0;
    }
    mm_write_head(block, descriptor, kind);
    async_record *record = (async_record *)block->cursor;
    record->id = id;
    record->parent = parent;
    record->depth = depth;
    mm_commit(block, sizeof *record);
    return 1;
}

/* 0: it could not be recorded. */
static inline int record(const void *descriptor, PyObject *name, enum mm_kind kind, uint64_t id, uint64_t parent, uint64_t depth)
{
    if (__builtin_expect(name != NULL, 0)) {
        return record_named(descriptor, name, kind, id, parent, depth, 0);
    }
    mm_block *block = mm_current;
    if (!mm_is_ready(block, sizeof(async_record))) {
        return record_slowly(descriptor, kind, id, parent, depth);
    }
    async_record *record = (async_record *)block->cursor;
    mm_write_head_at_once(&record->head, mm_tagged(descriptor, kind));
    record->id = id;
    record->parent = parent;
    record->depth = depth;
    __atomic_store_n(&block->cursor, (uint8_t *)(record + 1), __ATOMIC_RELEASE);
    return 1;
}

/* ---- scopes ------------------------------------------------------------------------------------------------------------- */

/* What a new span has as its parent. */
typedef struct {
    uint64_t id;
    uint64_t depth;  /* of the new span */
    PyObject *trace; /* not counted */
} mm_parent;

static inline uint64_t depth_below(uint64_t id, uint64_t depth)
{
    return id ? depth + 1 : 0;
}

/* The innermost in a scope. In the context that a span was opened in, one that was closed from elsewhere does not count
 * any more; to a copy of that context it is still what it was created in. */
static mm_parent innermost(const mm_async_span *scope, const PyObject *context)
{
    if (!scope || scope->epoch != epoch) {
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

static mm_async_span *new_span(const void *descriptor, PyObject *name, mm_async_span *outer, mm_parent parent)
{
    mm_async_span *span = PyObject_GC_New(mm_async_span, &mm_AsyncSpanType);
    if (span) {
        memset((char *)span + sizeof(PyObject), 0, sizeof *span - sizeof(PyObject));
        span->descriptor = descriptor;
        span->name = Py_XNewRef(name);
        span->trace = Py_XNewRef(parent.trace);
        span->parent = parent.id;
        span->depth = parent.depth;
        span->epoch = epoch;
        span->outer = (mm_async_span *)Py_XNewRef(outer);
        span->open = 1;
        PyObject_GC_Track(span);
    }
    return span;
}

/* Without memory the variable stays as it is: spans inside get the outer parent. */
static void make_current(mm_async_span *span)
{
    Py_XSETREF(span->token, PyContextVar_Set(current, (PyObject *)span));
    if (!span->token) {
        PyErr_Clear();
    }
    span->context = mm_thread_state()->context;
    seen.thread = 0;
}

static void make_not_current(mm_async_span *span)
{
    if (span->token) {
        /* Fails when the span is closed in another context than it was opened in; that context is not ours to change. */
        if (PyContextVar_Reset(current, span->token) < 0) {
            PyErr_Clear();
        }
        Py_CLEAR(span->token);
        seen.thread = 0;
    }
}

/* The scope of the running context, not counted; makes one when there is none. NULL without memory. */
static __attribute__((noinline)) mm_async_span *find_scope(PyThreadState *thread)
{
    PyObject *held = NULL;
    if (PyContextVar_Get(current, NULL, &held) < 0) {
        PyErr_Clear();
        return NULL;
    }
    mm_async_span *scope = (mm_async_span *)held;
    if (!scope || scope->context != thread->context || scope->epoch != epoch) {
        mm_parent parent = innermost(scope, NULL);
        mm_async_span *own = new_span(NULL, NULL, NULL, parent);
        Py_XDECREF(held);
        if (!own) {
            PyErr_Clear();
            return NULL;
        }
        own->id = parent.id;
        own->depth = parent.id ? parent.depth - 1 : 0;
        make_current(own);
        Py_CLEAR(own->token); /* never to be reset */
        scope = own;
    }
    Py_DECREF(scope); /* the context holds it */
    if (thread->context != scope->context) {
        return NULL;
    }
    seen.thread = thread->id;
    seen.version = thread->context_ver;
    seen.context = thread->context;
    seen.scope = scope;
    return scope;
}

static inline mm_async_span *scope_of(PyThreadState *thread)
{
    if (__builtin_expect(seen.thread == thread->id && seen.version == thread->context_ver && seen.context == thread->context, 1)) {
        return seen.scope;
    }
    return find_scope(thread);
}

/* ---- with span: in code that can be suspended ------------------------------------------------------------------------------ */

static inline void end_block(mm_open *block)
{
    block->previous->next = block->next;
    block->next->previous = block->previous;
    if (block->epoch == epoch) {
        record(block->descriptor, block->name, MM_ASYNC_END, block->id, block->parent, block->depth);
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
    mm_async_span *scope = scope_of(thread);
    mm_open *block = free_blocks;
    if (__builtin_expect(block != NULL, 1)) {
        free_blocks = block->outer;
    }
    else if (!(block = malloc(sizeof *block))) {
        return;
    }
    mm_parent parent = {0, 0, NULL};
    if (__builtin_expect(scope != NULL, 1)) {
        parent = innermost(scope, scope->context);
    }
    uint64_t id = next_id++;
    if (!scope || !record(descriptor, name, MM_ASYNC_BEGIN, id, parent.id, parent.depth)) {
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
    block->epoch = epoch;
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
    if (seen.thread == thread->id && seen.version == thread->context_ver && seen.context == thread->context) {
        mm_async_span *scope = seen.scope;
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
    /* What a coroutine began while nothing was recorded has no end either. */
    return end_distant_block(descriptor, frame) || !in_generator;
}

/* ---- async with, open_async --------------------------------------------------------------------------------------------------- */

static mm_async_span *open_span(const void *descriptor, PyObject *name, const mm_parent *given)
{
    PyObject *held = NULL;
    if (PyContextVar_Get(current, NULL, &held) < 0) {
        return NULL;
    }
    mm_async_span *outer = (mm_async_span *)held;
    mm_parent parent = given ? *given : innermost(outer, mm_thread_state()->context);
    /* Those closed already are passed over: tasks that outlive their parents would keep an ever longer chain. */
    while (outer && !outer->open && !outer->top) {
        outer = outer->outer;
    }
    mm_async_span *span = new_span(descriptor, name, outer, parent);
    Py_XDECREF(held);
    if (span) {
        span->id = next_id++;
        record(descriptor, name, MM_ASYNC_BEGIN, span->id, span->parent, span->depth);
        make_current(span);
    }
    return span;
}

PyObject *mm_async_span_open(const void *descriptor, PyObject *name)
{
    return (PyObject *)open_span(descriptor, name, NULL);
}

static void close_span(mm_async_span *span)
{
    if (!span->open) {
        return;
    }
    span->open = 0;
    if (span->epoch == epoch) {
        record(span->descriptor, span->name, MM_ASYNC_END, span->id, span->parent, span->depth);
    }
    make_not_current(span);
    mm_async_span *outer = span->outer;
    while (outer && !outer->open && !outer->top) {
        outer = outer->outer;
    }
    Py_XSETREF(span->outer, (mm_async_span *)Py_XNewRef(outer));
    if (span->frame) {
        span->frame = 0;
        span->previous->next = span->next;
        span->next->previous = span->previous;
        Py_DECREF(span); /* the list's; the caller has one of its own */
    }
}

static PyObject *async_span_close(PyObject *self, PyObject *unused)
{
    (void)unused;
    close_span((mm_async_span *)self);
    Py_RETURN_NONE;
}

static PyObject *async_span_suspend(PyObject *self, PyObject *unused)
{
    (void)unused;
    make_not_current((mm_async_span *)self);
    Py_RETURN_NONE;
}

static PyObject *async_span_resume(PyObject *self, PyObject *unused)
{
    (void)unused;
    if (((mm_async_span *)self)->open) {
        make_current((mm_async_span *)self);
    }
    Py_RETURN_NONE;
}

static int async_span_traverse(PyObject *self, visitproc visit, void *arg)
{
    Py_VISIT(((mm_async_span *)self)->outer);
    Py_VISIT(((mm_async_span *)self)->token);
    return 0;
}

static int async_span_clear(PyObject *self)
{
    Py_CLEAR(((mm_async_span *)self)->outer);
    Py_CLEAR(((mm_async_span *)self)->token);
    return 0;
}

static void async_span_dealloc(PyObject *self)
{
    PyObject_GC_UnTrack(self);
    Py_TRASHCAN_BEGIN(self, async_span_dealloc) /* spans never closed make a chain of any length */
    if (seen.scope == (mm_async_span *)self) {
        memset(&seen, 0, sizeof seen);
    }
    for (mm_open *block = ((mm_async_span *)self)->top; block; block = block->outer) {
        block->scope = NULL; /* its context has died before it */
    }
    async_span_clear(self);
    Py_CLEAR(((mm_async_span *)self)->name);
    Py_CLEAR(((mm_async_span *)self)->trace);
    PyObject_GC_Del(self);
    Py_TRASHCAN_END
}

static PyObject *async_span_close_as(PyObject *self, PyObject *args);

static PyMethodDef async_span_methods[] = {
    {"close_as", async_span_close_as, METH_VARARGS, "(name, age, /): record the end under this name, `age` ns ago"},
    {"close", async_span_close, METH_NOARGS, "(): record the end; closing twice does nothing"},
    {"suspend", async_span_suspend, METH_NOARGS, "(): no longer the current span of this context (a generator yields)"},
    {"resume", async_span_resume, METH_NOARGS, "(): the current span of this context again"},
    {NULL, NULL, 0, NULL},
};

static PyObject *async_span_get_id(PyObject *self, void *unused)
{
    (void)unused;
    return PyLong_FromUnsignedLongLong(((mm_async_span *)self)->id);
}

static PyObject *async_span_get_depth(PyObject *self, void *unused)
{
    (void)unused;
    return PyLong_FromUnsignedLongLong(((mm_async_span *)self)->depth);
}

static PyGetSetDef async_span_getset[] = {
    {"id", async_span_get_id, NULL, "As in SQL's span_id.", NULL},
    {"depth", async_span_get_depth, NULL, "0 without a parent in this process.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

PyTypeObject mm_AsyncSpanType = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "micromegas._core.AsyncSpan",
    .tp_doc = "A begun async span.",
    .tp_basicsize = sizeof(mm_async_span),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .tp_dealloc = async_span_dealloc,
    .tp_traverse = async_span_traverse,
    .tp_clear = async_span_clear,
    .tp_methods = async_span_methods,
    .tp_getset = async_span_getset,
};

/* An awaitable that is done already: entering and leaving a span never waits. */
typedef struct {
    PyObject_HEAD
    PyObject *value; /* NULL is None */
} mm_done;

static PyTypeObject done_type;

static PyObject *done_new(PyObject *value)
{
    mm_done *done = PyObject_New(mm_done, &done_type);
    if (done) {
        done->value = Py_XNewRef(value);
    }
    return (PyObject *)done;
}

static PyObject *done_next(PyObject *self)
{
    if (((mm_done *)self)->value) {
        PyErr_SetObject(PyExc_StopIteration, ((mm_done *)self)->value);
    }
    return NULL;
}

static void done_dealloc(PyObject *self)
{
    Py_XDECREF(((mm_done *)self)->value);
    PyObject_Free(self);
}

static PyAsyncMethods done_async = {.am_await = PyObject_SelfIter};

static PyTypeObject done_type = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "micromegas._core._Done",
    .tp_basicsize = sizeof(mm_done),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .tp_as_async = &done_async,
    .tp_iter = PyObject_SelfIter,
    .tp_iternext = done_next,
    .tp_dealloc = done_dealloc,
};

/* The frame of the `async with`, or what stands for the frames of all AsyncExitStacks. */
static uintptr_t caller_of_async_with(void)
{
    uintptr_t frame = mm_suspendable_frame(mm_thread_state());
    return frame ? frame : MM_NO_FRAME;
}

PyObject *mm_async_span_enter(PyObject *self, const void *descriptor, PyObject *name)
{
    mm_async_span *span = open_span(descriptor, name, NULL);
    if (!span) {
        return NULL;
    }
    span->frame = caller_of_async_with();
    span->next = open_spans.next;
    span->previous = &open_spans;
    open_spans.next->previous = span;
    open_spans.next = span; /* with our reference */
    return done_new(self);
}

static mm_async_span *opened_by(uintptr_t frame, const void *descriptor)
{
    for (mm_async_span *span = open_spans.next; span != &open_spans; span = span->next) {
        if (span->frame == frame && span->descriptor == descriptor) {
            return span;
        }
    }
    return NULL;
}

PyObject *mm_async_span_leave(const void *descriptor)
{
    uintptr_t frame = caller_of_async_with();
    PyObject *held = NULL;
    if (PyContextVar_Get(current, NULL, &held) < 0) {
        return NULL;
    }
    /* Spans opened inside and never closed lie in between. */
    mm_async_span *span = (mm_async_span *)held;
    while (span && !(span->open && span->frame == frame && span->descriptor == descriptor)) {
        span = span->outer;
    }
    if (!span) {
        span = opened_by(frame, descriptor); /* in another context */
    }
    if (!span) {
        /* An AsyncExitStack enters and leaves in frames of its own. */
        span = (mm_async_span *)held;
        while (span && !(span->open && span->frame && span->descriptor == descriptor)) {
            span = span->outer;
        }
    }
    if (span) {
        Py_INCREF(span);
        close_span(span);
        Py_DECREF(span);
    }
    Py_XDECREF(held);
    return done_new(NULL);
}

/* ---- W3C trace context -------------------------------------------------------------------------------------------------- */

/* () -> (trace id, span id) of what is innermost in this context, or None. */
PyObject *mm_trace_context(PyObject *module, PyObject *unused)
{
    (void)module;
    (void)unused;
    PyObject *held = NULL;
    if (PyContextVar_Get(current, NULL, &held) < 0) {
        return NULL;
    }
    mm_parent parent = innermost((mm_async_span *)held, mm_thread_state()->context);
    PyObject *pair = Py_None;
    if (parent.id) {
        pair = parent.trace ? Py_BuildValue("(OK)", parent.trace, (unsigned long long)parent.id)
                            : Py_BuildValue("(sK)", own_trace, (unsigned long long)parent.id);
    }
    else {
        Py_INCREF(pair);
    }
    Py_XDECREF(held);
    return pair;
}

/* (span, trace id, remote span id): opens an async span named by the trace, with a parent of another process. */
PyObject *mm_adopt_trace(PyObject *module, PyObject *args)
{
    (void)module;
    PyObject *span, *trace;
    unsigned long long remote;
    if (!PyArg_ParseTuple(args, "O!UK", &mm_SpanType, &span, &trace, &remote)) {
        return NULL;
    }
    mm_parent parent = {remote, 0, trace};
    return (PyObject *)open_span(mm_span_descriptor(span), trace, &parent);
}

/* ---- spans of the OpenTelemetry API: told their parent, current only where the API says so ------------------------- */

/* In no context are these the ones that were opened there, so an ended one is still the parent of what begins below it. */
static PyObject *const NO_CONTEXT = (PyObject *)&began;

/* No event is older than the session. */
static uint64_t ticks_of_age(unsigned long long age_ns)
{
    uint64_t ticks, ns;
    if (!age_ns) {
        return 0;
    }
    mm_clock_pair(&ticks, &ns);
    uint64_t elapsed_ns = ns - began.ns;
    if (!elapsed_ns || age_ns >= elapsed_ns) {
        return ticks - began.ticks;
    }
    return (uint64_t)((double)(ticks - began.ticks) * ((double)age_ns / (double)elapsed_ns));
}

/* (span, name, trace id, parent span id, depth, age in ns): begins one that is not current. None while nothing is recorded. */
PyObject *mm_open_span(PyObject *module, PyObject *args)
{
    (void)module;
    PyObject *place, *name, *trace;
    unsigned long long parent_id, depth, age_ns;
    if (!PyArg_ParseTuple(args, "O!UUKKK", &mm_SpanType, &place, &name, &trace, &parent_id, &depth, &age_ns)) {
        return NULL;
    }
    if (mm_recording == MM_OFF) {
        Py_RETURN_NONE;
    }
    mm_parent parent = {parent_id, depth, trace};
    mm_async_span *span = new_span(mm_span_descriptor(place), name, NULL, parent);
    if (span) {
        span->id = next_id++;
        span->context = NO_CONTEXT;
        record_named(span->descriptor, name, MM_ASYNC_BEGIN, span->id, span->parent, span->depth, ticks_of_age(age_ns));
    }
    return (PyObject *)span;
}

static PyObject *async_span_close_as(PyObject *self, PyObject *args)
{
    mm_async_span *span = (mm_async_span *)self;
    PyObject *name;
    unsigned long long age_ns;
    if (!PyArg_ParseTuple(args, "UK", &name, &age_ns)) {
        return NULL;
    }
    if (span->open) {
        span->open = 0;
        if (span->epoch == epoch && mm_recording != MM_OFF) {
            record_named(span->descriptor, name, MM_ASYNC_END, span->id, span->parent, span->depth, ticks_of_age(age_ns));
        }
    }
    Py_RETURN_NONE;
}

/* (trace id, span id): stands for a span of another process; leaves no event. */
PyObject *mm_remote_span(PyObject *module, PyObject *args)
{
    (void)module;
    PyObject *trace;
    unsigned long long id;
    if (!PyArg_ParseTuple(args, "UK", &trace, &id)) {
        return NULL;
    }
    mm_async_span *span = new_span(NULL, NULL, NULL, (mm_parent){0, 0, trace});
    if (span) {
        span->id = id;
        span->depth = UINT64_MAX; /* what is below it is outermost here */
        span->context = NO_CONTEXT;
    }
    return (PyObject *)span;
}

/* () -> (trace id, span id, depth) for a span that begins here, or None: it has no parent. */
PyObject *mm_async_parent(PyObject *module, PyObject *unused)
{
    (void)module;
    (void)unused;
    PyObject *held = NULL;
    if (PyContextVar_Get(current, NULL, &held) < 0) {
        return NULL;
    }
    mm_parent parent = innermost((mm_async_span *)held, mm_thread_state()->context);
    PyObject *result = Py_None;
    if (!parent.id) {
        Py_INCREF(result);
    }
    else if (parent.trace) {
        result = Py_BuildValue("(OKK)", parent.trace, (unsigned long long)parent.id, (unsigned long long)parent.depth);
    }
    else {
        result = Py_BuildValue("(sKK)", own_trace, (unsigned long long)parent.id, (unsigned long long)parent.depth);
    }
    Py_XDECREF(held);
    return result;
}

PyObject *mm_async_span_variable(void)
{
    return current;
}

int mm_async_span_init(void)
{
    current = PyContextVar_New("micromegas_async_span", NULL);
    memset(own_trace, '0', 32);
    epoch = 1;
    return current && PyType_Ready(&done_type) == 0 ? 0 : -1;
}

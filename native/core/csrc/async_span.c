/* Async spans: work that may pause and go on in another thread or beside other work, so begin and end carry an id.
 * `async with span:`, and spans opened and closed by hand. `with span:` in a coroutine: see async_block.c.
 */
#include "async_scope.h"

#include <string.h>

/* Those of `async with` that are open. */
static mm_async_span open_spans = {.previous = &open_spans, .next = &open_spans};

mm_async_span *mm_async_span_begin(const void *descriptor, PyObject *name, const mm_parent *given)
{
    PyObject *held = NULL;
    if (PyContextVar_Get(mm_async.variable, NULL, &held) < 0) {
        return NULL;
    }
    mm_async_span *outer = (mm_async_span *)held;
    mm_parent parent = given ? *given : mm_async_innermost(outer, mm_thread_state()->context);
    /* Those closed already are passed over: tasks that outlive their parents would keep an ever longer chain. */
    while (outer && !outer->open && !outer->top) {
        outer = outer->outer;
    }
    mm_async_span *span = mm_async_span_new(descriptor, name, outer, parent);
    Py_XDECREF(held);
    if (span) {
        span->id = mm_async.next_id++;
        mm_async_record(descriptor, name, MM_ASYNC_BEGIN, span->id, span->parent, span->depth);
        mm_async_make_current(span);
    }
    return span;
}

PyObject *mm_async_span_open(const void *descriptor, PyObject *name)
{
    return (PyObject *)mm_async_span_begin(descriptor, name, NULL);
}

static void close_span(mm_async_span *span)
{
    if (!span->open) {
        return;
    }
    span->open = 0;
    if (span->epoch == mm_async.epoch) {
        mm_async_record(span->descriptor, span->name, MM_ASYNC_END, span->id, span->parent, span->depth);
    }
    mm_async_make_not_current(span);
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
        if (span->epoch == mm_async.epoch && mm_recording != MM_OFF) {
            mm_async_record_named(span->descriptor, name, MM_ASYNC_END, span->id, span->parent, span->depth, mm_async_ticks_of_age(age_ns));
        }
    }
    Py_RETURN_NONE;
}

static PyObject *async_span_suspend(PyObject *self, PyObject *unused)
{
    (void)unused;
    mm_async_make_not_current((mm_async_span *)self);
    Py_RETURN_NONE;
}

static PyObject *async_span_resume(PyObject *self, PyObject *unused)
{
    (void)unused;
    if (((mm_async_span *)self)->open) {
        mm_async_make_current((mm_async_span *)self);
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
    if (mm_async.seen.scope == (mm_async_span *)self) {
        memset(&mm_async.seen, 0, sizeof mm_async.seen);
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
    mm_async_span *span = mm_async_span_begin(descriptor, name, NULL);
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
    if (PyContextVar_Get(mm_async.variable, NULL, &held) < 0) {
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

int mm_async_span_init(void)
{
    return mm_async_scope_init() < 0 || PyType_Ready(&done_type) < 0 ? -1 : 0;
}

/* Async spans: work that may pause and go on in another thread or beside other work, so begin and end carry an id.
 *
 * The current async span of a context is kept in a context variable; a new one takes it as its parent.
 */
#include "recorder.h"

#include <string.h>

typedef struct mm_async_span {
    PyObject_HEAD
    const void *descriptor;
    uint64_t id; /* 0 is "none" */
    uint64_t parent;
    uint64_t depth;
    struct mm_async_span *outer; /* while open: the one that was current before */
    PyObject *token;             /* while current */
    int open;
} mm_async_span;

static PyObject *current; /* context variable */
static uint64_t next_id = 1;

void mm_async_ids_restart(void)
{
    next_id = 1;
}

static void record(mm_async_span *span, enum mm_kind kind)
{
    const size_t size = sizeof(mm_record) + 24;
    mm_block *block = mm_reserve(size, kind);
    if (block) {
        mm_write_head(block, span->descriptor, kind);
        uint64_t *words = (uint64_t *)(block->cursor + sizeof(mm_record));
        words[0] = span->id;
        words[1] = span->parent;
        words[2] = span->depth;
        mm_commit(block, size);
    }
}

static void make_current(mm_async_span *span)
{
    Py_XSETREF(span->token, PyContextVar_Set(current, (PyObject *)span));
    if (!span->token) {
        PyErr_Clear(); /* out of memory: children get the outer parent */
    }
}

static void make_not_current(mm_async_span *span)
{
    if (span->token) {
        /* Fails when the span is closed in another context than it was opened in; that context is not ours to change. */
        if (PyContextVar_Reset(current, span->token) < 0) {
            PyErr_Clear();
        }
        Py_CLEAR(span->token);
    }
}

PyObject *mm_async_span_open(PyObject *span, PyObject *unused)
{
    (void)unused;
    PyObject *outer = NULL;
    if (PyContextVar_Get(current, NULL, &outer) < 0) {
        return NULL;
    }
    mm_async_span *async_span = PyObject_GC_New(mm_async_span, &mm_AsyncSpanType);
    if (!async_span) {
        Py_XDECREF(outer);
        return NULL;
    }
    async_span->descriptor = mm_span_descriptor(span);
    async_span->id = next_id++;
    async_span->outer = (mm_async_span *)outer;
    async_span->parent = outer ? async_span->outer->id : 0;
    async_span->depth = outer ? async_span->outer->depth + 1 : 0;
    async_span->token = NULL;
    async_span->open = 1;
    PyObject_GC_Track(async_span);
    record(async_span, MM_ASYNC_BEGIN);
    make_current(async_span);
    return (PyObject *)async_span;
}

static void close_span(mm_async_span *span)
{
    if (span->open) {
        span->open = 0;
        record(span, MM_ASYNC_END);
        make_not_current(span);
        Py_CLEAR(span->outer); /* tasks that outlive their parents would otherwise keep an ever longer chain */
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
    async_span_clear(self);
    PyObject_GC_Del(self);
    Py_TRASHCAN_END
}

static PyMethodDef async_span_methods[] = {
    {"close", async_span_close, METH_NOARGS, "(): record the end; closing twice does nothing"},
    {"suspend", async_span_suspend, METH_NOARGS, "(): no longer the current span of this context (a generator yields)"},
    {"resume", async_span_resume, METH_NOARGS, "(): the current span of this context again"},
    {NULL, NULL, 0, NULL},
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
};

/* ---- async with ------------------------------------------------------------------------------------------------------------ */

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

PyObject *mm_async_span_enter(PyObject *span, PyObject *unused)
{
    PyObject *opened = mm_async_span_open(span, unused);
    if (!opened) {
        return NULL;
    }
    Py_DECREF(opened); /* the context variable holds it */
    return done_new(span);
}

PyObject *mm_async_span_exit(PyObject *span, PyObject *const *args, Py_ssize_t count)
{
    (void)args;
    (void)count;
    PyObject *innermost = NULL;
    if (PyContextVar_Get(current, NULL, &innermost) < 0) {
        return NULL;
    }
    /* Spans opened inside and never closed lie in between. */
    mm_async_span *candidate = (mm_async_span *)innermost;
    while (candidate && !(candidate->open && candidate->descriptor == mm_span_descriptor(span))) {
        candidate = candidate->outer;
    }
    if (candidate) {
        Py_INCREF(candidate);
        close_span(candidate);
        Py_DECREF(candidate);
    }
    Py_XDECREF(innermost);
    return done_new(NULL);
}

int mm_async_span_init(void)
{
    current = PyContextVar_New("micromegas_async_span", NULL);
    return current && PyType_Ready(&done_type) == 0 ? 0 : -1;
}

/* See async_scope.h. */
#include "async_scope.h"

#include <string.h>

mm_async_state mm_async = {.next_id = 1};

void mm_async_ids_restart(uint64_t first, const char *trace)
{
    mm_async.next_id = first;
    mm_async.epoch++;
    memset(&mm_async.seen, 0, sizeof mm_async.seen);
    memcpy(mm_async.trace, trace, 32);
    mm_clock_pair(&mm_async.began.ticks, &mm_async.began.ns);
}

/* ---- records ------------------------------------------------------------------------------------------------------------ */

int mm_async_record_named(const void *descriptor, PyObject *name, enum mm_kind kind, uint64_t id, uint64_t parent, uint64_t depth,
                          uint64_t age_ticks)
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

int mm_async_record_slowly(const void *descriptor, enum mm_kind kind, uint64_t id, uint64_t parent, uint64_t depth)
{
    mm_block *block = mm_reserve(sizeof(mm_async_event), kind);
    if (!block) {
        return 0;
    }
    mm_write_head(block, descriptor, kind);
    mm_async_event *record = (mm_async_event *)block->cursor;
    record->id = id;
    record->parent = parent;
    record->depth = depth;
    mm_commit(block, sizeof *record);
    return 1;
}

/* ---- scopes ------------------------------------------------------------------------------------------------------------- */

mm_async_span *mm_async_span_new(const void *descriptor, PyObject *name, mm_async_span *outer, mm_parent parent)
{
    mm_async_span *span = PyObject_GC_New(mm_async_span, &mm_AsyncSpanType);
    if (span) {
        memset((char *)span + sizeof(PyObject), 0, sizeof *span - sizeof(PyObject));
        span->descriptor = descriptor;
        span->name = Py_XNewRef(name);
        span->trace = Py_XNewRef(parent.trace);
        span->parent = parent.id;
        span->depth = parent.depth;
        span->epoch = mm_async.epoch;
        span->outer = (mm_async_span *)Py_XNewRef(outer);
        span->open = 1;
        PyObject_GC_Track(span);
    }
    return span;
}

void mm_async_make_current(mm_async_span *span)
{
    Py_XSETREF(span->token, PyContextVar_Set(mm_async.variable, (PyObject *)span));
    if (!span->token) {
        PyErr_Clear();
    }
    span->context = mm_thread_state()->context;
    mm_async.seen.thread = 0;
}

void mm_async_make_not_current(mm_async_span *span)
{
    if (span->token) {
        /* Fails when the span is closed in another context than it was opened in; that context is not ours to change. */
        if (PyContextVar_Reset(mm_async.variable, span->token) < 0) {
            PyErr_Clear();
        }
        Py_CLEAR(span->token);
        mm_async.seen.thread = 0;
    }
}

static mm_async_span *seen(PyThreadState *thread, mm_async_span *scope)
{
    mm_async.seen.thread = thread->id;
    mm_async.seen.version = thread->context_ver;
    mm_async.seen.context = thread->context;
    mm_async.seen.scope = scope;
    return scope;
}

static int is_own(const PyThreadState *thread, const mm_async_span *scope)
{
    return scope && scope->context == thread->context && scope->epoch == mm_async.epoch;
}

/* New reference to what the context variable holds, or NULL. */
static mm_async_span *held_scope(void)
{
    PyObject *held = NULL;
    if (PyContextVar_Get(mm_async.variable, NULL, &held) < 0) {
        PyErr_Clear();
    }
    return (mm_async_span *)held;
}

mm_async_span *mm_async_known_scope(PyThreadState *thread)
{
    mm_async_span *scope = held_scope();
    Py_XDECREF(scope); /* the context holds it */
    return is_own(thread, scope) ? seen(thread, scope) : NULL;
}

mm_async_span *mm_async_find_scope(PyThreadState *thread)
{
    mm_async_span *scope = held_scope();
    if (!is_own(thread, scope)) {
        mm_parent parent = mm_async_innermost(scope, NULL);
        mm_async_span *own = mm_async_span_new(NULL, NULL, NULL, parent);
        Py_XDECREF(scope);
        if (!own) {
            PyErr_Clear();
            return NULL;
        }
        own->id = parent.id;
        own->depth = parent.id ? parent.depth - 1 : 0;
        mm_async_make_current(own);
        Py_CLEAR(own->token); /* never to be reset */
        scope = own;
    }
    Py_DECREF(scope); /* the context holds it */
    return is_own(thread, scope) ? seen(thread, scope) : NULL;
}

uint64_t mm_async_ticks_of_age(unsigned long long age_ns)
{
    uint64_t ticks, ns;
    if (!age_ns) {
        return 0;
    }
    mm_clock_pair(&ticks, &ns);
    uint64_t elapsed_ns = ns - mm_async.began.ns;
    if (!elapsed_ns || age_ns >= elapsed_ns) {
        return ticks - mm_async.began.ticks;
    }
    return (uint64_t)((double)(ticks - mm_async.began.ticks) * ((double)age_ns / (double)elapsed_ns));
}

PyObject *mm_async_span_variable(void)
{
    return mm_async.variable;
}

int mm_async_scope_init(void)
{
    mm_async.variable = PyContextVar_New("micromegas_async_span", NULL);
    memset(mm_async.trace, '0', 32);
    mm_async.epoch = 1;
    return mm_async.variable ? 0 : -1;
}

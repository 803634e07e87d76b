/* Spans across processes and other interfaces: W3C trace context, and the spans of the OpenTelemetry API, which are told their
 * parent and are current only where the API says so.
 */
#include "async_scope.h"

/* (trace id, span id), or with the depth of a span that begins below, of what is innermost in this context; None: nothing is. */
static PyObject *innermost_here(int with_depth)
{
    PyObject *held = NULL;
    if (PyContextVar_Get(mm_async.variable, NULL, &held) < 0) {
        return NULL;
    }
    mm_parent parent = mm_async_innermost((mm_async_span *)held, mm_thread_state()->context);
    PyObject *found = NULL;
    if (!parent.id) {
        found = Py_NewRef(Py_None);
    }
    else {
        PyObject *trace = parent.trace ? Py_NewRef(parent.trace) : PyUnicode_FromString(mm_async.trace);
        unsigned long long id = parent.id, depth = parent.depth;
        found = with_depth ? Py_BuildValue("(NKK)", trace, id, depth) : Py_BuildValue("(NK)", trace, id);
    }
    Py_XDECREF(held);
    return found;
}

/* () -> (trace id, span id) of what is innermost in this context, or None. */
PyObject *mm_trace_context(PyObject *module, PyObject *unused)
{
    (void)module;
    (void)unused;
    return innermost_here(0);
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
    return (PyObject *)mm_async_span_begin(mm_span_descriptor(span), trace, &parent);
}

/* ---- spans of the OpenTelemetry API: told their parent, current only where the API says so ------------------------- */

/* In no context are these the ones that were opened there, so an ended one is still the parent of what begins below it. */
static PyObject *const NO_CONTEXT = (PyObject *)&mm_async.began;

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
    mm_async_span *span = mm_async_span_new(mm_span_descriptor(place), name, NULL, parent);
    if (span) {
        span->id = mm_async.next_id++;
        span->context = NO_CONTEXT;
        mm_async_record_named(span->descriptor, name, MM_ASYNC_BEGIN, span->id, span->parent, span->depth, mm_async_ticks_of_age(age_ns));
    }
    return (PyObject *)span;
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
    mm_async_span *span = mm_async_span_new(NULL, NULL, NULL, (mm_parent){0, 0, trace});
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
    return innermost_here(1);
}

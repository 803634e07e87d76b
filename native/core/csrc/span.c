/* Spans: `with span:` leaves a begin and an end in the buffer of its thread.
 *
 * A span object has no state (the nesting is rebuilt by the readers), so one object serves recursion and all threads.
 * Spans are never freed. Must not be used around an `await`: that is what `async with span:` is for.
 */
#include "recorder.h"

#include "caller.h"

/* Up to 3.13 `with` makes two bound methods per block; a descriptor that gives out prebuilt ones saves both.
 * From 3.14 the interpreter calls ordinary methods without binding them, which is cheaper still. */
#define MM_PREBOUND (PY_VERSION_HEX < 0x030E0000)

struct mm_span;

typedef struct {
    PyObject_HEAD
    vectorcallfunc call;
    struct mm_span *span; /* not counted: spans are immortal */
} mm_bound;

typedef struct mm_span {
    PyObject_HEAD
    const void *descriptor;
    PyObject *name;
#if MM_PREBOUND
    mm_bound *enter;
    mm_bound *leave;
#endif
} mm_span;

static PyObject *spans;    /* descriptor address -> span */
static PyObject *overflow; /* stands for all spans beyond the cap */

const void *mm_span_descriptor(PyObject *span)
{
    return ((mm_span *)span)->descriptor;
}

#if MM_PREBOUND
static PyObject *call_enter(PyObject *self, PyObject *const *args, size_t count, PyObject *names)
{
    (void)args;
    (void)count;
    (void)names;
    mm_span *span = ((mm_bound *)self)->span;
    mm_emit(span->descriptor, MM_SPAN_BEGIN);
    return Py_NewRef(span);
}

static PyObject *call_leave(PyObject *self, PyObject *const *args, size_t count, PyObject *names)
{
    (void)args;
    (void)count;
    (void)names;
    mm_emit(((mm_bound *)self)->span->descriptor, MM_SPAN_END);
    Py_RETURN_NONE;
}

static PyTypeObject bound_type = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "micromegas._core._SpanMethod",
    .tp_basicsize = sizeof(mm_bound),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_VECTORCALL | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .tp_vectorcall_offset = offsetof(mm_bound, call),
    .tp_call = PyVectorcall_Call,
};

static mm_bound *new_bound(mm_span *span, vectorcallfunc call)
{
    mm_bound *bound = PyObject_New(mm_bound, &bound_type);
    if (bound) {
        bound->call = call;
        bound->span = span;
    }
    return bound;
}

/* The class attributes __enter__ and __exit__. */
typedef struct {
    PyObject_HEAD
    int leaves;
} mm_binder;

static PyObject *binder_get(PyObject *self, PyObject *object, PyObject *type)
{
    (void)type;
    if (!object || !Py_IS_TYPE(object, &mm_SpanType)) {
        return Py_NewRef(self);
    }
    mm_span *span = (mm_span *)object;
    return Py_NewRef(((mm_binder *)self)->leaves ? span->leave : span->enter);
}

/* contextlib.ExitStack calls type(span).__enter__(span). */
static PyObject *binder_call(PyObject *self, PyObject *args, PyObject *keywords)
{
    (void)keywords;
    if (PyTuple_GET_SIZE(args) < 1 || !Py_IS_TYPE(PyTuple_GET_ITEM(args, 0), &mm_SpanType)) {
        PyErr_SetString(PyExc_TypeError, "span: __enter__ and __exit__ need a span");
        return NULL;
    }
    PyObject *bound = binder_get(self, PyTuple_GET_ITEM(args, 0), NULL);
    PyObject *result = PyObject_CallNoArgs(bound);
    Py_DECREF(bound);
    return result;
}

static PyTypeObject binder_type = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "micromegas._core._SpanBinder",
    .tp_basicsize = sizeof(mm_binder),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .tp_descr_get = binder_get,
    .tp_call = binder_call,
};

static int add_binder(const char *name, int leaves)
{
    mm_binder *binder = PyObject_New(mm_binder, &binder_type);
    if (!binder) {
        return -1;
    }
    binder->leaves = leaves;
    int status = PyDict_SetItemString(mm_SpanType.tp_dict, name, (PyObject *)binder);
    Py_DECREF(binder);
    return status;
}
#else
static PyObject *span_enter(PyObject *self, PyObject *unused)
{
    (void)unused;
    mm_emit(((mm_span *)self)->descriptor, MM_SPAN_BEGIN);
    return Py_NewRef(self);
}

static PyObject *span_exit(PyObject *self, PyObject *const *args, Py_ssize_t count)
{
    (void)args;
    (void)count;
    mm_emit(((mm_span *)self)->descriptor, MM_SPAN_END);
    Py_RETURN_NONE;
}
#endif

static PyObject *span_begin(PyObject *self, PyObject *unused)
{
    (void)unused;
    mm_emit(((mm_span *)self)->descriptor, MM_SPAN_BEGIN);
    Py_RETURN_NONE;
}

static PyObject *span_end(PyObject *self, PyObject *unused)
{
    (void)unused;
    mm_emit(((mm_span *)self)->descriptor, MM_SPAN_END);
    Py_RETURN_NONE;
}

static PyObject *span_repr(PyObject *self)
{
    return PyUnicode_FromFormat("<span %R>", ((mm_span *)self)->name);
}

static PyMethodDef span_methods[] = {
#if !MM_PREBOUND
    {"__enter__", span_enter, METH_NOARGS, NULL},
    {"__exit__", (PyCFunction)(void (*)(void))span_exit, METH_FASTCALL, NULL},
#endif
    {"begin", span_begin, METH_NOARGS, "(): record the begin; an end() in the same thread must follow"},
    {"end", span_end, METH_NOARGS, "(): record the end"},
    {"open_async", mm_async_span_open, METH_NOARGS, "(): begin an async span and make it the current one of this context"},
    {"__aenter__", mm_async_span_enter, METH_NOARGS, NULL},
    {"__aexit__", (PyCFunction)(void (*)(void))mm_async_span_exit, METH_FASTCALL, NULL},
    {NULL, NULL, 0, NULL},
};

PyTypeObject mm_SpanType = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "micromegas._core.Span",
    .tp_doc = "A named piece of work: use `with span:` or, around awaits, `async with span:`.",
    .tp_basicsize = sizeof(mm_span),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .tp_repr = span_repr,
    .tp_methods = span_methods,
};

/* ---- making ---------------------------------------------------------------------------------------------------------------- */

static PyObject *span_for(const void *descriptor, PyObject *name)
{
    PyObject *key = PyLong_FromVoidPtr((void *)descriptor);
    if (!key) {
        return NULL;
    }
    PyObject *known = PyDict_GetItemWithError(spans, key);
    if (known || PyErr_Occurred()) {
        Py_DECREF(key);
        return Py_XNewRef(known);
    }
    mm_span *span = PyObject_New(mm_span, &mm_SpanType);
    if (span) {
        span->descriptor = descriptor;
        span->name = Py_NewRef(name);
#if MM_PREBOUND
        span->enter = new_bound(span, call_enter);
        span->leave = new_bound(span, call_leave);
        if (!span->enter || !span->leave) {
            Py_DECREF(key);
            return NULL; /* out of memory; what was made is left behind */
        }
#endif
        /* The dictionary's reference makes the span immortal. */
        if (PyDict_SetItem(spans, key, (PyObject *)span) < 0) {
            Py_CLEAR(span);
        }
    }
    Py_DECREF(key);
    return (PyObject *)span;
}

PyObject *mm_span_new(PyObject *name, const mm_place *place)
{
    PyObject *name_utf8 = mm_utf8(name);
    const void *descriptor =
        name_utf8 ? mm_describe_span(mm_text_of(name_utf8), mm_text_of(place->target), mm_text_of(place->file), place->line)
                  : NULL;
    Py_XDECREF(name_utf8);
    return descriptor ? span_for(descriptor, name) : Py_NewRef(overflow);
}

/* A name that is not a str; NULL with an exception set. */
static PyObject *name_of(PyObject *object)
{
    PyObject *name = PyObject_Str(object);
    if (!name) {
        if (mm_swallow_error() < 0) {
            return NULL;
        }
        name = PyUnicode_FromFormat("<unprintable %.200s object>", Py_TYPE(object)->tp_name);
    }
    return name;
}

static __attribute__((noinline)) PyObject *span_at_new_site(uintptr_t key, mm_site *site, PyObject *given)
{
    PyObject *name = PyUnicode_Check(given) ? Py_NewRef(given) : name_of(given);
    if (!name) {
        return NULL;
    }
    mm_place place;
    mm_place_of_caller(&place);
    PyObject *span = mm_span_new(name, &place);
    if (span && !site && PyUnicode_CheckExact(given)) {
        site = mm_site_add(key, given, place.code);
        if (site) {
            site->span = Py_NewRef(span);
        }
    }
    mm_place_clear(&place);
    Py_DECREF(name);
    return span;
}

PyObject *mm_span_function(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    (void)module;
    if (__builtin_expect(count != 1, 0)) {
        PyErr_Format(PyExc_TypeError, "span() takes exactly one argument (%zd given)", count);
        return NULL;
    }
    uintptr_t key = mm_site_key(0);
    mm_site *site = mm_site_find(key);
    if (__builtin_expect(site && site->text == args[0], 1)) {
        return Py_NewRef(site->span);
    }
    return span_at_new_site(key, site, args[0]);
}

/* (name, target, file, line): the last three as for a metric. */
PyObject *mm_make_span(PyObject *module, PyObject *args)
{
    (void)module;
    PyObject *name;
    mm_place place = {0};
    if (!PyArg_ParseTuple(args, "USSI", &name, &place.target, &place.file, &place.line)) {
        return NULL;
    }
    return mm_span_new(name, &place);
}

int mm_span_init(void)
{
    spans = PyDict_New();
    if (!spans) {
        return -1;
    }
#if MM_PREBOUND
    if (PyType_Ready(&bound_type) < 0 || PyType_Ready(&binder_type) < 0 || add_binder("__enter__", 0) < 0 ||
        add_binder("__exit__", 1) < 0) {
        return -1;
    }
    PyType_Modified(&mm_SpanType);
#endif
    static const char name[] = "(span beyond the limit of descriptions)";
    const void *descriptor = mm_describe_span((mm_text){name, sizeof name - 1}, (mm_text){"", 0}, (mm_text){"", 0}, 0);
    PyObject *text = PyUnicode_FromString(name);
    overflow = descriptor && text ? span_for(descriptor, text) : NULL;
    Py_XDECREF(text);
    return overflow ? 0 : -1;
}

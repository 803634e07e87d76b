/* Spans: `with span:` leaves a begin and an end in the buffer of its thread. In code that can be suspended (a coroutine)
 * the same statement is an async span, see async_span.c.
 *
 * A span object has no state (the nesting is rebuilt by the readers), so one object serves recursion and all threads.
 * Spans are never freed.
 */
#include "recorder.h"

#include "caller.h"

/* Names are for people; a longer one is a mistake. */
#define MM_MAX_NAME 1000
/* A place with more names than this makes them of data: from then on its spans bring their names along. */
#define MM_NAMES_PER_SITE 100

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

/* ---- begin and end ------------------------------------------------------------------------------------------------------- */

/* What the shortest way of `with` can't do, each a function of its own that is called last: so the shortest way keeps nothing on
 * the stack. */

static __attribute__((noinline)) PyObject *enter_slowly(mm_span *span)
{
    mm_emit_slowly(mm_tagged(span->descriptor, MM_SPAN_BEGIN));
    return Py_NewRef(span);
}

static __attribute__((noinline)) PyObject *enter_in_thread_to_be_found(mm_span *span)
{
    PyThreadState *thread = mm_thread_state();
    uintptr_t frame = mm_suspendable_frame(thread);
    return frame ? mm_block_enter((PyObject *)span, span->descriptor, thread, frame) : enter_slowly(span);
}

static inline PyObject *enter(mm_span *span)
{
    PyThreadState *thread = mm_thread_state_at_once();
    if (__builtin_expect(!mm_is_known(thread), 0)) {
        return enter_in_thread_to_be_found(span);
    }
    uintptr_t frame = mm_suspendable_frame(thread);
    if (__builtin_expect(frame != 0, 0)) {
        return mm_block_enter((PyObject *)span, span->descriptor, thread, frame);
    }
    if (!mm_emit_at_once(span->descriptor, MM_SPAN_BEGIN)) {
        return enter_slowly(span);
    }
    return Py_NewRef(span);
}

static __attribute__((noinline)) PyObject *leave_otherwise(const void *descriptor)
{
    if (!mm_open_blocks) {
        return mm_emit_slowly_for_none(mm_tagged(descriptor, MM_SPAN_END));
    }
    PyThreadState *thread = mm_thread_state();
    uintptr_t frame = mm_suspendable_frame(thread);
    if (!frame || !mm_block_end(thread, descriptor, frame)) {
        mm_emit(descriptor, MM_SPAN_END);
    }
    Py_RETURN_NONE;
}

static inline PyObject *leave(const void *descriptor)
{
    if (mm_open_blocks || !mm_emit_at_once(descriptor, MM_SPAN_END)) {
        return leave_otherwise(descriptor);
    }
    Py_RETURN_NONE;
}

#if MM_PREBOUND
static PyObject *call_enter(PyObject *self, PyObject *const *args, size_t count, PyObject *names)
{
    (void)args;
    (void)count;
    (void)names;
    return enter(((mm_bound *)self)->span);
}

static PyObject *call_leave(PyObject *self, PyObject *const *args, size_t count, PyObject *names)
{
    (void)args;
    (void)count;
    (void)names;
    return leave(((mm_bound *)self)->span->descriptor);
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

/* contextlib.ExitStack calls type(span).__enter__(span), from frames of its own: in a task it may stay open over awaits. */
static PyObject *binder_call(PyObject *self, PyObject *args, PyObject *keywords)
{
    (void)keywords;
    if (PyTuple_GET_SIZE(args) < 1 || !Py_IS_TYPE(PyTuple_GET_ITEM(args, 0), &mm_SpanType)) {
        PyErr_SetString(PyExc_TypeError, "span: __enter__ and __exit__ need a span");
        return NULL;
    }
    PyObject *span = PyTuple_GET_ITEM(args, 0);
    const void *descriptor = mm_span_descriptor(span);
    PyThreadState *thread = mm_thread_state();
    if (((mm_binder *)self)->leaves) {
        if (!mm_block_end(thread, descriptor, MM_NO_FRAME)) {
            mm_emit(descriptor, MM_SPAN_END);
        }
        Py_RETURN_NONE;
    }
    if (!mm_block_begin(thread, descriptor, NULL, MM_NO_FRAME)) {
        mm_emit(descriptor, MM_SPAN_BEGIN);
    }
    return Py_NewRef(span);
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
    return enter((mm_span *)self);
}

static PyObject *span_exit(PyObject *self, PyObject *const *args, Py_ssize_t count)
{
    (void)args;
    (void)count;
    return leave(((mm_span *)self)->descriptor);
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

static PyObject *span_open_async(PyObject *self, PyObject *unused)
{
    (void)unused;
    return mm_async_span_open(((mm_span *)self)->descriptor, NULL);
}

static PyObject *span_aenter(PyObject *self, PyObject *unused)
{
    (void)unused;
    return mm_async_span_enter(self, ((mm_span *)self)->descriptor, NULL);
}

static PyObject *span_aexit(PyObject *self, PyObject *const *args, Py_ssize_t count)
{
    (void)args;
    (void)count;
    return mm_async_span_leave(((mm_span *)self)->descriptor);
}

static PyMethodDef span_methods[] = {
#if !MM_PREBOUND
    {"__enter__", span_enter, METH_NOARGS, NULL},
    {"__exit__", (PyCFunction)(void (*)(void))span_exit, METH_FASTCALL, NULL},
#endif
    {"begin", span_begin, METH_NOARGS, "(): record the begin; an end() in the same thread must follow"},
    {"end", span_end, METH_NOARGS, "(): record the end"},
    {"open_async", span_open_async, METH_NOARGS, "(): begin an async span and make it the current one of this context"},
    {"__aenter__", span_aenter, METH_NOARGS, NULL},
    {"__aexit__", (PyCFunction)(void (*)(void))span_aexit, METH_FASTCALL, NULL},
    {NULL, NULL, 0, NULL},
};

PyTypeObject mm_SpanType = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "micromegas._core.Span",
    .tp_doc = "A named piece of work: use `with span:` or `async with span:`.",
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

/* New reference: the name as it is, or what fits of it. */
static PyObject *fitting(PyObject *name)
{
    if (PyUnicode_GET_LENGTH(name) <= MM_MAX_NAME) {
        return Py_NewRef(name);
    }
    PyObject *first = PyUnicode_Substring(name, 0, MM_MAX_NAME - 1);
    PyObject *cut = first ? PyUnicode_FromFormat("%U%c", first, 0x2026) : NULL;
    Py_XDECREF(first);
    return cut;
}

static const void *describe(PyObject *name, const mm_place *place)
{
    PyObject *utf8 = mm_utf8(name);
    const void *descriptor =
        utf8 ? mm_describe_span(mm_text_of(utf8), mm_text_of(place->target), mm_text_of(place->file), place->line) : NULL;
    Py_XDECREF(utf8);
    return descriptor;
}

PyObject *mm_span_new(PyObject *given, const mm_place *place)
{
    PyObject *name = fitting(given);
    if (!name) {
        return NULL;
    }
    const void *descriptor = describe(name, place);
    PyObject *span = descriptor ? span_for(descriptor, name) : Py_NewRef(overflow);
    Py_DECREF(name);
    return span;
}

/* ---- spans named at run time: they bring their name along, so that names made of data use up no descriptions ----------------- */

typedef struct {
    PyObject_HEAD
    const void *location; /* the descriptor of the place, whose own name is empty */
    PyObject *name;       /* an exact str */
} mm_named_span;

static void named_begin(mm_named_span *span)
{
    PyThreadState *thread = mm_thread_state();
    uintptr_t frame = mm_suspendable_frame(thread);
    if (frame && mm_block_begin(thread, span->location, span->name, frame)) {
        return;
    }
    mm_value value;
    mm_value_measure(&value, span->name, 's'); /* an exact str: can't fail, runs no code */
    const size_t head = sizeof(mm_record) + 8;
    mm_block *block = mm_reserve(head + value.size, MM_NAMED_BEGIN);
    if (block) {
        mm_write_head(block, span->location, MM_NAMED_BEGIN);
        uint64_t *words = (uint64_t *)(block->cursor + sizeof(mm_record));
        words[0] = head + value.size;
        mm_value_write(&value, (uint8_t *)(words + 1));
        mm_commit(block, head + value.size);
    }
}

static PyObject *named_enter(PyObject *self, PyObject *unused)
{
    (void)unused;
    named_begin((mm_named_span *)self);
    return Py_NewRef(self);
}

static PyObject *named_exit(PyObject *self, PyObject *const *args, Py_ssize_t count)
{
    (void)args;
    (void)count;
    return leave(((mm_named_span *)self)->location);
}

static PyObject *named_begin_method(PyObject *self, PyObject *unused)
{
    (void)unused;
    named_begin((mm_named_span *)self);
    Py_RETURN_NONE;
}

static PyObject *named_end_method(PyObject *self, PyObject *unused)
{
    (void)unused;
    return leave(((mm_named_span *)self)->location);
}

static PyObject *named_open_async(PyObject *self, PyObject *unused)
{
    (void)unused;
    return mm_async_span_open(((mm_named_span *)self)->location, ((mm_named_span *)self)->name);
}

static PyObject *named_aenter(PyObject *self, PyObject *unused)
{
    (void)unused;
    return mm_async_span_enter(self, ((mm_named_span *)self)->location, ((mm_named_span *)self)->name);
}

static PyObject *named_aexit(PyObject *self, PyObject *const *args, Py_ssize_t count)
{
    (void)args;
    (void)count;
    return mm_async_span_leave(((mm_named_span *)self)->location);
}

static PyObject *named_repr(PyObject *self)
{
    return PyUnicode_FromFormat("<span %R>", ((mm_named_span *)self)->name);
}

static void named_dealloc(PyObject *self)
{
    Py_DECREF(((mm_named_span *)self)->name);
    PyObject_Free(self);
}

static PyMethodDef named_methods[] = {
    {"__enter__", named_enter, METH_NOARGS, NULL},
    {"__exit__", (PyCFunction)(void (*)(void))named_exit, METH_FASTCALL, NULL},
    {"begin", named_begin_method, METH_NOARGS, "(): record the begin; an end() in the same thread must follow"},
    {"end", named_end_method, METH_NOARGS, "(): record the end"},
    {"open_async", named_open_async, METH_NOARGS, "(): begin an async span and make it the current one of this context"},
    {"__aenter__", named_aenter, METH_NOARGS, NULL},
    {"__aexit__", (PyCFunction)(void (*)(void))named_aexit, METH_FASTCALL, NULL},
    {NULL, NULL, 0, NULL},
};

PyTypeObject mm_NamedSpanType = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "micromegas._core.NamedSpan",
    .tp_doc = "A span whose name was made at run time: used as a `Span` is.",
    .tp_basicsize = sizeof(mm_named_span),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .tp_dealloc = named_dealloc,
    .tp_repr = named_repr,
    .tp_methods = named_methods,
};

static PyObject *named_span(const void *location, PyObject *given)
{
    PyObject *name = fitting(given);
    mm_named_span *span = name ? PyObject_New(mm_named_span, &mm_NamedSpanType) : NULL;
    if (!span) {
        Py_XDECREF(name);
        return NULL;
    }
    span->location = location;
    span->name = name;
    return (PyObject *)span;
}

static const void *location_of(const mm_place *place)
{
    PyObject *empty = PyUnicode_New(0, 0);
    const void *location = empty ? describe(empty, place) : NULL;
    Py_XDECREF(empty);
    return location ? location : mm_span_descriptor(overflow);
}

/* ---- call sites ---------------------------------------------------------------------------------------------------------- */

/* The name as an exact str: str() of what is none. NULL with an exception set. */
static PyObject *name_of(PyObject *object)
{
    PyObject *name = PyUnicode_CheckExact(object) ? Py_NewRef(object) : PyObject_Str(object);
    if (name && !PyUnicode_CheckExact(name)) {
        Py_SETREF(name, PyUnicode_FromObject(name));
    }
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
    PyObject *name = name_of(given);
    if (!name) {
        return NULL;
    }
    PyObject *span = NULL;
    mm_place place;
    mm_place_of_caller(&place);
    if (site && site->names >= MM_NAMES_PER_SITE) {
        if (!site->varying) {
            site->varying = location_of(&place);
        }
        span = named_span(site->varying, name);
    }
    else {
        Py_ssize_t before = PyDict_GET_SIZE(spans);
        span = mm_span_new(name, &place);
        if (span == overflow) {
            Py_SETREF(span, named_span(mm_span_descriptor(overflow), name));
        }
        else if (span && site) {
            site->names += PyDict_GET_SIZE(spans) > before;
        }
    }
    if (span && !site && PyUnicode_CheckExact(given) && Py_IS_TYPE(span, &mm_SpanType)) {
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

PyObject *mm_span_named_function(PyObject *module, PyObject *given)
{
    (void)module;
    PyObject *name = name_of(given);
    if (!name) {
        return NULL;
    }
    uintptr_t key = mm_site_key(7); /* levels of logs end at 6 */
    mm_site *site = mm_site_find(key);
    const void *location = site ? site->descriptor : NULL;
    if (!location) {
        mm_place place;
        mm_place_of_caller(&place);
        location = location_of(&place);
        site = mm_site_add(key, NULL, place.code);
        if (site) {
            site->descriptor = location;
        }
        mm_place_clear(&place);
    }
    PyObject *span = named_span(location, name);
    Py_DECREF(name);
    return span;
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
    if (!PyUnicode_CheckExact(name)) {
        PyErr_SetString(PyExc_TypeError, "make_span: the name must be an exact str");
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

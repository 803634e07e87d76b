/* `@trace` where the interpreter can't tell of calls (3.11, C callables): a callable that records a span around every
 * call, with the attributes of the function.
 *
 * Must never change what the call returns or raises. The wrapper turns Python-to-Python recursion into C recursion.
 */
#include "recorder.h"

#include <structmember.h>

#include "stack.h"

typedef struct {
    PyObject_HEAD
    vectorcallfunc call;
    PyObject *function;
    const void *descriptor;
    PyObject *attributes; /* __dict__ */
    PyObject *weak_references;
} mm_traced;

static inline PyObject *call(mm_traced *traced, PyObject *const *args, size_t count, PyObject *names)
{
    mm_emit(traced->descriptor, MM_SPAN_BEGIN);
    PyObject *result = PyObject_Vectorcall(traced->function, args, count, names);
    mm_emit(traced->descriptor, MM_SPAN_END);
    return result;
}

#if PY_VERSION_HEX < 0x030C0000
typedef struct {
    mm_traced *traced;
    PyObject *const *args;
    size_t count;
    PyObject *names;
    PyObject *result;
} deep_call;

static void call_there(void *argument)
{
    deep_call *of = argument;
    of->result = call(of->traced, of->args, of->count, of->names);
}

static __attribute__((noinline)) PyObject *call_deep(mm_traced *traced, PyObject *const *args, size_t count, PyObject *names)
{
    deep_call of = {traced, args, count, names, NULL};
    if (!mm_call_on_new_stack(call_there, &of)) {
        return PyErr_NoMemory();
    }
    return of.result;
}
#endif

static PyObject *traced_call(PyObject *self, PyObject *const *args, size_t count, PyObject *names)
{
#if PY_VERSION_HEX < 0x030C0000
    if (mm_stack_is_short()) {
        return call_deep((mm_traced *)self, args, count, names);
    }
#endif
    return call((mm_traced *)self, args, count, names);
}

static PyObject *traced_get(PyObject *self, PyObject *object, PyObject *type)
{
    (void)type;
    return object && object != Py_None ? PyMethod_New(self, object) : Py_NewRef(self);
}

/* By name, as functions are: pools send their work by pickle. */
static PyObject *traced_reduce(PyObject *self, PyObject *unused)
{
    (void)unused;
    return PyObject_GetAttrString(self, "__qualname__");
}

static PyObject *traced_repr(PyObject *self)
{
    return PyUnicode_FromFormat("<traced %R>", ((mm_traced *)self)->function);
}

static int traced_traverse(PyObject *self, visitproc visit, void *arg)
{
    Py_VISIT(((mm_traced *)self)->function);
    Py_VISIT(((mm_traced *)self)->attributes);
    return 0;
}

static int traced_clear(PyObject *self)
{
    Py_CLEAR(((mm_traced *)self)->function);
    Py_CLEAR(((mm_traced *)self)->attributes);
    return 0;
}

static void traced_dealloc(PyObject *self)
{
    PyObject_GC_UnTrack(self);
    if (((mm_traced *)self)->weak_references) {
        PyObject_ClearWeakRefs(self);
    }
    traced_clear(self);
    PyObject_GC_Del(self);
}

static PyMethodDef traced_methods[] = {
    {"__reduce__", traced_reduce, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef traced_getset[] = {
    {"__dict__", PyObject_GenericGetDict, PyObject_GenericSetDict, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

PyTypeObject mm_TracedType = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "micromegas._core.TracedFunction",
    .tp_basicsize = sizeof(mm_traced),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_HAVE_VECTORCALL | Py_TPFLAGS_METHOD_DESCRIPTOR |
                Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .tp_vectorcall_offset = offsetof(mm_traced, call),
    .tp_dictoffset = offsetof(mm_traced, attributes),
    .tp_weaklistoffset = offsetof(mm_traced, weak_references),
    .tp_call = PyVectorcall_Call,
    .tp_descr_get = traced_get,
    .tp_repr = traced_repr,
    .tp_traverse = traced_traverse,
    .tp_clear = traced_clear,
    .tp_dealloc = traced_dealloc,
    .tp_methods = traced_methods,
    .tp_getset = traced_getset,
};

/* (function, span) */
PyObject *mm_make_traced(PyObject *module, PyObject *args)
{
    (void)module;
    PyObject *function, *span;
    if (!PyArg_ParseTuple(args, "OO!", &function, &mm_SpanType, &span)) {
        return NULL;
    }
    mm_traced *traced = PyObject_GC_New(mm_traced, &mm_TracedType);
    if (!traced) {
        return NULL;
    }
    traced->call = traced_call;
    traced->function = Py_NewRef(function);
    traced->descriptor = mm_span_descriptor(span);
    traced->attributes = NULL;
    traced->weak_references = NULL;
    PyObject_GC_Track(traced);
    return (PyObject *)traced;
}

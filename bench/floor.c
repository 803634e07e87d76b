/* What no recorder can be cheaper than, called from Python: an empty call, the same with a time stamp, an empty `with`.
 *
 * Compiled by bench/floor.py for the interpreter that runs the bench; no part of the product. Uses the recorder's own
 * clock and block size, so that the floor moves with them.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "buffer.h"

#include <stdlib.h>
#include <string.h>

static volatile uint64_t last;

static PyObject *empty(PyObject *module, PyObject *value)
{
    (void)module;
    (void)value;
    Py_RETURN_NONE;
}

/* One time stamp and one store in each kind of call: a function, a method of one argument, one of any, a prebound one. */
#define STAMPED_CALLS(clock, ticks)                                                                                \
    static PyObject *stamped_##clock(PyObject *self, PyObject *value)                                              \
    {                                                                                                              \
        (void)self;                                                                                                \
        (void)value;                                                                                               \
        last = ticks;                                                                                              \
        Py_RETURN_NONE;                                                                                            \
    }                                                                                                              \
    static PyObject *stamped_fast_##clock(PyObject *self, PyObject *const *args, Py_ssize_t count, PyObject *names) \
    {                                                                                                              \
        (void)self;                                                                                                \
        (void)args;                                                                                                \
        (void)count;                                                                                               \
        (void)names;                                                                                               \
        last = ticks;                                                                                              \
        Py_RETURN_NONE;                                                                                            \
    }                                                                                                              \
    static PyObject *stamped_bound_##clock(PyObject *self, PyObject *const *args, size_t count, PyObject *names)    \
    {                                                                                                              \
        return stamped_fast_##clock(self, args, (Py_ssize_t)count, names);                                         \
    }
STAMPED_CALLS(monotonic, mm_monotonic_ns())
#if MM_HAS_COUNTER
STAMPED_CALLS(counter, MM_READ_COUNTER())
#endif

/* ---- an empty `with`: ordinary methods, and methods bound beforehand ------------------------------------------------------- */

static PyObject *plain_enter(PyObject *self, PyObject *unused)
{
    (void)unused;
    return Py_NewRef(self);
}

static PyObject *plain_exit(PyObject *self, PyObject *const *args, Py_ssize_t count)
{
    (void)self;
    (void)args;
    (void)count;
    Py_RETURN_NONE;
}

static PyObject *empty_fast(PyObject *self, PyObject *const *args, Py_ssize_t count, PyObject *names)
{
    (void)self;
    (void)args;
    (void)count;
    (void)names;
    Py_RETURN_NONE;
}

static PyMethodDef plain_methods[] = {
    {"__enter__", plain_enter, METH_NOARGS, NULL},
    {"__exit__", (PyCFunction)(void (*)(void))plain_exit, METH_FASTCALL, NULL},
    {"method", empty, METH_O, "does nothing"},
    {"fast", (PyCFunction)(void (*)(void))empty_fast, METH_FASTCALL | METH_KEYWORDS, "does nothing"},
    {NULL, NULL, 0, NULL},
};

/* The functions are set when the clock is known. */
static PyMethodDef stamped_methods[] = {
    {"method", NULL, METH_O, "takes a time stamp"},
    {"fast", NULL, METH_FASTCALL | METH_KEYWORDS, "takes a time stamp"},
    {NULL, NULL, 0, NULL},
};

static PyTypeObject stamped_type = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "floor.Stamped",
    .tp_basicsize = sizeof(PyObject),
    .tp_flags = Py_TPFLAGS_DEFAULT,
    .tp_new = PyType_GenericNew,
    .tp_methods = stamped_methods,
};

static PyTypeObject plain_type = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "floor.Plain",
    .tp_basicsize = sizeof(PyObject),
    .tp_flags = Py_TPFLAGS_DEFAULT,
    .tp_new = PyType_GenericNew,
    .tp_methods = plain_methods,
};

typedef struct {
    PyObject_HEAD
    vectorcallfunc call;
} bound;

static PyObject *bound_call(PyObject *self, PyObject *const *args, size_t count, PyObject *names)
{
    (void)self;
    (void)args;
    (void)count;
    (void)names;
    Py_RETURN_NONE;
}

static PyTypeObject bound_type = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "floor.Bound",
    .tp_basicsize = sizeof(bound),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_VECTORCALL,
    .tp_vectorcall_offset = offsetof(bound, call),
    .tp_call = PyVectorcall_Call,
};

typedef struct {
    PyObject_HEAD
    PyObject *bound;
} binder;

static PyObject *binder_get(PyObject *self, PyObject *object, PyObject *type)
{
    (void)object;
    (void)type;
    return Py_NewRef(((binder *)self)->bound);
}

static PyTypeObject binder_type = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "floor.Binder",
    .tp_basicsize = sizeof(binder),
    .tp_flags = Py_TPFLAGS_DEFAULT,
    .tp_descr_get = binder_get,
};

static PyTypeObject prebound_type = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "floor.Prebound",
    .tp_basicsize = sizeof(PyObject),
    .tp_flags = Py_TPFLAGS_DEFAULT,
    .tp_new = PyType_GenericNew,
};

static PyTypeObject stamped_prebound_type = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "floor.StampedPrebound",
    .tp_basicsize = sizeof(PyObject),
    .tp_flags = Py_TPFLAGS_DEFAULT,
    .tp_new = PyType_GenericNew,
};

/* ---- one call at a time ------------------------------------------------------------------------------------------------ */

static uint64_t (*const ticks_now)(void) = mm_ticks;

/* (function, argument, out): calls the function once per 8 bytes of the writable buffer `out`, which gets the ticks that
 * each call took. The loop is here because one in Python would be most of what is seen. */
static PyObject *time_calls(PyObject *module, PyObject *args)
{
    (void)module;
    PyObject *function, *argument;
    Py_buffer out;
    if (!PyArg_ParseTuple(args, "OOw*", &function, &argument, &out)) {
        return NULL;
    }
    uint64_t *ticks = out.buf;
    for (Py_ssize_t index = 0; index < out.len / 8; index++) {
        uint64_t begin = ticks_now();
        PyObject *result = PyObject_CallOneArg(function, argument);
        ticks[index] = ticks_now() - begin;
        if (!result) {
            PyBuffer_Release(&out);
            return NULL;
        }
        Py_DECREF(result);
    }
    PyBuffer_Release(&out);
    Py_RETURN_NONE;
}

/* Where callgrind ends one count and begins the next (bench/instructions.py). */
static __attribute__((noinline)) void end_of_count(void)
{
    __asm__ volatile("");
}

static PyObject *mark(PyObject *module, PyObject *unused)
{
    (void)module;
    (void)unused;
    end_of_count();
    Py_RETURN_NONE;
}

static PyMethodDef functions[] = {
    {"mark", mark, METH_NOARGS, "ends a count of instructions"},
    {"empty", empty, METH_O, "does nothing"},
    {"stamped", NULL, METH_O, "reads the clock and stores it"},
    {"time_calls", time_calls, METH_VARARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "floor",
    .m_size = -1,
    .m_methods = functions,
};

static void set_function(PyMethodDef *methods, const char *name, void *function)
{
    while (strcmp(methods->ml_name, name) != 0) {
        methods++;
    }
    methods->ml_meth = (PyCFunction)function;
}

/* A type whose `with` calls `call` twice. */
static int ready_prebound(PyTypeObject *type, vectorcallfunc call)
{
    if (PyType_Ready(type) < 0) {
        return -1;
    }
    bound *made = PyObject_New(bound, &bound_type);
    binder *get = PyObject_New(binder, &binder_type);
    if (!made || !get) {
        return -1;
    }
    made->call = call;
    get->bound = (PyObject *)made;
    if (PyDict_SetItemString(type->tp_dict, "__enter__", (PyObject *)get) < 0 ||
        PyDict_SetItemString(type->tp_dict, "__exit__", (PyObject *)get) < 0) {
        return -1;
    }
    PyType_Modified(type);
    return 0;
}

static int add_type(PyObject *module, const char *name, PyTypeObject *type)
{
    return PyType_Ready(type) < 0 ? -1 : PyModule_AddObjectRef(module, name, (PyObject *)type);
}

PyMODINIT_FUNC PyInit_floor(void)
{
    /* As the recorder reads the environment. */
    const char *clock = getenv("MICROMEGAS_RECORDER_CLOCK");
    mm_clock_choose(clock && strcmp(clock, "monotonic") == 0);
    PyCFunction stamped = stamped_monotonic;
    void *fast = (void *)stamped_fast_monotonic;
    vectorcallfunc call = stamped_bound_monotonic;
#if MM_HAS_COUNTER
    if (mm_clock_uses_counter) {
        stamped = stamped_counter;
        fast = (void *)stamped_fast_counter;
        call = stamped_bound_counter;
    }
#endif
    set_function(functions, "stamped", (void *)stamped);
    set_function(stamped_methods, "method", (void *)stamped);
    set_function(stamped_methods, "fast", fast);
    PyObject *module = PyModule_Create(&definition);
    if (!module || PyType_Ready(&bound_type) < 0 || PyType_Ready(&binder_type) < 0 ||
        ready_prebound(&prebound_type, bound_call) < 0 || ready_prebound(&stamped_prebound_type, call) < 0 ||
        add_type(module, "Plain", &plain_type) < 0 || add_type(module, "Stamped", &stamped_type) < 0 ||
        add_type(module, "Prebound", &prebound_type) < 0 ||
        add_type(module, "StampedPrebound", &stamped_prebound_type) < 0 ||
        PyModule_AddIntConstant(module, "USES_COUNTER", mm_clock_is_short()) < 0 ||
        PyModule_AddIntConstant(module, "BLOCK_BYTES", MM_BLOCK_BYTES - (long)sizeof(mm_block)) < 0 ||
        PyModule_AddIntConstant(module, "METRIC_BYTES", (long)sizeof(mm_record) + 8) < 0) {
        return NULL;
    }
    return module;
}

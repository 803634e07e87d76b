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

static PyObject *stamped_monotonic(PyObject *module, PyObject *value)
{
    (void)module;
    (void)value;
    last = mm_monotonic_ns();
    Py_RETURN_NONE;
}

#if MM_HAS_COUNTER
static PyObject *stamped_counter(PyObject *module, PyObject *value)
{
    (void)module;
    (void)value;
    last = MM_READ_COUNTER();
    Py_RETURN_NONE;
}
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

static PyObject *the_bound;

static PyObject *binder_get(PyObject *self, PyObject *object, PyObject *type)
{
    (void)self;
    (void)object;
    (void)type;
    return Py_NewRef(the_bound);
}

static PyTypeObject binder_type = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "floor.Binder",
    .tp_basicsize = sizeof(PyObject),
    .tp_flags = Py_TPFLAGS_DEFAULT,
    .tp_descr_get = binder_get,
};

static PyTypeObject prebound_type = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "floor.Prebound",
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
    {"stamped_monotonic", stamped_monotonic, METH_O, "reads the monotonic clock and stores it"},
#if MM_HAS_COUNTER
    {"stamped_counter", stamped_counter, METH_O, "reads the counter of the processor and stores it"},
#endif
    {"time_calls", time_calls, METH_VARARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "floor",
    .m_size = -1,
    .m_methods = functions,
};

static int add_with_types(PyObject *module)
{
    if (PyType_Ready(&plain_type) < 0 || PyType_Ready(&bound_type) < 0 || PyType_Ready(&binder_type) < 0 ||
        PyType_Ready(&prebound_type) < 0) {
        return -1;
    }
    bound *made = PyObject_New(bound, &bound_type);
    PyObject *binder = PyObject_New(PyObject, &binder_type);
    if (!made || !binder) {
        return -1;
    }
    made->call = bound_call;
    the_bound = (PyObject *)made;
    if (PyDict_SetItemString(prebound_type.tp_dict, "__enter__", binder) < 0 ||
        PyDict_SetItemString(prebound_type.tp_dict, "__exit__", binder) < 0) {
        return -1;
    }
    PyType_Modified(&prebound_type);
    return PyModule_AddObjectRef(module, "Plain", (PyObject *)&plain_type) < 0 ||
                   PyModule_AddObjectRef(module, "Prebound", (PyObject *)&prebound_type) < 0
               ? -1
               : 0;
}

PyMODINIT_FUNC PyInit_floor(void)
{
    PyObject *module = PyModule_Create(&definition);
    /* As the recorder reads the environment. */
    const char *clock = getenv("MICROMEGAS_RECORDER_CLOCK");
    mm_clock_choose(clock && strcmp(clock, "monotonic") == 0);
    const char *stamped = "stamped_monotonic";
#if MM_HAS_COUNTER
    if (mm_clock_uses_counter) {
        stamped = "stamped_counter";
    }
#endif
    PyObject *function = module ? PyObject_GetAttrString(module, stamped) : NULL;
    if (!function || PyModule_AddObjectRef(module, "stamped", function) < 0 || add_with_types(module) < 0 ||
        PyModule_AddIntConstant(module, "BLOCK_BYTES", MM_BLOCK_BYTES - (long)sizeof(mm_block)) < 0 ||
        PyModule_AddIntConstant(module, "METRIC_BYTES", (long)sizeof(mm_record) + 8) < 0) {
        return NULL;
    }
    Py_DECREF(function);
    return module;
}

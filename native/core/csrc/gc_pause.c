/* The garbage collector's pauses: a callback for `gc.callbacks` that leaves one measure per collection.
 *
 * In C, because young generations are collected thousands of times a second. Must never allocate: it runs inside of the
 * collection.
 */
#include "recorder.h"

static uint64_t began_ns;
static PyObject *generation_key;

/* (phase, info); `self`: a tuple of metrics, one per generation. */
static PyObject *note_phase(PyObject *self, PyObject *const *args, Py_ssize_t count)
{
    if (count != 2 || !PyUnicode_Check(args[0]) || !PyDict_Check(args[1])) {
        PyErr_SetString(PyExc_TypeError, "gc callback: a phase and a dict are needed");
        return NULL;
    }
    if (PyUnicode_CompareWithASCIIString(args[0], "start") == 0) {
        began_ns = mm_monotonic_ns();
        Py_RETURN_NONE;
    }
    PyObject *number = PyDict_GetItemWithError(args[1], generation_key);
    long generation = number && PyLong_Check(number) ? PyLong_AsLong(number) : -1;
    if (began_ns && generation >= 0 && generation < PyTuple_GET_SIZE(self)) {
        mm_metric_record_integer(PyTuple_GET_ITEM(self, generation), (int64_t)(mm_monotonic_ns() - began_ns));
    }
    began_ns = 0; /* the callback may have come in the middle of a collection */
    if (PyErr_Occurred() && mm_swallow_error() < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyMethodDef callback = {"gc_callback", (PyCFunction)(void (*)(void))note_phase, METH_FASTCALL,
                               "(phase, info, /): for gc.callbacks; records how long a collection took"};

PyObject *mm_make_gc_callback(PyObject *module, PyObject *metrics)
{
    (void)module;
    if (!PyTuple_Check(metrics)) {
        PyErr_SetString(PyExc_TypeError, "make_gc_callback: a tuple of metrics is needed");
        return NULL;
    }
    for (Py_ssize_t index = 0; index < PyTuple_GET_SIZE(metrics); index++) {
        if (!Py_IS_TYPE(PyTuple_GET_ITEM(metrics, index), &mm_MetricType)) {
            PyErr_SetString(PyExc_TypeError, "make_gc_callback: a tuple of metrics is needed");
            return NULL;
        }
    }
    if (!generation_key && !(generation_key = PyUnicode_InternFromString("generation"))) {
        return NULL;
    }
    return PyCFunction_New(&callback, metrics);
}

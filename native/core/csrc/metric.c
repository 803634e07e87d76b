/* Metrics: each record is one measure event. Must never raise for a value: what is no number is refused and counted. */
#include "recorder.h"

#include <string.h>

uint64_t mm_refused_values;

typedef struct {
    PyObject_HEAD
    const void *descriptor; /* NULL when there were too many metrics: its values are refused */
    PyObject *name;
} mm_metric;

static void record_number(const void *descriptor, enum mm_kind kind, uint64_t bits)
{
    const size_t size = sizeof(mm_record) + 8;
    mm_block *block = mm_reserve(size, kind);
    if (block) {
        mm_write_head(block, descriptor, kind);
        memcpy(block->cursor + sizeof(mm_record), &bits, 8);
        mm_commit(block, size);
    }
}

static inline uint64_t bits_of(double real)
{
    uint64_t bits;
    memcpy(&bits, &real, 8);
    return bits;
}

static PyObject *refuse(void)
{
    if (PyErr_Occurred() && mm_swallow_error() < 0) {
        return NULL;
    }
    __atomic_fetch_add(&mm_refused_values, 1, __ATOMIC_RELAXED);
    Py_RETURN_NONE;
}

/* Anything but a small int or a float: integers stay integers as far as 64 bits reach, the rest becomes a float. */
static __attribute__((noinline)) PyObject *record_other(const void *descriptor, PyObject *value)
{
    if (PyIndex_Check(value)) {
        PyObject *integer = PyNumber_Index(value);
        if (!integer) {
            return refuse();
        }
        int overflow;
        long long number = PyLong_AsLongLongAndOverflow(integer, &overflow);
        double real = overflow ? PyLong_AsDouble(integer) : 0.0;
        Py_DECREF(integer);
        if (PyErr_Occurred()) {
            return refuse();
        }
        if (overflow) {
            record_number(descriptor, MM_METRIC_FLOAT, bits_of(real));
        }
        else {
            record_number(descriptor, MM_METRIC_INT, (uint64_t)number);
        }
        Py_RETURN_NONE;
    }
    if (PyUnicode_Check(value) || PyBytes_Check(value)) {
        return refuse();
    }
    double real = PyFloat_AsDouble(value);
    if (real == -1.0 && PyErr_Occurred()) {
        return refuse();
    }
    record_number(descriptor, MM_METRIC_FLOAT, bits_of(real));
    Py_RETURN_NONE;
}

static PyObject *metric_record(PyObject *self, PyObject *value)
{
    const void *descriptor = ((mm_metric *)self)->descriptor;
    if (__builtin_expect(!descriptor, 0)) {
        return refuse();
    }
    if (PyFloat_CheckExact(value)) {
        record_number(descriptor, MM_METRIC_FLOAT, bits_of(PyFloat_AS_DOUBLE(value)));
        Py_RETURN_NONE;
    }
#if PY_VERSION_HEX >= 0x030C0000
    if (PyLong_CheckExact(value) && PyUnstable_Long_IsCompact((PyLongObject *)value)) {
        record_number(descriptor, MM_METRIC_INT, (uint64_t)(int64_t)PyUnstable_Long_CompactValue((PyLongObject *)value));
        Py_RETURN_NONE;
    }
#else
    if (PyLong_CheckExact(value) && Py_SIZE(value) >= -1 && Py_SIZE(value) <= 1) {
        int64_t number = Py_SIZE(value) * (int64_t)((PyLongObject *)value)->ob_digit[0];
        record_number(descriptor, MM_METRIC_INT, (uint64_t)number);
        Py_RETURN_NONE;
    }
#endif
    return record_other(descriptor, value);
}

static void metric_dealloc(PyObject *self)
{
    Py_XDECREF(((mm_metric *)self)->name);
    Py_TYPE(self)->tp_free(self);
}

static PyObject *metric_repr(PyObject *self)
{
    return PyUnicode_FromFormat("<metric %R>", ((mm_metric *)self)->name);
}

static PyMethodDef metric_methods[] = {
    {"record", metric_record, METH_O, "(value, /): record one measure; integers stay integers"},
    {NULL, NULL, 0, NULL},
};

PyTypeObject mm_MetricType = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "micromegas._core.Metric",
    .tp_doc = "A measure with a name and a unit.",
    .tp_basicsize = sizeof(mm_metric),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .tp_dealloc = metric_dealloc,
    .tp_repr = metric_repr,
    .tp_methods = metric_methods,
};

/* (name, unit, target, file, line, properties): texts as UTF-8 bytes but the name; properties a tuple name, value, … */
const void *mm_metric_descriptor(PyObject *args, PyObject **name)
{
    PyObject *unit, *target, *file, *properties;
    unsigned int line;
    if (!PyArg_ParseTuple(args, "USSSIO!", name, &unit, &target, &file, &line, &PyTuple_Type, &properties)) {
        return NULL;
    }
    Py_ssize_t count = PyTuple_GET_SIZE(properties);
    mm_text *texts = PyMem_Calloc((size_t)count + 1, sizeof *texts);
    if (!texts) {
        PyErr_NoMemory();
        return NULL;
    }
    for (Py_ssize_t index = 0; index < count; index++) {
        PyObject *text = PyTuple_GET_ITEM(properties, index);
        if (!PyBytes_Check(text)) {
            PyMem_Free(texts);
            PyErr_SetString(PyExc_TypeError, "metric: properties must be bytes");
            return NULL;
        }
        texts[index] = mm_text_of(text);
    }
    const void *descriptor = NULL;
    PyObject *name_utf8 = mm_utf8(*name);
    if (name_utf8) {
        descriptor = mm_describe_metric(mm_text_of(name_utf8), mm_text_of(unit), mm_text_of(target), mm_text_of(file), line,
                                        texts, (size_t)count);
        Py_DECREF(name_utf8);
    }
    PyMem_Free(texts);
    return descriptor;
}

PyObject *mm_make_metric(PyObject *module, PyObject *args)
{
    (void)module;
    PyObject *name;
    const void *descriptor = mm_metric_descriptor(args, &name);
    if (PyErr_Occurred()) {
        return NULL;
    }
    mm_metric *metric = PyObject_New(mm_metric, &mm_MetricType);
    if (metric) {
        metric->descriptor = descriptor;
        metric->name = Py_NewRef(name);
    }
    return (PyObject *)metric;
}

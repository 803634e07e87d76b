/* Metrics: each record is one measure event. Must never raise for a value: what is no number is refused and counted. */
#include "recorder.h"

#include <string.h>

uint64_t mm_refused_values;

typedef struct {
    PyObject_HEAD
    const void *descriptor;
    /* Bytes that a measure needs. More than there can be when the hot path is not for this metric, because there were too
     * many (its values are refused) or its measures have the context's properties: found out where it looks for room. */
    size_t room;
    int with_context;
    PyObject *name;
} mm_metric;

typedef struct {
    mm_record head;
    uint64_t bits;
} measure;

static __attribute__((noinline)) PyObject *refuse(void)
{
    if (PyErr_Occurred() && mm_swallow_error() < 0) {
        return NULL;
    }
    __atomic_fetch_add(&mm_refused_values, 1, __ATOMIC_RELAXED);
    Py_RETURN_NONE;
}

static __attribute__((noinline)) PyObject *record_otherwise(const mm_metric *metric, enum mm_kind kind, uint64_t bits)
{
    if (!metric->descriptor) {
        return refuse();
    }
    if (metric->with_context) {
        return mm_measure_with(metric->descriptor, (mm_number){kind, bits}, 1, NULL, NULL);
    }
    mm_block *block = mm_reserve(sizeof(measure), kind);
    if (block) {
        mm_write_head(block, metric->descriptor, kind);
        ((measure *)block->cursor)->bits = bits;
        mm_commit(block, sizeof(measure));
    }
    Py_RETURN_NONE;
}

static __attribute__((noinline)) PyObject *record_slowly(const mm_metric *metric, enum mm_kind kind, uint64_t bits)
{
    if (mm_recording == MM_OFF && metric->descriptor) {
        Py_RETURN_NONE; /* saves no registers */
    }
    return record_otherwise(metric, kind, bits);
}

static inline __attribute__((always_inline)) PyObject *record_number(const mm_metric *metric, enum mm_kind kind, uint64_t bits)
{
    mm_block *block = mm_current;
    if (!mm_is_ready(block, metric->room)) {
        return record_slowly(metric, kind, bits);
    }
    measure *record = (measure *)block->cursor;
    mm_write_head_at_once(&record->head, mm_tagged(metric->descriptor, kind));
    record->bits = bits;
    __atomic_store_n(&block->cursor, (uint8_t *)(record + 1), __ATOMIC_RELEASE);
    Py_RETURN_NONE;
}

static inline uint64_t bits_of(double real)
{
    uint64_t bits;
    memcpy(&bits, &real, 8);
    return bits;
}

/* Integers stay integers as far as 64 bits reach, the rest becomes a float. 0: it is no number; an exception may be set. */
static int number_of(PyObject *value, mm_number *number)
{
    if (PyIndex_Check(value)) {
        PyObject *integer = PyNumber_Index(value);
        if (!integer) {
            return 0;
        }
        int overflow;
        long long small = PyLong_AsLongLongAndOverflow(integer, &overflow);
        *number = (mm_number){MM_METRIC_INT, (uint64_t)small};
        if (overflow) {
            *number = (mm_number){MM_METRIC_FLOAT, bits_of(PyLong_AsDouble(integer))};
        }
        Py_DECREF(integer);
        return !PyErr_Occurred();
    }
    if (PyUnicode_Check(value) || PyBytes_Check(value)) {
        return 0;
    }
    double real = PyFloat_AsDouble(value);
    *number = (mm_number){MM_METRIC_FLOAT, bits_of(real)};
    return real != -1.0 || !PyErr_Occurred();
}

/* Anything but a small positive int or a float. */
static __attribute__((noinline)) PyObject *record_other(const mm_metric *metric, PyObject *value)
{
    mm_number number;
    return number_of(value, &number) ? record_number(metric, number.kind, number.bits) : refuse();
}

static PyObject *metric_record(PyObject *self, PyObject *value)
{
    const mm_metric *metric = (const mm_metric *)self;
    if (mm_is_small_int(value)) {
        return record_number(metric, MM_METRIC_INT, (uint64_t)mm_small_int(value));
    }
    if (PyFloat_CheckExact(value)) {
        return record_number(metric, MM_METRIC_FLOAT, bits_of(PyFloat_AS_DOUBLE(value)));
    }
    return record_other(metric, value);
}

static PyObject *metric_record_with(PyObject *self, PyObject *const *args, Py_ssize_t count, PyObject *names)
{
    const mm_metric *metric = (const mm_metric *)self;
    if (count != 1) {
        PyErr_Format(PyExc_TypeError, "record_with() takes one value and properties by name (%zd values given)", count);
        return NULL;
    }
    mm_number number;
    if (!metric->descriptor || !number_of(args[0], &number)) {
        return refuse();
    }
    return mm_measure_with(metric->descriptor, number, metric->with_context, args + 1, names);
}

const void *mm_descriptor_of_metric(PyObject *metric)
{
    return ((const mm_metric *)metric)->descriptor;
}

void mm_metric_record_integer(PyObject *metric, int64_t value)
{
    Py_XDECREF(record_number((const mm_metric *)metric, MM_METRIC_INT, (uint64_t)value));
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
    {"record_with", (PyCFunction)(void (*)(void))metric_record_with, METH_FASTCALL | METH_KEYWORDS,
     "(value, /, *, properties, **named): record one measure with properties of its own"},
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

/* (name, unit, target, file, line, properties[, with_context]): texts as UTF-8 bytes but the name; properties a tuple name,
 * value, … */
const void *mm_metric_descriptor(PyObject *args, PyObject **name, int *with_context)
{
    PyObject *unit, *target, *file, *properties;
    unsigned int line;
    if (!PyArg_ParseTuple(args, with_context ? "USSSIO!p" : "USSSIO!", name, &unit, &target, &file, &line, &PyTuple_Type,
                          &properties, with_context)) {
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
    int with_context;
    const void *descriptor = mm_metric_descriptor(args, &name, &with_context);
    if (PyErr_Occurred()) {
        return NULL;
    }
    mm_metric *metric = PyObject_New(mm_metric, &mm_MetricType);
    if (metric) {
        metric->descriptor = descriptor;
        metric->room = descriptor && !with_context ? sizeof(measure) : SIZE_MAX / 2;
        metric->with_context = with_context;
        metric->name = Py_NewRef(name);
    }
    return (PyObject *)metric;
}

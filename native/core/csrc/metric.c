/* Metrics: each record is one measure event. Must never raise for a value: what is no number is refused and counted. */
#include "recorder.h"

#include <string.h>

uint64_t mm_refused_values;

typedef struct {
    PyObject_HEAD
    const void *descriptor;
    /* Bytes that a measure needs. More than there can be when the hot path is not for this metric, because its measures have
     * properties of the context or `own` ones: found out where it looks for room. */
    size_t room;
    int with_context;
    /* Of a metric beyond the limit of descriptions, or NULL: name, unit, target, then the declared properties. */
    mm_property_set *own;
    PyObject *name;
} mm_metric;

static const void *beyond; /* the descriptor that metrics beyond the limit share (METRIC_BEYOND in src/recorder/descriptor.rs) */

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
    if (metric->room != sizeof(measure)) {
        mm_number number = {kind, bits};
        return mm_measure_with(metric->descriptor, metric->own, metric->with_context, number, NULL, NULL);
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
    if (mm_recording == MM_OFF) {
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

/* Integers stay integers as far as 64 bits reach, the rest becomes a float. */
int mm_number_of(PyObject *value, mm_number *number)
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
    return mm_number_of(value, &number) ? record_number(metric, number.kind, number.bits) : refuse();
}

static PyObject *metric_record(PyObject *self, PyObject *value)
{
    const mm_metric *metric = (const mm_metric *)self;
    if (__builtin_expect(mm_is_small_int(value), 1)) {
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
    if (!mm_number_of(args[0], &number)) {
        return refuse();
    }
    return mm_measure_with(metric->descriptor, metric->own, metric->with_context, number, args + 1, names);
}

const void *mm_descriptor_of_metric(PyObject *metric)
{
    return ((const mm_metric *)metric)->descriptor;
}

void mm_metric_record_integer(PyObject *metric, int64_t value)
{
    Py_XDECREF(record_number((const mm_metric *)metric, MM_METRIC_INT, (uint64_t)value));
}

PyObject *mm_metric_record_number(PyObject *metric, mm_number number)
{
    return record_number((const mm_metric *)metric, number.kind, number.bits);
}

static void metric_dealloc(PyObject *self)
{
    Py_XDECREF(((mm_metric *)self)->own);
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

int mm_declare(PyObject *args, int is_metric, mm_declaration *declaration)
{
    mm_declaration *to = declaration;
    to->with_context = 0;
    if (!PyArg_ParseTuple(args, is_metric ? "USSSIO!p" : "USSSIO!", &to->name, &to->unit, &to->target, &to->file, &to->line,
                          &PyTuple_Type, &to->properties, &to->with_context)) {
        return -1;
    }
    Py_ssize_t count = PyTuple_GET_SIZE(to->properties);
    mm_text *texts = PyMem_Calloc((size_t)count + 1, sizeof *texts);
    if (!texts) {
        PyErr_NoMemory();
        return -1;
    }
    for (Py_ssize_t index = 0; index < count; index++) {
        PyObject *text = PyTuple_GET_ITEM(to->properties, index);
        if (!PyBytes_Check(text)) {
            PyMem_Free(texts);
            PyErr_SetString(PyExc_TypeError, "metric: properties must be bytes");
            return -1;
        }
        texts[index] = mm_text_of(text);
    }
    PyObject *name = mm_utf8(to->name);
    to->descriptor = name ? mm_describe_metric(mm_text_of(name), mm_text_of(to->unit), mm_text_of(to->target),
                                               mm_text_of(to->file), to->line, texts, (size_t)count)
                          : NULL;
    Py_XDECREF(name);
    PyMem_Free(texts);
    return 0;
}

static PyObject *decoded(PyObject *utf8)
{
    return PyUnicode_DecodeUTF8(PyBytes_AS_STRING(utf8), PyBytes_GET_SIZE(utf8), "replace");
}

/* What a description would have told, as properties of which readers take the first three for the measure's own. */
static mm_property_set *own_properties(const mm_declaration *declaration)
{
    Py_ssize_t declared = PyTuple_GET_SIZE(declaration->properties) / 2;
    PyObject *pairs = PyTuple_New(3 + declared);
    for (Py_ssize_t index = 0; pairs && index < 3 + declared; index++) {
        PyObject *pair;
        if (index < 3) {
            static const char *const names[] = {"name", "unit", "target"};
            PyObject *value = index == 0   ? Py_NewRef(declaration->name)
                              : index == 1 ? decoded(declaration->unit)
                                           : decoded(declaration->target);
            pair = value ? Py_BuildValue("sN", names[index], value) : NULL;
        }
        else {
            PyObject *name = decoded(PyTuple_GET_ITEM(declaration->properties, 2 * (index - 3)));
            PyObject *value = decoded(PyTuple_GET_ITEM(declaration->properties, 2 * (index - 3) + 1));
            pair = name && value ? PyTuple_Pack(2, name, value) : NULL;
            Py_XDECREF(name);
            Py_XDECREF(value);
        }
        if (pair) {
            PyTuple_SET_ITEM(pairs, index, pair);
        }
        else {
            Py_CLEAR(pairs);
        }
    }
    PyObject *set = pairs ? mm_new_property_set(pairs) : NULL;
    Py_XDECREF(pairs);
    return (mm_property_set *)set;
}

PyObject *mm_metric_of(const mm_declaration *declaration)
{
    mm_property_set *own = declaration->descriptor ? NULL : own_properties(declaration);
    mm_metric *metric = declaration->descriptor || own ? PyObject_New(mm_metric, &mm_MetricType) : NULL;
    if (!metric) {
        Py_XDECREF(own);
        return NULL;
    }
    metric->descriptor = own ? beyond : declaration->descriptor;
    metric->with_context = declaration->with_context;
    metric->room = own || declaration->with_context ? SIZE_MAX / 2 : sizeof(measure);
    metric->own = own;
    metric->name = Py_NewRef(declaration->name);
    return (PyObject *)metric;
}

PyObject *mm_make_metric(PyObject *module, PyObject *args)
{
    (void)module;
    mm_declaration declaration;
    return mm_declare(args, 1, &declaration) < 0 ? NULL : mm_metric_of(&declaration);
}

int mm_metric_init(void)
{
    static const char name[] = "(metric beyond the limit of descriptions)", target[] = "micromegas.recorder";
    mm_text empty = {"", 0};
    beyond = mm_describe_metric((mm_text){name, sizeof name - 1}, empty, (mm_text){target, sizeof target - 1}, empty, 0, &empty, 0);
    return beyond ? 0 : -1;
}

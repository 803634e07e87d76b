/* Counters: summed in place, no event per call. The native thread sends what was added since it last looked.
 *
 * The caller only ever adds to a running total and the reader only ever reads it, so neither needs a locked instruction.
 */
#include "recorder.h"

#include <math.h>
#include <string.h>

typedef struct {
    PyObject_HEAD
    mm_sum *sum;      /* never freed: the native thread follows the list; NULL when there were too many counters */
    PyObject *events; /* then: the metric that each addition is a measure of */
    PyObject *name;
} mm_counter;

static mm_sum *sums;

mm_sum *mm_first_sum(void)
{
    return __atomic_load_n(&sums, __ATOMIC_ACQUIRE);
}

static inline void add_integer(mm_sum *sum, int64_t amount)
{
    /* Unsigned, because a total may wrap: the reader takes differences. */
    __atomic_store_n(&sum->integers, (int64_t)((uint64_t)sum->integers + (uint64_t)amount), __ATOMIC_RELAXED);
}

static __attribute__((noinline)) PyObject *refuse(void)
{
    if (PyErr_Occurred() && mm_swallow_error() < 0) {
        return NULL;
    }
    __atomic_fetch_add(&mm_refused_values, 1, __ATOMIC_RELAXED);
    Py_RETURN_NONE;
}

/* Larger integers are added as doubles, which is what readers see of sums anyway: what is added within a flush period must not
 * wrap, and of these that takes 2^31 additions. */
#define LARGEST_SUMMED (1LL << 32)

static __attribute__((noinline)) PyObject *add_other(mm_sum *sum, PyObject *amount)
{
    mm_number number;
    if (!mm_number_of(amount, &number)) {
        return refuse();
    }
    int64_t integer = (int64_t)number.bits;
    double real;
    if (number.kind == MM_METRIC_FLOAT) {
        memcpy(&real, &number.bits, 8);
    } else if (-LARGEST_SUMMED <= integer && integer <= LARGEST_SUMMED) {
        add_integer(sum, integer);
        Py_RETURN_NONE;
    } else {
        real = (double)integer;
    }
    double total = sum->floats + real;
    if (!isfinite(real) || !isfinite(total)) {
        return refuse(); /* one nan would hide everything that is added later */
    }
    __atomic_store(&sum->floats, &total, __ATOMIC_RELAXED);
    Py_RETURN_NONE;
}

static __attribute__((noinline)) PyObject *add_as_event(PyObject *metric, PyObject *amount)
{
    mm_number number;
    if (!mm_number_of(amount, &number)) {
        return refuse();
    }
    double real;
    memcpy(&real, &number.bits, 8);
    if (number.kind == MM_METRIC_FLOAT && !isfinite(real)) {
        return refuse(); /* as a sum would */
    }
    return mm_metric_record_number(metric, number);
}

static PyObject *counter_add(PyObject *self, PyObject *amount)
{
    mm_sum *sum = ((mm_counter *)self)->sum;
    if (__builtin_expect(!sum, 0)) {
        return add_as_event(((mm_counter *)self)->events, amount);
    }
    if (mm_is_small_int(amount)) {
        add_integer(sum, mm_small_int(amount));
        Py_RETURN_NONE;
    }
    return add_other(sum, amount);
}

static void counter_dealloc(PyObject *self)
{
    Py_XDECREF(((mm_counter *)self)->events);
    Py_XDECREF(((mm_counter *)self)->name);
    Py_TYPE(self)->tp_free(self);
}

static PyObject *counter_repr(PyObject *self)
{
    return PyUnicode_FromFormat("<counter %R>", ((mm_counter *)self)->name);
}

static PyMethodDef counter_methods[] = {
    {"add", counter_add, METH_O, "(amount, /): add to the counter; what was added is sent once per flush period"},
    {NULL, NULL, 0, NULL},
};

PyTypeObject mm_CounterType = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "micromegas._core.Counter",
    .tp_doc = "A sum that is sent once per flush period.",
    .tp_basicsize = sizeof(mm_counter),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .tp_dealloc = counter_dealloc,
    .tp_repr = counter_repr,
    .tp_methods = counter_methods,
};

/* The sum of the counter that is described so; NULL: there are too many. */
static mm_sum *sum_of(const void *descriptor)
{
    mm_sum *sum = sums;
    while (sum && sum->descriptor != descriptor) {
        sum = sum->next; /* the same counter declared again adds to the same sum */
    }
    if (!sum && (sum = mm_new_sum())) {
        sum->descriptor = descriptor;
        sum->next = sums;
        __atomic_store_n(&sums, sum, __ATOMIC_RELEASE);
    }
    return sum;
}

PyObject *mm_make_counter(PyObject *module, PyObject *args)
{
    (void)module;
    mm_declaration declaration;
    if (mm_declare(args, 0, &declaration) < 0) {
        return NULL;
    }
    mm_sum *sum = declaration.descriptor ? sum_of(declaration.descriptor) : NULL;
    PyObject *events = NULL;
    if (!sum) {
        mm_limit_reached(MM_COUNTERS);
        events = mm_metric_of(&declaration);
        if (!events) {
            return NULL;
        }
    }
    mm_counter *counter = PyObject_New(mm_counter, &mm_CounterType);
    if (!counter) {
        Py_XDECREF(events);
        return NULL;
    }
    counter->name = Py_NewRef(declaration.name);
    counter->sum = sum;
    counter->events = events;
    return (PyObject *)counter;
}

/* Property sets: made once, then written into records by a copy.
 *
 * Equal interned sets are one object, so they are compared by pointer. Interned sets are never freed, so their number and
 * size are capped; the sets of contexts live as long as Python needs them.
 */
#include "recorder.h"

#include <stdlib.h>
#include <string.h>

#define MM_MAX_INTERNED 65536
#define MM_MAX_INTERNED_BYTES (32u << 20)
/* Room for the words that tell of a cut, so that a text that was cut is not cut again. */
#define MM_CUT_UNITS 64

uintptr_t mm_log_extras;
mm_property_set *mm_global_properties;

static PyObject *interned; /* tuple of pairs → set */
static size_t interned_bytes;
static PyObject *context_variable;

PyObject *mm_text_of_object(PyObject *object)
{
    mm_value value;
    if (mm_value_measure(&value, object, 's') < 0) {
        return NULL;
    }
    PyObject *text = value.owned;
    if (!text) {
        text = PyUnicode_CheckExact(object) ? Py_NewRef(object) : PyObject_Str(object); /* a plain scalar: has a str() */
    }
    if (text && PyUnicode_GET_LENGTH(text) > MM_MAX_PROPERTY_UNITS + MM_CUT_UNITS) {
        PyObject *start = PyUnicode_Substring(text, 0, MM_MAX_PROPERTY_UNITS);
        PyObject *cut = start ? PyUnicode_FromFormat("%U%s%zd characters]", start, "… [cut: ", PyUnicode_GET_LENGTH(text)) : NULL;
        Py_XDECREF(start);
        Py_SETREF(text, cut);
    }
    return text;
}

PyObject *mm_safe_text(PyObject *module, PyObject *object)
{
    (void)module;
    return mm_text_of_object(object);
}

/* Sorted tuple of (name, value), both str; NULL with an error. */
static PyObject *pairs_of(PyObject *mapping)
{
    PyObject *names = PyDict_Keys(mapping);
    if (!names || PyList_Sort(names) < 0) {
        Py_XDECREF(names);
        return NULL;
    }
    Py_ssize_t count = PyList_GET_SIZE(names);
    if (count > MM_MAX_SET_PROPERTIES) {
        __atomic_fetch_add(&mm_refused_values, (uint64_t)(count - MM_MAX_SET_PROPERTIES), __ATOMIC_RELAXED);
        count = MM_MAX_SET_PROPERTIES;
    }
    PyObject *pairs = PyTuple_New(count);
    for (Py_ssize_t index = 0; pairs && index < count; index++) {
        PyObject *name = PyList_GET_ITEM(names, index);
        PyObject *value = PyDict_GetItemWithError(mapping, name);
        PyObject *text = value ? mm_text_of_object(value) : NULL;
        PyObject *pair = text ? PyTuple_Pack(2, name, text) : NULL;
        Py_XDECREF(text);
        if (pair) {
            PyTuple_SET_ITEM(pairs, index, pair);
        }
        else {
            Py_CLEAR(pairs);
        }
    }
    Py_DECREF(names);
    return pairs;
}

/* The set as the values of a log record. Returns 0, or -1 with an error. */
static int encode(mm_property_set *set)
{
    size_t texts = 2 * set->count;
    mm_value *values = PyMem_Calloc(texts + 1, sizeof *values);
    if (!values) {
        PyErr_NoMemory();
        return -1;
    }
    for (size_t index = 0; index < texts; index++) {
        PyObject *pair = PyTuple_GET_ITEM(set->pairs, (Py_ssize_t)(index / 2));
        mm_value_measure(&values[index], PyTuple_GET_ITEM(pair, (Py_ssize_t)(index % 2)), 's'); /* str: can't fail */
        set->size += values[index].size;
    }
    set->encoded = PyMem_Malloc(set->size + 1);
    if (set->encoded) {
        uint8_t *to = set->encoded;
        for (size_t index = 0; index < texts; index++) {
            to = mm_value_write(&values[index], to);
        }
    }
    PyMem_Free(values);
    if (!set->encoded) {
        PyErr_NoMemory();
        return -1;
    }
    return 0;
}

PyObject *mm_new_property_set(PyObject *pairs)
{
    mm_property_set *set = PyObject_New(mm_property_set, &mm_PropertySetType);
    if (set) {
        set->interned = 0;
        set->pairs = Py_NewRef(pairs);
        set->count = (size_t)PyTuple_GET_SIZE(pairs);
        set->size = 0;
        set->encoded = NULL;
        if (encode(set) < 0) {
            Py_CLEAR(set);
        }
    }
    return (PyObject *)set;
}

static PyObject *interned_set(PyObject *pairs)
{
    if (!interned && !(interned = PyDict_New())) {
        return NULL;
    }
    PyObject *known = PyDict_GetItemWithError(interned, pairs);
    if (known || PyErr_Occurred()) {
        return Py_XNewRef(known);
    }
    PyObject *set = mm_new_property_set(pairs);
    if (set && PyDict_GET_SIZE(interned) < MM_MAX_INTERNED && interned_bytes < MM_MAX_INTERNED_BYTES) {
        ((mm_property_set *)set)->interned = 1;
        interned_bytes += ((mm_property_set *)set)->size;
        if (PyDict_SetItem(interned, pairs, set) < 0) {
            Py_CLEAR(set);
        }
    }
    else if (set) {
        mm_limit_reached(MM_PROPERTY_SETS);
    }
    return set;
}

PyObject *mm_make_properties(PyObject *module, PyObject *args)
{
    (void)module;
    PyObject *mapping;
    int kept;
    if (!PyArg_ParseTuple(args, "O!p", &PyDict_Type, &mapping, &kept)) {
        return NULL;
    }
    PyObject *pairs = pairs_of(mapping);
    PyObject *set = pairs ? (kept ? interned_set(pairs) : mm_new_property_set(pairs)) : NULL;
    Py_XDECREF(pairs);
    return set;
}

/* ---- what every log gets ------------------------------------------------------------------------------------------------- */

int mm_property_set_init(PyObject *module)
{
    if (!context_variable) {
        context_variable = PyContextVar_New("micromegas_properties", NULL);
    }
    return context_variable ? PyModule_AddObjectRef(module, "context_properties", context_variable) : -1;
}

PyObject *mm_use_context(PyObject *module, PyObject *unused)
{
    (void)module;
    (void)unused;
    mm_log_extras |= 1;
    mm_log_hot_sites_clear();
    Py_RETURN_NONE;
}

PyObject *mm_set_global_properties(PyObject *module, PyObject *set)
{
    (void)module;
    if (set != Py_None && Py_TYPE(set) != &mm_PropertySetType) {
        PyErr_SetString(PyExc_TypeError, "set_global_properties: not a property set");
        return NULL;
    }
    int is_empty = set == Py_None || ((mm_property_set *)set)->count == 0;
    mm_log_extras = (mm_log_extras & ~(uintptr_t)2) | (is_empty ? 0 : 2);
    mm_log_hot_sites_clear();
    Py_XSETREF(mm_global_properties, is_empty ? NULL : (mm_property_set *)Py_NewRef(set));
    Py_RETURN_NONE;
}

mm_property_set *mm_context_properties(void)
{
    PyObject *set = NULL;
    if (!(mm_log_extras & 1)) {
        return NULL;
    }
    if (PyContextVar_Get(context_variable, NULL, &set) < 0) {
        PyErr_Clear();
    }
    if (set && (Py_TYPE(set) != &mm_PropertySetType || ((mm_property_set *)set)->count == 0)) {
        Py_CLEAR(set);
    }
    return (mm_property_set *)set;
}

/* ---- type ---------------------------------------------------------------------------------------------------------------- */

static void set_dealloc(PyObject *self)
{
    PyMem_Free(((mm_property_set *)self)->encoded);
    Py_XDECREF(((mm_property_set *)self)->pairs);
    Py_TYPE(self)->tp_free(self);
}

static PyObject *set_repr(PyObject *self)
{
    return PyUnicode_FromFormat("<properties %R>", ((mm_property_set *)self)->pairs);
}

static PyObject *set_pairs(PyObject *self, void *unused)
{
    (void)unused;
    return Py_NewRef(((mm_property_set *)self)->pairs);
}

static PyObject *set_is_interned(PyObject *self, void *unused)
{
    (void)unused;
    return PyBool_FromLong(((mm_property_set *)self)->interned);
}

static PyGetSetDef set_getset[] = {
    {"pairs", set_pairs, NULL, "(name, value) pairs, sorted by name.", NULL},
    {"interned", set_is_interned, NULL, "Whether equal sets are this very object.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

PyTypeObject mm_PropertySetType = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "micromegas._core.PropertySet",
    .tp_doc = "Names and values, both text, that never change.",
    .tp_basicsize = sizeof(mm_property_set),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .tp_dealloc = set_dealloc,
    .tp_repr = set_repr,
    .tp_getset = set_getset,
};

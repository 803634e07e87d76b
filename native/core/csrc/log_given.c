/* The long way of a log event: any values, properties, exceptions, sets of properties. In two passes, measure and write, so
 * that everything that can run Python code happens before room is reserved.
 */
#include "log.h"

#include <string.h>

enum { WORD_EXC_INFO, WORD_PROPERTIES, WORD_EXTRA, WORD_STACK_INFO, WORD_STACKLEVEL, WORD_TYPE, WORD_MESSAGE, WORDS };
static PyObject *words[WORDS];

/* ---- values --------------------------------------------------------------------------------------------------------------- */

/* Measured values; the first few need no memory of their own. */
typedef struct {
    mm_value *items;
    size_t count;
    size_t room;
    size_t bytes; /* of the record */
    mm_value few[6];
} measured;

/* 0, 1, -1 as mm_value_measure; 1 also without memory. */
static int measure(measured *values, PyObject *object, char conversion)
{
    if (values->count == values->room) {
        size_t room = values->room * 4;
        mm_value *wider = PyMem_Malloc(room * sizeof *wider);
        if (!wider) {
            return 1;
        }
        memcpy(wider, values->items, values->count * sizeof *wider);
        if (values->items != values->few) {
            PyMem_Free(values->items);
        }
        values->items = wider;
        values->room = room;
    }
    mm_value *value = &values->items[values->count];
    int status = mm_value_measure(value, object, conversion);
    if (status == 0) {
        values->count++;
        values->bytes += value->size;
    }
    return status;
}

static void forget_values(measured *values, size_t from)
{
    for (size_t index = from; index < values->count; index++) {
        values->bytes -= values->items[index].size;
    }
    mm_values_clear(values->items + from, values->count - from);
    values->count = from;
}

static int is_word(PyObject *name, PyObject *word)
{
    return name == word || (PyUnicode_GET_LENGTH(name) == PyUnicode_GET_LENGTH(word) && PyUnicode_Compare(name, word) == 0);
}

/* The place for what such a name gives; NULL: it is a property. */
static int takes_word(mm_log_given *given, const mm_log *self, PyObject *name, PyObject *value)
{
    if (is_word(name, words[WORD_EXC_INFO])) {
        given->exception = value == Py_None || value == Py_False ? NULL : value;
        return 1;
    }
    if (is_word(name, words[WORD_PROPERTIES]) && Py_TYPE(value) == &mm_PropertySetType) {
        if (given->set_count <= MM_AMBIENT_SETS) {
            given->sets[given->set_count++] = (mm_property_set *)Py_NewRef(value);
        }
        return 1;
    }
    if (!self->is_stdlib) {
        return 0;
    }
    if (is_word(name, words[WORD_EXTRA])) {
        given->extra = PyDict_Check(value) ? value : NULL;
        return 1;
    }
    if (is_word(name, words[WORD_STACK_INFO])) {
        given->stack = PyObject_IsTrue(value) == 1 ? value : NULL;
        PyErr_Clear();
        return 1;
    }
    return is_word(name, words[WORD_STACKLEVEL]);
}

static int measure_property(measured *values, size_t *count, PyObject *name, PyObject *value)
{
    if (*count >= MM_MAX_VALUES) {
        __atomic_fetch_add(&mm_refused_values, 1, __ATOMIC_RELAXED);
        return 0;
    }
    size_t before = values->count;
    int status = measure(values, name, 's');
    status = status == 0 ? measure(values, value, 's') : status;
    if (status == 0) {
        (*count)++;
    }
    else {
        forget_values(values, before);
    }
    return status;
}

/* Gives 0 and the number of own pairs measured, or -1. */
static int measure_properties(measured *values, const mm_log_given *given, const mm_log *self, size_t *count)
{
    mm_log_given unused = {0};
    for (Py_ssize_t index = 0; index < given->name_count; index++) {
        PyObject *name = PyTuple_GET_ITEM(given->names, index);
        PyObject *value = given->values[index];
        if (takes_word(&unused, self, name, value)) {
            continue;
        }
        if (measure_property(values, count, name, value) < 0) {
            break;
        }
    }
    for (size_t index = 0; index < unused.set_count; index++) {
        Py_DECREF(unused.sets[index]);
    }
    if (given->extra && !PyErr_Occurred()) {
        PyObject *name, *value;
        PyObject *copy = PyDict_Copy(given->extra); /* a __str__ may change the original */
        Py_ssize_t position = 0;
        while (copy && PyDict_Next(copy, &position, &name, &value)) {
            if (given->no_extra && PySet_Contains(given->no_extra, name) == 1) {
                continue;
            }
            if (measure_property(values, count, name, value) < 0) {
                break;
            }
        }
        Py_XDECREF(copy);
    }
    return PyErr_Occurred() && mm_swallow_error() < 0 ? -1 : 0;
}

/* The same where Python code can't run any more: at the recursion limit, while the interpreter ends. */
static PyObject *poor_description(PyObject *given)
{
    PyObject *error = given && PyExceptionInstance_Check(given) ? Py_NewRef(given) : PyErr_GetHandledException();
    PyObject *found = NULL;
    if (error && PyExceptionInstance_Check(error)) {
        const char *type = Py_TYPE(error)->tp_name;
        PyObject *message = mm_text_of_object(error);
        PyObject *text = message ? PyUnicode_FromFormat("%.200s: %U [no traceback]", type, message) : NULL;
        found = text ? Py_BuildValue("OsO", text, type, message) : NULL;
        Py_XDECREF(message);
        Py_XDECREF(text);
    }
    Py_XDECREF(error);
    return found;
}

/* (text, type, message) of an exception, from micromegas.record.exceptions; NULL without an error: there is none. */
static PyObject *described_exception(const mm_log_given *given)
{
    static PyObject *describe;
    if (!describe) {
        PyObject *module = PyImport_ImportModule("micromegas.record.exceptions");
        describe = module ? PyObject_GetAttrString(module, "describe") : NULL;
        Py_XDECREF(module);
    }
    PyObject *found = NULL;
    if (describe && mm_value_enter()) {
        found = PyObject_CallFunctionObjArgs(describe, given->exception ? given->exception : Py_None,
                                             given->stack ? Py_True : Py_False, NULL);
        mm_value_leave();
    }
    if (found == Py_None) {
        Py_CLEAR(found);
    }
    else if (!found && PyErr_ExceptionMatches(PyExc_Exception)) {
        PyErr_Clear();
        found = poor_description(given->exception);
    }
    return found;
}

static void write_record(const void *descriptor, enum mm_kind kind, const measured *values, size_t value_count,
                         const mm_log_given *given)
{
    size_t size = sizeof(mm_record) + 8 + values->bytes;
    size_t properties = (values->count - value_count) / 2;
    for (size_t index = 0; index < given->set_count; index++) {
        size += given->sets[index]->size;
        properties += given->sets[index]->count;
    }
    mm_block *block = mm_reserve(size, kind);
    if (!block) {
        return;
    }
    mm_write_head(block, descriptor, kind);
    uint8_t *to = block->cursor + sizeof(mm_record);
    *(uint64_t *)to = (uint64_t)size | (uint64_t)value_count << 32 | (uint64_t)properties << 48;
    to += 8;
    for (size_t index = 0; index < value_count; index++) {
        to = mm_value_write(&values->items[index], to);
    }
    for (size_t index = 0; index < given->set_count; index++) {
        memcpy(to, given->sets[index]->encoded, given->sets[index]->size);
        to += given->sets[index]->size;
    }
    for (size_t index = value_count; index < values->count; index++) {
        to = mm_value_write(&values->items[index], to);
    }
    mm_commit(block, size);
}

/* Makes the message here. 0: measured as the only value; 1: lost for want of memory; -1. */
static int measure_message(measured *values, PyObject *const *args, Py_ssize_t count, PyObject *traceback)
{
    PyObject *message = mm_log_message(args[0], args + 1, count - 1);
    if (message && traceback) {
        PyObject *whole = PyUnicode_FromFormat("%U\n%U", message, traceback);
        Py_SETREF(message, whole);
    }
    if (!message) {
        return mm_swallow_error() < 0 ? -1 : 1;
    }
    int status = measure(values, message, 's');
    if (status == 0 && !values->items[0].owned) {
        values->items[0].owned = message; /* kept until it is copied */
        return 0;
    }
    Py_DECREF(message);
    return status;
}

int mm_log_record(const mm_log *self, int level, mm_site *site, PyObject *const *args, Py_ssize_t count, const mm_log_given *given)
{
    measured values; /* not cleared as a whole */
    values.items = values.few;
    values.room = sizeof values.few / sizeof *values.few;
    values.count = values.bytes = 0;
    const void *descriptor = NULL;
    PyObject *exception = NULL, *traceback = NULL;
    size_t value_count = 0, pairs = 0;
    int status = 1;
    if (given->exception || given->stack) {
        exception = described_exception(given);
        if (!exception && mm_swallow_error() < 0) {
            return -1;
        }
    }
    if (exception && given->stack_text) {
        traceback = PyUnicode_FromFormat("%U\n%U", PyTuple_GET_ITEM(exception, 0), given->stack_text);
    }
    else {
        traceback = Py_XNewRef(exception ? PyTuple_GET_ITEM(exception, 0) : given->stack_text);
    }
    if (site && site->text == args[0] && count == 1 && !traceback && !given->names && !given->set_count && !given->extra) {
        mm_emit(site->descriptor, MM_LOG_LITERAL);
        return 0;
    }
    if (site && site->text == args[0] && count - 1 == site->conversion_count && !traceback) {
        status = 0;
        for (Py_ssize_t index = 1; index < count && status == 0; index++) {
            status = measure(&values, args[index], site->conversions[index - 1]);
        }
        if (status == 0) {
            descriptor = site->descriptor;
            value_count = (size_t)count - 1;
        }
        else {
            forget_values(&values, 0);
        }
    }
    if (status == 1) {
        status = measure_message(&values, args, count, traceback);
        value_count = 1;
    }
    if (status == 0 && exception && PyTuple_GET_ITEM(exception, 1) != Py_None) {
        for (int index = 0; index < 2 && status == 0; index++) {
            status = measure_property(&values, &pairs, words[WORD_TYPE + index], PyTuple_GET_ITEM(exception, index + 1));
        }
    }
    if (status == 0) {
        status = measure_properties(&values, given, self, &pairs);
    }
    if (status == 0) {
        enum mm_kind kind = descriptor ? MM_LOG_VALUES : MM_LOG_TEXT;
        write_record(descriptor ? descriptor : mm_log_varying(site, level, self), kind, &values, value_count, given);
    }
    forget_values(&values, 0);
    if (values.items != values.few) {
        PyMem_Free(values.items);
    }
    Py_XDECREF(traceback);
    Py_XDECREF(exception);
    return status < 0 ? -1 : 0;
}

/* ---- what a call gives ----------------------------------------------------------------------------------------------------- */

size_t mm_log_ambient_sets(mm_property_set **sets)
{
    size_t count = 0;
    if (mm_global_properties) {
        sets[count++] = (mm_property_set *)Py_NewRef(mm_global_properties);
    }
    mm_property_set *bound = mm_context_properties();
    if (bound) {
        sets[count++] = bound;
    }
    return count;
}

void mm_log_take(mm_log_given *given, const mm_log *self, PyObject *const *values, PyObject *names)
{
    if (mm_log_extras) {
        given->set_count = mm_log_ambient_sets(given->sets);
    }
    given->values = values;
    given->names = names;
    given->name_count = names ? PyTuple_GET_SIZE(names) : 0;
    for (Py_ssize_t index = 0; index < given->name_count; index++) {
        takes_word(given, self, PyTuple_GET_ITEM(names, index), values[index]);
    }
}

void mm_log_forget(mm_log_given *given)
{
    for (size_t index = 0; index < given->set_count; index++) {
        Py_DECREF(given->sets[index]);
    }
}

int mm_log_given_init(void)
{
    static const char *const texts[WORDS] = {"exc_info",   "properties",     "extra",            "stack_info",
                                             "stacklevel", "exception.type", "exception.message"};
    for (int index = 0; index < WORDS; index++) {
        if (!words[index] && !(words[index] = PyUnicode_InternFromString(texts[index]))) {
            return -1;
        }
    }
    return 0;
}

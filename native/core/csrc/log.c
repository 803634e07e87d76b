/* `micromegas.log`: one method per level. A call copies its values; the native thread makes the message.
 *
 * Must never raise for what is being logged: broken objects and templates become part of the message.
 */
#include "recorder.h"

#include "caller.h"

int mm_log_level = MM_DEBUG;

/* What is longer is data, and is not kept for ever. */
#define MM_MAX_LITERAL (64 << 10)

typedef struct {
    PyObject_HEAD
} mm_log;

/* ---- the message made in the caller ------------------------------------------------------------------------------------- */

/* As stdlib logging: a single mapping is the operand itself, so that "%(name)s" works. */
static PyObject *operand_of(PyObject *const *args, Py_ssize_t count)
{
    if (count == 1 && PyMapping_Check(args[0]) && !PyTuple_Check(args[0]) && !PyUnicode_Check(args[0]) &&
        !PyBytes_Check(args[0]) && PyMapping_Size(args[0]) > 0) {
        return Py_NewRef(args[0]);
    }
    if (mm_swallow_error() < 0) {
        return NULL;
    }
    PyObject *tuple = PyTuple_New(count);
    for (Py_ssize_t index = 0; tuple && index < count; index++) {
        PyTuple_SET_ITEM(tuple, index, Py_NewRef(args[index]));
    }
    return tuple;
}

/* The template and what was given for it, when the two do not fit. */
static PyObject *misfit_message(PyObject *template, PyObject *operand, PyObject *reason)
{
    PyObject *given = PyObject_Repr(operand);
    if (!given) {
        if (mm_swallow_error() < 0) {
            return NULL;
        }
        given = PyUnicode_FromString("(unprintable values)");
    }
    PyObject *why = reason ? PyObject_Str(reason) : NULL;
    if (!why) {
        if (mm_swallow_error() < 0) {
            Py_XDECREF(given);
            return NULL;
        }
        why = PyUnicode_FromString("unknown error");
    }
    PyObject *message = NULL;
    if (given && why) {
        message = PyUnicode_FromFormat("%U %% %U [not formatted: %U]", template, given, why);
    }
    Py_XDECREF(given);
    Py_XDECREF(why);
    return message;
}

/* NULL with an exception set: only what must reach the program. NULL without: no memory, the event is lost. */
static PyObject *format_now(PyObject *template, PyObject *const *args, Py_ssize_t count)
{
    PyObject *message = NULL;
    if (!PyUnicode_Check(template)) {
        mm_value value;
        if (mm_value_measure(&value, template, 's') < 0) {
            return NULL;
        }
        template = value.owned ? value.owned : PyObject_Str(template); /* a scalar: its str() can't fail but for memory */
        if (!template) {
            mm_swallow_error();
            return NULL;
        }
    }
    else {
        Py_INCREF(template);
    }
    if (count == 0) {
        return template;
    }
    PyObject *operand = operand_of(args, count);
    if (operand) {
        message = PyUnicode_Format(template, operand);
        if (!message && PyErr_ExceptionMatches(PyExc_Exception)) {
            PyObject *type, *reason, *traceback;
            PyErr_Fetch(&type, &reason, &traceback);
            PyErr_NormalizeException(&type, &reason, &traceback);
            message = misfit_message(template, operand, reason);
            Py_XDECREF(type);
            Py_XDECREF(reason);
            Py_XDECREF(traceback);
        }
        Py_DECREF(operand);
    }
    Py_DECREF(template);
    if (!message) {
        mm_swallow_error();
    }
    return message;
}

/* ---- recording ----------------------------------------------------------------------------------------------------------- */

static int measure_properties(mm_value *values, PyObject *const *given, PyObject *names, Py_ssize_t count)
{
    for (Py_ssize_t index = 0; index < count; index++) {
        mm_value *pair = values + 2 * index;
        pair[1].owned = NULL;
        if (mm_value_measure(&pair[0], PyTuple_GET_ITEM(names, index), 's') < 0 ||
            mm_value_measure(&pair[1], given[index], 's') < 0) {
            mm_values_clear(values, 2 * (size_t)index + 2);
            return -1;
        }
    }
    return 0;
}

/* Reserves, stamps and writes one log record; clears the values. */
static void write_record(const void *descriptor, enum mm_kind kind, mm_value *values, size_t value_count, size_t property_count)
{
    size_t all = value_count + 2 * property_count;
    size_t size = sizeof(mm_record) + 8;
    for (size_t index = 0; index < all; index++) {
        size += values[index].size;
    }
    mm_block *block = mm_reserve(size, kind);
    if (block) {
        mm_write_head(block, descriptor, kind);
        uint8_t *to = block->cursor + sizeof(mm_record);
        *(uint64_t *)to = (uint64_t)size | (uint64_t)value_count << 32 | (uint64_t)property_count << 48;
        to += 8;
        for (size_t index = 0; index < all; index++) {
            to = mm_value_write(&values[index], to);
        }
        mm_commit(block, size);
    }
    mm_values_clear(values, all);
}

/* Of the site, or (also when there are too many descriptors) the one that all other sites of a level share. */
static const void *varying_descriptor(mm_site *site, int level)
{
    static const void *overflow[MM_TRACE + 1];
    const void **place_for = site ? &site->varying : &overflow[level];
    if (!*place_for) {
        mm_place place = {0};
        if (site) {
            mm_place_of_caller(&place);
        }
        char unused[MM_MAX_VALUES];
        int count;
        *place_for = mm_describe_log((uint32_t)level, place.line, (mm_text){"%s", 2}, mm_text_of(place.target),
                                     mm_text_of(place.file), unused, &count);
        mm_place_clear(&place);
        if (!*place_for && site) {
            return varying_descriptor(NULL, level);
        }
    }
    return *place_for;
}

int mm_log_init(void)
{
    for (int level = MM_FATAL; level <= MM_TRACE; level++) {
        if (!varying_descriptor(NULL, level)) {
            PyErr_NoMemory();
            return -1;
        }
    }
    return 0;
}

/* The way for every call that the site can't defer: the message is made here. Returns -1 with an exception set. */
static __attribute__((noinline)) int record_text(mm_site *site, int level, PyObject *const *args, Py_ssize_t count,
                                                 PyObject *const *property_values, PyObject *names, Py_ssize_t property_count)
{
    mm_value values[1 + 2 * MM_MAX_VALUES];
    if (property_count > MM_MAX_VALUES) {
        __atomic_fetch_add(&mm_refused_values, (uint64_t)(property_count - MM_MAX_VALUES), __ATOMIC_RELAXED);
        property_count = MM_MAX_VALUES;
    }
    PyObject *message = format_now(args[0], args + 1, count - 1);
    if (!message) {
        return PyErr_Occurred() ? -1 : 0;
    }
    const void *descriptor = varying_descriptor(site, level);
    int status = descriptor ? mm_value_measure(&values[0], message, 's') : 0;
    if (descriptor && status == 0) {
        status = measure_properties(values + 1, property_values, names, property_count);
        if (status == 0) {
            write_record(descriptor, MM_LOG_TEXT, values, 1, (size_t)property_count);
        }
        else {
            mm_values_clear(values, 1);
        }
    }
    Py_DECREF(message);
    return status;
}

static __attribute__((noinline)) mm_site *add_site(uintptr_t key, int level, PyObject *text)
{
    mm_place place;
    mm_place_of_caller(&place);
    int is_literal = PyUnicode_CheckExact(text) && PyUnicode_GET_LENGTH(text) <= MM_MAX_LITERAL;
    mm_site *site = mm_site_add(key, is_literal ? text : NULL, place.code);
    if (site && site->text) {
        PyObject *template = mm_utf8(text);
        if (template) {
            site->descriptor =
                mm_describe_log((uint32_t)level, place.line, mm_text_of(template), mm_text_of(place.target),
                                mm_text_of(place.file), site->conversions, &site->conversion_count);
            Py_DECREF(template);
        }
        if (!site->descriptor) {
            Py_CLEAR(site->text);
        }
    }
    mm_place_clear(&place);
    return site;
}

static inline PyObject *record_log(int level, PyObject *const *args, Py_ssize_t count, PyObject *names)
{
    if (level > mm_log_level) {
        Py_RETURN_NONE;
    }
    if (__builtin_expect(count < 1, 0)) {
        PyErr_SetString(PyExc_TypeError, "log: a message is missing");
        return NULL;
    }
    if (__builtin_expect(mm_recording == MM_OFF, 0)) {
        Py_RETURN_NONE;
    }
    uintptr_t key = mm_site_key(level);
    mm_site *site = mm_site_find(key);
    if (__builtin_expect(!site, 0)) {
        site = add_site(key, level, args[0]);
    }
    if (__builtin_expect(site && site->text == args[0], 1)) {
        if (count == 1 && !names) {
            mm_emit(site->descriptor, MM_LOG_LITERAL);
            Py_RETURN_NONE;
        }
        Py_ssize_t property_count = names ? PyTuple_GET_SIZE(names) : 0;
        if (count - 1 == site->conversion_count && property_count <= MM_MAX_VALUES) {
            mm_value values[3 * MM_MAX_VALUES];
            Py_ssize_t index = 0;
            int status = 0;
            for (; index < count - 1 && status == 0; index++) {
                status = mm_value_measure(&values[index], args[index + 1], site->conversions[index]);
            }
            if (status == 0 && property_count) {
                status = measure_properties(values + index, args + count, names, property_count);
            }
            if (status == 0) {
                write_record(site->descriptor, MM_LOG_VALUES, values, (size_t)index, (size_t)property_count);
                Py_RETURN_NONE;
            }
            mm_values_clear(values, (size_t)index);
            if (status < 0) {
                return NULL;
            }
        }
    }
    if (record_text(site, level, args, count, args + count, names, names ? PyTuple_GET_SIZE(names) : 0) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

#define LEVEL_METHOD(name, level)                                                                            \
    static PyObject *log_##name(PyObject *self, PyObject *const *args, Py_ssize_t count, PyObject *names)    \
    {                                                                                                        \
        (void)self;                                                                                          \
        return record_log(level, args, count, names);                                                        \
    }
LEVEL_METHOD(fatal, MM_FATAL)
LEVEL_METHOD(error, MM_ERROR)
LEVEL_METHOD(warn, MM_WARN)
LEVEL_METHOD(info, MM_INFO)
LEVEL_METHOD(debug, MM_DEBUG)
LEVEL_METHOD(trace, MM_TRACE)

static PyObject *log_set_level(PyObject *self, PyObject *level)
{
    (void)self;
    long number = PyLong_AsLong(level);
    if (number == -1 && PyErr_Occurred()) {
        return NULL;
    }
    if (number < 0 || number > MM_TRACE) {
        PyErr_Format(PyExc_ValueError, "log level %ld: not between 0 (off) and 6 (trace)", number);
        return NULL;
    }
    mm_log_level = (int)number;
    Py_RETURN_NONE;
}

static PyObject *log_get_level(PyObject *self, void *unused)
{
    (void)self;
    (void)unused;
    return PyLong_FromLong(mm_log_level);
}

#define LEVEL_ENTRY(name, function) \
    {name, (PyCFunction)(void (*)(void))function, METH_FASTCALL | METH_KEYWORDS, \
     "(message, /, *values, **properties): record a log event; the message is message % values, formatted elsewhere"}

static PyMethodDef log_methods[] = {
    LEVEL_ENTRY("fatal", log_fatal),
    LEVEL_ENTRY("critical", log_fatal),
    LEVEL_ENTRY("error", log_error),
    LEVEL_ENTRY("warn", log_warn),
    LEVEL_ENTRY("warning", log_warn),
    LEVEL_ENTRY("info", log_info),
    LEVEL_ENTRY("debug", log_debug),
    LEVEL_ENTRY("trace", log_trace),
    {"_set_level", log_set_level, METH_O, "Number of the last level recorded: 0 none, 1 fatal … 6 trace."},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef log_getset[] = {
    {"_level", log_get_level, NULL, "Number of the last level recorded.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

PyTypeObject mm_LogType = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "micromegas._core.Log",
    .tp_doc = "Records log events, one method per level.",
    .tp_basicsize = sizeof(mm_log),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .tp_methods = log_methods,
    .tp_getset = log_getset,
};

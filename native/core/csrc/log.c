/* `micromegas.log` and `mm.logger(target)`: one method per level. A call copies its values; the native thread makes the message.
 *
 * Must never raise for what is being logged: broken objects and templates become part of the message.
 */
#include "recorder.h"

#include <string.h>

#include "caller.h"

/* What is longer is data, and is not kept for ever. */
#define MM_MAX_LITERAL (64 << 10)
/* Calls with at most so many values, and properties, none a longer text, take the short way. */
#define MM_FEW_VALUES 4
#define MM_SHORT_TEXT 64
#define MM_SHORT_RECORD (sizeof(mm_record) + 8 + 3 * MM_FEW_VALUES * (8 + MM_SHORT_TEXT))
/* Site keys have the logger's number above the address of the call: 47 bits and 3 for the level. */
#define MM_SALT_SHIFT 50
#define MM_MAX_LOGGERS 16000

typedef struct mm_log {
    PyObject_HEAD
    int ceiling;     /* the least severe level recorded; 0 while recording is off */
    int limit;       /* a limit besides those of the targets: of a stdlib logger that this one stands for */
    uintptr_t salt;  /* 0: the target is the calling module's name */
    PyObject *target; /* UTF-8 bytes, NULL: see above */
    int is_stdlib;   /* takes the keywords of stdlib logging */
    struct mm_log *next;
} mm_log;

/* Loggers are never freed: call sites are theirs. */
static mm_log *loggers;
static uintptr_t logger_count;

enum { WORD_EXC_INFO, WORD_PROPERTIES, WORD_EXTRA, WORD_STACK_INFO, WORD_STACKLEVEL, WORD_TYPE, WORD_MESSAGE, WORDS };
static PyObject *words[WORDS];
#define EXC_INFO_LENGTH 8
#define PROPERTIES_LENGTH 10

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
    if (count == 0 || !mm_value_enter()) {
        return template; /* also when nested too deep: without its values */
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
    mm_value_leave();
    Py_DECREF(template);
    if (!message) {
        mm_swallow_error();
    }
    return message;
}

/* ---- descriptors and sites ----------------------------------------------------------------------------------------------- */

static void find_place(mm_place *place, const mm_log *self)
{
    mm_place_of_caller(place);
    if (self->target) {
        Py_XSETREF(place->target, Py_NewRef(self->target));
    }
}

/* Of the site, or (also when there are too many descriptors) the one that all other sites of a level share. */
static const void *varying_descriptor(mm_site *site, int level, const mm_log *self)
{
    static const void *overflow[MM_TRACE + 1];
    const void **place_for = site ? &site->varying : &overflow[level];
    if (!*place_for) {
        mm_place place = {0};
        if (site) {
            find_place(&place, self);
        }
        char unused[MM_MAX_VALUES];
        int count;
        *place_for = mm_describe_log((uint32_t)level, place.line, (mm_text){"%s", 2}, mm_text_of(place.target),
                                     mm_text_of(place.file), unused, &count);
        mm_place_clear(&place);
        if (!*place_for && site) {
            return varying_descriptor(NULL, level, NULL);
        }
    }
    return *place_for;
}

static void mute_or_not(mm_site *site)
{
    int level = (int)(site->key & 7);
    const void *descriptor = site->descriptor ? site->descriptor : site->varying;
    if (level == 0) {
        return; /* a span */
    }
    mm_text target = descriptor ? mm_described_target(descriptor) : (mm_text){"", 0};
    site->muted = level > mm_level_of_target(target);
    site->hot = site->muted ? NULL : site->text;
}

static __attribute__((noinline)) mm_site *add_site(uintptr_t key, int level, PyObject *text, const mm_log *self)
{
    mm_place place;
    find_place(&place, self);
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
    if (site) {
        if (!site->descriptor) {
            varying_descriptor(site, level, self);
        }
        mute_or_not(site);
    }
    mm_place_clear(&place);
    return site;
}

/* ---- levels ---------------------------------------------------------------------------------------------------------------- */

static void set_ceiling(mm_log *log)
{
    int ceiling = 0;
    if (mm_recording != MM_OFF) {
        ceiling = log->target ? mm_level_of_target(mm_text_of(log->target)) : mm_most_verbose_level();
    }
    log->ceiling = ceiling < log->limit ? ceiling : log->limit;
}

void mm_log_levels_changed(void)
{
    for (mm_log *log = loggers; log; log = log->next) {
        set_ceiling(log);
    }
    mm_sites_each(mute_or_not);
}

/* ---- the short way: values that need no Python code, into room that is there ------------------------------------------------- */

static inline size_t padded(size_t bytes)
{
    return (bytes + 7) & ~(size_t)7;
}

/* Moves that overlap in the middle: no loop, no call. */
static inline void copy_short(uint8_t *to, const uint8_t *from, size_t bytes)
{
    typedef struct {
        uint64_t words[2];
    } pair;
    if (bytes >= 16) {
        for (size_t offset = 0; offset + 16 < bytes; offset += 16) {
            memcpy(to + offset, from + offset, sizeof(pair));
        }
        memcpy(to + bytes - 16, from + bytes - 16, sizeof(pair));
    }
    else if (bytes >= 8) {
        uint64_t first, last;
        memcpy(&first, from, 8);
        memcpy(&last, from + bytes - 8, 8);
        memcpy(to, &first, 8);
        memcpy(to + bytes - 8, &last, 8);
    }
    else if (bytes >= 4) {
        uint32_t first, last;
        memcpy(&first, from, 4);
        memcpy(&last, from + bytes - 4, 4);
        memcpy(to, &first, 4);
        memcpy(to + bytes - 4, &last, 4);
    }
    else if (bytes) {
        to[0] = from[0];
        to[bytes >> 1] = from[bytes >> 1];
        to[bytes - 1] = from[bytes - 1];
    }
}

/* Gives the end of what was written, NULL when this value needs the long way. */
static inline uint8_t *write_plain(uint8_t *to, PyObject *object, char conversion)
{
    uint64_t *words = (uint64_t *)to;
    PyTypeObject *type = Py_TYPE(object);
    if (type == &PyLong_Type) {
#if PY_VERSION_HEX >= 0x030C0000
        if (__builtin_expect(!PyUnstable_Long_IsCompact((PyLongObject *)object), 0)) {
            return NULL;
        }
        words[1] = (uint64_t)(int64_t)PyUnstable_Long_CompactValue((PyLongObject *)object);
#else
        Py_ssize_t digits = Py_SIZE(object);
        if (__builtin_expect(digits < -1 || digits > 1, 0)) {
            return NULL;
        }
        words[1] = (uint64_t)(digits * (int64_t)((PyLongObject *)object)->ob_digit[0]);
#endif
        words[0] = MM_INT;
        return to + 16;
    }
    if (type == &PyUnicode_Type) {
        size_t units = (size_t)PyUnicode_GET_LENGTH(object);
        if (__builtin_expect(conversion != 's' || !PyUnicode_IS_COMPACT_ASCII(object) || units > MM_SHORT_TEXT, 0)) {
            return NULL;
        }
        words[0] = MM_TEXT1 | (uint64_t)units << 8;
        copy_short(to + 8, (const uint8_t *)((PyASCIIObject *)object + 1), units);
        return to + 8 + padded(units);
    }
    if (type == &PyFloat_Type) {
        if (__builtin_expect(conversion == 'd' || conversion == 'x', 0)) {
            return NULL;
        }
        words[0] = MM_FLOAT;
        memcpy(words + 1, &((PyFloatObject *)object)->ob_fval, 8);
        return to + 16;
    }
    if (object == Py_None && (conversion == 's' || conversion == 'r')) {
        words[0] = MM_NONE;
        return to + 8;
    }
    if (type == &PyBool_Type) {
        words[0] = object == Py_True ? MM_TRUE : MM_FALSE;
        return to + 8;
    }
    return NULL;
}

/* The same for properties; NULL also for a name that may be no property. */
static inline uint8_t *write_plain_properties(uint8_t *to, PyObject *names, PyObject *const *values, Py_ssize_t count)
{
    for (Py_ssize_t index = 0; to && index < count; index++) {
        PyObject *name = PyTuple_GET_ITEM(names, index);
        Py_ssize_t length = PyUnicode_GET_LENGTH(name);
        if (length == EXC_INFO_LENGTH || length == PROPERTIES_LENGTH) {
            return NULL;
        }
        to = write_plain(to, name, 's');
        to = to ? write_plain(to, values[index], 's') : NULL;
    }
    return to;
}

/* ---- the long way ------------------------------------------------------------------------------------------------------------- */

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

/* What a call gives by name. */
typedef struct {
    PyObject *exception; /* borrowed; NULL: none */
    PyObject *stack;     /* borrowed; NULL: none */
    mm_property_set *sets[3]; /* strong: of the process, of the context, of the call */
    size_t set_count;
    PyObject *stack_text; /* borrowed str: a stack that was found by others */
    PyObject *extra;      /* borrowed dict of more properties */
    PyObject *no_extra;   /* borrowed set of names in it that are none */
    PyObject *const *values;
    PyObject *names;
    Py_ssize_t name_count;
} keywords;

static int is_word(PyObject *name, PyObject *word)
{
    return name == word || (PyUnicode_GET_LENGTH(name) == PyUnicode_GET_LENGTH(word) && PyUnicode_Compare(name, word) == 0);
}

/* The place for what such a name gives; NULL: it is a property. */
static int takes_word(keywords *given, const mm_log *self, PyObject *name, PyObject *value)
{
    if (is_word(name, words[WORD_EXC_INFO])) {
        given->exception = value == Py_None || value == Py_False ? NULL : value;
        return 1;
    }
    if (is_word(name, words[WORD_PROPERTIES]) && Py_TYPE(value) == &mm_PropertySetType) {
        if (given->set_count < 3) {
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
static int measure_properties(measured *values, const keywords *given, const mm_log *self, size_t *count)
{
    keywords unused = {0};
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
static PyObject *described_exception(const keywords *given)
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
                         const keywords *given)
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
    PyObject *message = format_now(args[0], args + 1, count - 1);
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

/* Gives 0, or -1 with an exception set that must reach the program. */
static int record_given(mm_log *self, int level, mm_site *site, PyObject *const *args, Py_ssize_t count, keywords *given)
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
        write_record(descriptor ? descriptor : varying_descriptor(site, level, self), kind, &values, value_count, given);
    }
    forget_values(&values, 0);
    if (values.items != values.few) {
        PyMem_Free(values.items);
    }
    Py_XDECREF(traceback);
    Py_XDECREF(exception);
    return status < 0 ? -1 : 0;
}

static void find_sets(keywords *given)
{
    if (mm_log_extras) {
        if (mm_global_properties) {
            given->sets[given->set_count++] = (mm_property_set *)Py_NewRef(mm_global_properties);
        }
        mm_property_set *bound = mm_context_properties();
        if (bound) {
            given->sets[given->set_count++] = bound;
        }
    }
}

static void forget_sets(keywords *given)
{
    for (size_t index = 0; index < given->set_count; index++) {
        Py_DECREF(given->sets[index]);
    }
}

static __attribute__((noinline)) PyObject *record_long(mm_log *self, PyObject *const *args, Py_ssize_t count, PyObject *names,
                                                       int level, PyObject *exception)
{
    if (count < 1) {
        PyErr_SetString(PyExc_TypeError, "log: a message is missing");
        return NULL;
    }
    uintptr_t key = mm_site_key(level) ^ self->salt;
    mm_site *site = mm_site_find(key);
    if (!site) {
        site = add_site(key, level, args[0], self);
    }
    if (site && site->muted) {
        Py_RETURN_NONE;
    }
    keywords given = {.exception = exception, .names = names, .values = args + count};
    find_sets(&given);
    given.name_count = names ? PyTuple_GET_SIZE(names) : 0;
    for (Py_ssize_t index = 0; index < given.name_count; index++) {
        takes_word(&given, self, PyTuple_GET_ITEM(names, index), args[count + index]);
    }
    int status = record_given(self, level, site, args, count, &given);
    forget_sets(&given);
    if (status < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

/* ---- events that happened elsewhere than the call: of stdlib logging, warnings, other interfaces ------------------------------- */

/* Bit 63 keeps these keys away from the addresses of calls. Unique for the same two texts; the texts are looked at by the caller. */
static uintptr_t elsewhere_key(const mm_elsewhere *event)
{
    uint64_t texts = ((uint64_t)(uintptr_t)event->target >> 4) * 0x9E3779B97F4A7C15u ^
                     ((uint64_t)(uintptr_t)event->file >> 4) * 0xC2B2AE3D27D4EB4Fu;
    return (uintptr_t)((uint64_t)1 << 63 | (((texts >> 8) + event->line) << 3 & ~((uint64_t)1 << 63)) | (uint64_t)event->level);
}

static mm_site *find_elsewhere(const mm_elsewhere *event, uintptr_t key)
{
    mm_site *site = mm_site_find(key);
    int is_it = site && PyTuple_GET_ITEM(site->code, 0) == event->target && PyTuple_GET_ITEM(site->code, 1) == event->file;
    return is_it ? site : NULL;
}

static __attribute__((noinline, cold)) mm_site *add_elsewhere(mm_elsewhere *event)
{
    /* Equal texts made anew (records that came by a pickle) are one place. */
    PyUnicode_InternInPlace(&event->target);
    PyUnicode_InternInPlace(&event->file);
    uintptr_t key = elsewhere_key(event);
    mm_site *site = find_elsewhere(event, key);
    if (site || mm_site_find(key)) {
        return site;
    }
    mm_text empty = {"", 0};
    PyObject *texts = PyTuple_Pack(2, event->target, event->file);
    PyObject *target = mm_utf8(event->target), *file = mm_utf8(event->file);
    int is_literal = PyUnicode_CheckExact(event->message) && PyUnicode_GET_LENGTH(event->message) <= MM_MAX_LITERAL;
    PyObject *template = is_literal ? mm_utf8(event->message) : NULL;
    site = texts && target && file ? mm_site_add(key, template ? event->message : NULL, texts) : NULL;
    if (site) {
        char unused[MM_MAX_VALUES];
        int count;
        mm_text target_text = mm_text_of(target), file_text = mm_text_of(file);
        site->varying = mm_describe_log((uint32_t)event->level, event->line, (mm_text){"%s", 2}, target_text, file_text, unused,
                                        &count);
        if (!site->varying) {
            site->varying = mm_describe_log((uint32_t)event->level, 0, (mm_text){"%s", 2}, empty, empty, unused, &count);
        }
        if (template) {
            site->descriptor = mm_describe_log((uint32_t)event->level, event->line, mm_text_of(template), target_text, file_text,
                                               site->conversions, &site->conversion_count);
            if (!site->descriptor) {
                Py_CLEAR(site->text);
            }
        }
        mute_or_not(site);
    }
    Py_XDECREF(template);
    Py_XDECREF(file);
    Py_XDECREF(target);
    Py_XDECREF(texts);
    PyErr_Clear();
    return site;
}

int mm_log_elsewhere(mm_elsewhere *event)
{
    static mm_log nobody;
    if (mm_recording == MM_OFF || event->level > mm_most_verbose_level()) {
        return 0;
    }
    Py_INCREF(event->target);
    Py_INCREF(event->file);
    mm_site *site = find_elsewhere(event, elsewhere_key(event));
    if (!site) {
        site = add_elsewhere(event);
    }
    int status = 0;
    if (!site || !site->muted) {
        PyObject *few[1 + MM_FEW_VALUES] = {event->message};
        PyObject **args = few;
        Py_ssize_t count = 0;
        if (event->values && PyTuple_Check(event->values)) {
            count = PyTuple_GET_SIZE(event->values);
            if (count > MM_FEW_VALUES && (args = PyMem_Malloc(((size_t)count + 1) * sizeof *args))) {
                args[0] = event->message;
            }
            for (Py_ssize_t index = 0; args && index < count; index++) {
                args[index + 1] = PyTuple_GET_ITEM(event->values, index);
            }
        }
        else if (event->values && event->values != Py_None) {
            args[++count] = event->values; /* a mapping */
        }
        if (args) {
            keywords given = {.exception = event->exception,
                              .stack_text = event->stack_text,
                              .extra = event->properties,
                              .no_extra = event->no_properties};
            find_sets(&given);
            status = record_given(&nobody, event->level, site, args, count + 1, &given);
            forget_sets(&given);
        }
        if (args != few) {
            PyMem_Free(args);
        }
    }
    Py_DECREF(event->file);
    Py_DECREF(event->target);
    return status;
}

/* ---- methods -------------------------------------------------------------------------------------------------------------------- */

/* Whether the short way is open, and has room for the longest record that it may write. */
static inline int fits(const mm_block *block, const mm_site *site, Py_ssize_t value_count)
{
    return value_count == site->conversion_count && value_count <= MM_FEW_VALUES && mm_clock_is_short() &&
           (size_t)(block->limit - block->cursor) >= MM_SHORT_RECORD;
}

static inline PyObject *commit_values(mm_block *block, const void *descriptor, const uint8_t *end, Py_ssize_t value_count,
                                      Py_ssize_t property_count)
{
    size_t size = (size_t)(end - block->cursor);
    ((uint64_t *)block->cursor)[2] = (uint64_t)size | (uint64_t)value_count << 32 | (uint64_t)property_count << 48;
    mm_write_head(block, descriptor, MM_LOG_VALUES);
    mm_commit(block, size);
    Py_RETURN_NONE;
}

static __attribute__((noinline)) PyObject *record_values(mm_log *self, PyObject *const *args, Py_ssize_t count,
                                                         PyObject *names, int level, const mm_site *site)
{
    mm_block *block = mm_current;
    if (__builtin_expect(fits(block, site, count - 1), 1)) {
        uint8_t *to = block->cursor + sizeof(mm_record) + 8;
        for (Py_ssize_t index = 1; index < count; index++) {
            to = write_plain(to, args[index], site->conversions[index - 1]);
            if (__builtin_expect(!to, 0)) {
                return record_long(self, args, count, names, level, NULL);
            }
        }
        return commit_values(block, site->descriptor, to, count - 1, 0);
    }
    return record_long(self, args, count, names, level, NULL);
}

static __attribute__((noinline)) PyObject *record_properties(mm_log *self, PyObject *const *args, Py_ssize_t count,
                                                             PyObject *names, int level, const mm_site *site)
{
    mm_block *block = mm_current;
    Py_ssize_t property_count = PyTuple_GET_SIZE(names);
    if (__builtin_expect(fits(block, site, count - 1) && property_count <= MM_FEW_VALUES && !self->is_stdlib, 1)) {
        uint8_t *to = block->cursor + sizeof(mm_record) + 8;
        for (Py_ssize_t index = 1; to && index < count; index++) {
            to = write_plain(to, args[index], site->conversions[index - 1]);
        }
        to = to ? write_plain_properties(to, names, args + count, property_count) : NULL;
        if (__builtin_expect(to != NULL, 1)) {
            return commit_values(block, site->descriptor, to, count - 1, property_count);
        }
    }
    return record_long(self, args, count, names, level, NULL);
}

/* Calls others only as its last act, so that a literal saves no registers. */
static __attribute__((noinline)) PyObject *record(mm_log *self, PyObject *const *args, Py_ssize_t count, PyObject *names, int level)
{
    uintptr_t key = mm_site_key(level) ^ self->salt;
    const mm_site *site = mm_site_find(key);
    if (__builtin_expect(mm_log_extras == 0 && count >= 1 && site && site->hot == args[0], 1)) {
        if (names) {
            return record_properties(self, args, count, names, level, site);
        }
        if (count > 1) {
            return record_values(self, args, count, names, level, site);
        }
        mm_block *block = mm_current;
        if (__builtin_expect((size_t)(block->limit - block->cursor) >= sizeof(mm_record) && mm_clock_is_short(), 1)) {
            mm_write_head(block, site->descriptor, MM_LOG_LITERAL);
            mm_commit(block, sizeof(mm_record));
            Py_RETURN_NONE;
        }
    }
    return record_long(self, args, count, names, level, NULL);
}

#define LEVEL_METHOD(name, level)                                                                            \
    static PyObject *log_##name(PyObject *self, PyObject *const *args, Py_ssize_t count, PyObject *names)    \
    {                                                                                                        \
        if (level > ((mm_log *)self)->ceiling) {                                                             \
            Py_RETURN_NONE;                                                                                  \
        }                                                                                                    \
        return record((mm_log *)self, args, count, names, level);                                            \
    }
LEVEL_METHOD(fatal, MM_FATAL)
LEVEL_METHOD(error, MM_ERROR)
LEVEL_METHOD(warn, MM_WARN)
LEVEL_METHOD(info, MM_INFO)
LEVEL_METHOD(debug, MM_DEBUG)
LEVEL_METHOD(trace, MM_TRACE)

static PyObject *log_exception(PyObject *self, PyObject *const *args, Py_ssize_t count, PyObject *names)
{
    mm_log *log = (mm_log *)self;
    if (MM_ERROR > log->ceiling) {
        Py_RETURN_NONE;
    }
    return record_long(log, args, count, names, MM_ERROR, Py_True);
}

/* Number of a level given by name or number; 0 with an error when there is none. */
static int level_of(PyObject *given)
{
    static const struct {
        const char *name;
        int level;
    } known[] = {{"fatal", MM_FATAL}, {"critical", MM_FATAL}, {"error", MM_ERROR}, {"warn", MM_WARN},
                 {"warning", MM_WARN}, {"info", MM_INFO}, {"debug", MM_DEBUG}, {"trace", MM_TRACE}};
    for (size_t index = 0; PyUnicode_Check(given) && index < sizeof known / sizeof *known; index++) {
        if (PyUnicode_CompareWithASCIIString(given, known[index].name) == 0) {
            return known[index].level;
        }
    }
    PyErr_Format(PyExc_ValueError, "log level %R: not one of fatal, error, warn, info, debug, trace", given);
    return 0;
}

static PyObject *log_is_enabled(PyObject *self, PyObject *name)
{
    mm_log *log = (mm_log *)self;
    int level = level_of(name);
    if (!level) {
        return NULL;
    }
    int enabled = level <= log->ceiling;
    if (enabled && !log->target) {
        mm_place place;
        mm_place_of_caller(&place);
        enabled = level <= mm_level_of_target(mm_text_of(place.target));
        mm_place_clear(&place);
    }
    return PyBool_FromLong(enabled);
}

static PyObject *log_target(PyObject *self, void *unused)
{
    (void)unused;
    PyObject *target = ((mm_log *)self)->target;
    if (!target) {
        Py_RETURN_NONE;
    }
    return PyUnicode_DecodeUTF8(PyBytes_AS_STRING(target), PyBytes_GET_SIZE(target), "replace");
}

static PyObject *log_set_limit(PyObject *self, PyObject *level)
{
    long limit = PyLong_AsLong(level);
    if (limit == -1 && PyErr_Occurred()) {
        return NULL;
    }
    ((mm_log *)self)->limit = limit < 0 ? 0 : limit > MM_TRACE ? MM_TRACE : (int)limit;
    set_ceiling((mm_log *)self);
    Py_RETURN_NONE;
}

static PyObject *log_repr(PyObject *self)
{
    PyObject *target = log_target(self, NULL);
    PyObject *text = target ? (target == Py_None ? PyUnicode_FromString("<logger of the calling module>")
                                                 : PyUnicode_FromFormat("<logger %R>", target))
                            : NULL;
    Py_XDECREF(target);
    return text;
}

#define LEVEL_ENTRY(name, function) \
    {name, (PyCFunction)(void (*)(void))function, METH_FASTCALL | METH_KEYWORDS, \
     "(message, /, *values, **properties): record a log event; the message is message % values, formatted elsewhere"}

static PyMethodDef log_methods[] = {
    LEVEL_ENTRY("fatal", log_fatal),
    LEVEL_ENTRY("critical", log_fatal),
    LEVEL_ENTRY("error", log_error),
    LEVEL_ENTRY("exception", log_exception),
    LEVEL_ENTRY("warn", log_warn),
    LEVEL_ENTRY("warning", log_warn),
    LEVEL_ENTRY("info", log_info),
    LEVEL_ENTRY("debug", log_debug),
    LEVEL_ENTRY("trace", log_trace),
    {"is_enabled", log_is_enabled, METH_O, "(level, /): whether an event of this level would be recorded here"},
    {"_set_limit", log_set_limit, METH_O, "Number of a level that is the last one recorded, whatever the targets' levels."},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef log_getset[] = {
    {"target", log_target, NULL, "The target of all events; None: the name of the calling module.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

PyTypeObject mm_LogType = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "micromegas._core.Log",
    .tp_doc = "Records log events, one method per level.",
    .tp_basicsize = sizeof(mm_log),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .tp_repr = log_repr,
    .tp_methods = log_methods,
    .tp_getset = log_getset,
};

static PyObject *new_logger(PyObject *target, int is_stdlib)
{
    mm_log *log = PyObject_New(mm_log, &mm_LogType);
    if (log) {
        log->limit = MM_TRACE;
        log->salt = logger_count++ << MM_SALT_SHIFT;
        log->target = Py_XNewRef(target);
        log->is_stdlib = is_stdlib;
        log->next = loggers;
        loggers = (mm_log *)Py_NewRef(log);
        set_ceiling(log);
    }
    return (PyObject *)log;
}

/* (target, is_stdlib): None when there are too many */
PyObject *mm_make_logger(PyObject *module, PyObject *args)
{
    (void)module;
    PyObject *target;
    int is_stdlib;
    if (!PyArg_ParseTuple(args, "Sp", &target, &is_stdlib)) {
        return NULL;
    }
    if (logger_count >= MM_MAX_LOGGERS) {
        Py_RETURN_NONE;
    }
    return new_logger(target, is_stdlib);
}

int mm_log_init(PyObject *module)
{
    static PyObject *log;
    if (!log) {
        for (int level = MM_FATAL; level <= MM_TRACE; level++) {
            if (!varying_descriptor(NULL, level, NULL)) {
                PyErr_NoMemory();
                return -1;
            }
        }
        static const char *const texts[WORDS] = {"exc_info",   "properties",     "extra",            "stack_info",
                                                 "stacklevel", "exception.type", "exception.message"};
        for (int index = 0; index < WORDS; index++) {
            if (!words[index] && !(words[index] = PyUnicode_InternFromString(texts[index]))) {
                return -1;
            }
        }
        log = new_logger(NULL, 0);
    }
    return log ? PyModule_AddObjectRef(module, "log", log) : -1;
}

/* Copies the values of a log call into the thread's buffer, in two passes: measure, then write.
 *
 * Everything that can run Python code (str(), repr()) happens while measuring, before room is reserved.
 */
#include "recorder.h"

#include <string.h>

int mm_swallow_error(void)
{
    if (PyErr_Occurred() && !PyErr_ExceptionMatches(PyExc_Exception)) {
        return -1;
    }
    PyErr_Clear();
    return 0;
}

static inline size_t padded(size_t bytes)
{
    return (bytes + 7) & ~(size_t)7;
}

static void measure_text(mm_value *value, PyObject *text)
{
    size_t units = (size_t)PyUnicode_GET_LENGTH(text);
    if (units <= MM_MAX_SHORT_TEXT && PyUnicode_IS_ASCII(text)) {
        value->text = text;
        value->word = MM_SHORT_TEXT | units;
        value->size = 8 + padded(units);
        return;
    }
    int width = (int)PyUnicode_KIND(text);
    uint64_t tag = width == 1 ? MM_TEXT1 : width == 2 ? MM_TEXT2 : MM_TEXT4;
    value->text = text;
    value->size = 8;
    if (__builtin_expect(units > MM_MAX_TEXT_BYTES / 4, 0)) {
        value->as.whole = units;
        units = MM_MAX_TEXT_BYTES / 4;
        tag |= MM_CUT;
        value->size = 16;
    }
    value->word = tag | (uint64_t)units << 8;
    value->size += padded(units * (size_t)width);
}

/* A text for an object whose own str() or repr() failed; NULL without memory. */
static PyObject *unprintable(PyObject *object)
{
    PyObject *text = PyUnicode_FromFormat("<unprintable %.200s object>", Py_TYPE(object)->tp_name);
    if (!text) {
        PyErr_Clear();
    }
    return text;
}

/* A __str__ that logs its own object comes back here: beyond this depth objects are not asked any more, for every round
 * takes C stack, which a raised recursion limit does not watch. */
#define MM_DEEPEST_VALUE 16
static __thread int depth __attribute__((tls_model("initial-exec")));

int mm_value_enter(void)
{
    if (depth >= MM_DEEPEST_VALUE) {
        return 0;
    }
    depth++;
    return 1;
}

void mm_value_leave(void)
{
    depth--;
}

static PyObject *too_deep(PyObject *object)
{
    PyObject *text = PyUnicode_FromFormat("<%.200s object, logged while it was being logged>", Py_TYPE(object)->tp_name);
    if (!text) {
        PyErr_Clear();
    }
    return text;
}

static PyObject *converted(PyObject *object, char conversion)
{
    if (!mm_value_enter()) {
        return too_deep(object);
    }
    PyObject *text = conversion == 'r' ? PyObject_Repr(object) : PyObject_Str(object);
    mm_value_leave();
    return text;
}

static int measure_converted(mm_value *value, PyObject *object, char conversion)
{
    PyObject *text = converted(object, conversion);
    if (text && PyUnicode_READY(text) < 0) {
        Py_CLEAR(text);
    }
    if (!text) {
        if (mm_swallow_error() < 0) {
            return -1;
        }
        text = unprintable(object);
        if (!text) {
            value->word = MM_NONE;
            value->size = 8;
            return 0;
        }
    }
    value->owned = text;
    measure_text(value, text);
    return 0;
}

static inline int measure_int(mm_value *value, PyObject *object, char conversion)
{
    int overflow = 0;
    int64_t integer;
#if PY_VERSION_HEX >= 0x030C0000
    if (__builtin_expect(PyUnstable_Long_IsCompact((PyLongObject *)object), 1)) {
        integer = PyUnstable_Long_CompactValue((PyLongObject *)object);
    }
    else
#else
    Py_ssize_t digits = Py_SIZE(object);
    if (__builtin_expect(digits >= -1 && digits <= 1, 1)) {
        integer = digits * (int64_t)((PyLongObject *)object)->ob_digit[0];
    }
    else
#endif
    {
        integer = PyLong_AsLongLongAndOverflow(object, &overflow);
    }
    if (overflow) {
        return conversion == 's' || conversion == 'r' ? measure_converted(value, object, conversion) : 1;
    }
    value->word = MM_INT;
    value->as.integer = integer;
    value->size = 16;
    return 0;
}

int mm_value_measure(mm_value *value, PyObject *object, char conversion)
{
    value->text = NULL;
    value->owned = NULL;
    if (PyLong_CheckExact(object)) {
        return measure_int(value, object, conversion);
    }
    if (PyUnicode_CheckExact(object)) {
        if (conversion == 's') {
            measure_text(value, object);
            return 0;
        }
        return conversion == 'r' ? measure_converted(value, object, conversion) : 1;
    }
    if (PyFloat_CheckExact(object)) {
        if (conversion == 'd' || conversion == 'x') {
            return 1;
        }
        value->word = MM_FLOAT;
        value->as.real = PyFloat_AS_DOUBLE(object);
        value->size = 16;
        return 0;
    }
    if (PyBool_Check(object)) {
        value->word = object == Py_True ? MM_TRUE : MM_FALSE;
        value->size = 8;
        return 0;
    }
    if (conversion != 's' && conversion != 'r') {
        return 1;
    }
    if (object == Py_None) {
        value->word = MM_NONE;
        value->size = 8;
        return 0;
    }
    return measure_converted(value, object, conversion);
}

uint8_t *mm_value_write(const mm_value *value, uint8_t *to)
{
    uint64_t *words = (uint64_t *)to;
    words[0] = value->word;
    if (value->text) {
        size_t offset = 8;
        if (value->word & MM_CUT) {
            words[1] = value->as.whole;
            offset = 16;
        }
        size_t bytes = value->word & MM_SHORT_TEXT
                           ? value->word & ~(uint64_t)MM_SHORT_TEXT
                           : (size_t)(value->word >> 8) << ((value->word & 0xF) - MM_TEXT1);
        const char *from = PyUnicode_DATA(value->text);
        if (bytes >= 8 && bytes <= 32) {
            /* Two overlapping moves instead of a call: most texts in logs are this short. */
            if (bytes <= 16) {
                uint64_t first, last;
                memcpy(&first, from, 8);
                memcpy(&last, from + bytes - 8, 8);
                memcpy(to + offset, &first, 8);
                memcpy(to + offset + bytes - 8, &last, 8);
            }
            else {
                uint64_t first[2], last[2];
                memcpy(first, from, 16);
                memcpy(last, from + bytes - 16, 16);
                memcpy(to + offset, first, 16);
                memcpy(to + offset + bytes - 16, last, 16);
            }
        }
        else {
            memcpy(to + offset, from, bytes);
        }
    }
    else if (value->size == 16) {
        memcpy(words + 1, &value->as, 8);
    }
    return to + value->size;
}

void mm_values_clear(mm_value *values, size_t count)
{
    for (size_t index = 0; index < count; index++) {
        Py_CLEAR(values[index].owned);
    }
}

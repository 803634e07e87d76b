/* Values that need no Python code and no measuring, written straight into room that is there. Only for log.c: in its functions,
 * so that the shortest way of a log event calls nothing.
 */
#ifndef MM_LOG_SHORT_H
#define MM_LOG_SHORT_H

#include "log.h"

#include <string.h>

/* At most so many values, and properties, none a longer text. */
#define MM_FEW_VALUES 4
#define MM_SHORT_TEXT 64
#define MM_SHORT_RECORD (sizeof(mm_record) + 8 + 3 * MM_FEW_VALUES * (8 + MM_SHORT_TEXT))

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
        memcpy(to, from, sizeof(pair));
        for (size_t offset = 16; __builtin_expect(offset + 16 < bytes, 0); offset += 16) {
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

/* One test of both flags, which the header's macro takes two for. */
static inline int mm_is_compact_ascii(PyObject *text)
{
    const PyASCIIObject wanted = {.state = {.compact = 1, .ascii = 1}};
    uint32_t mask, state;
    memcpy(&mask, &wanted.state, sizeof mask);
    memcpy(&state, &((PyASCIIObject *)text)->state, sizeof state);
    return (state & mask) == mask;
}

/* Gives the end of what was written, NULL when this value needs the long way. */
static inline uint8_t *mm_write_plain_text(uint8_t *to, PyObject *text)
{
    size_t units = (size_t)PyUnicode_GET_LENGTH(text);
    if (__builtin_expect(!mm_is_compact_ascii(text) || units > MM_SHORT_TEXT, 0)) {
        return NULL;
    }
    *(uint64_t *)to = MM_TEXT1 | (uint64_t)units << 8;
    copy_short(to + 8, (const uint8_t *)((PyASCIIObject *)text + 1), units);
    return to + 8 + padded(units);
}

static inline uint8_t *mm_write_plain(uint8_t *to, PyObject *object, char conversion)
{
    uint64_t *words = (uint64_t *)to;
    if (mm_is_small_int(object)) {
        words[0] = MM_INT;
        words[1] = (uint64_t)mm_small_int(object);
        return to + 16;
    }
    PyTypeObject *type = Py_TYPE(object);
    if (type == &PyUnicode_Type) {
        return __builtin_expect(conversion == 's', 1) ? mm_write_plain_text(to, object) : NULL;
    }
    if (type == &PyFloat_Type) {
        if (__builtin_expect(conversion == 'd' || conversion == 'x', 0)) {
            return NULL;
        }
        words[0] = MM_FLOAT;
        memcpy(words + 1, &((PyFloatObject *)object)->ob_fval, 8);
        return to + 16;
    }
    if (type == &PyLong_Type) { /* zero, negative, large */
#if PY_VERSION_HEX >= 0x030C0000
        if (!PyUnstable_Long_IsCompact((PyLongObject *)object)) {
            return NULL;
        }
        words[1] = (uint64_t)(int64_t)PyUnstable_Long_CompactValue((PyLongObject *)object);
#else
        Py_ssize_t digits = Py_SIZE(object);
        if (digits < -1 || digits > 1) {
            return NULL;
        }
        words[1] = (uint64_t)(digits * (int64_t)((PyLongObject *)object)->ob_digit[0]);
#endif
        words[0] = MM_INT;
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
static inline uint8_t *mm_write_plain_properties(uint8_t *to, PyObject *names, PyObject *const *values, Py_ssize_t count)
{
    for (Py_ssize_t index = 0; to && index < count; index++) {
        PyObject *name = PyTuple_GET_ITEM(names, index);
        Py_ssize_t length = PyUnicode_GET_LENGTH(name);
        if (length == MM_EXC_INFO_LENGTH || length == MM_PROPERTIES_LENGTH) {
            return NULL;
        }
        to = mm_write_plain_text(to, name);
        to = to ? mm_write_plain(to, values[index], 's') : NULL;
    }
    return to;
}

#endif

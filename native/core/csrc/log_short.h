/* Values that need no Python code and no measuring, written straight into room that is there. Only for log.c: in its functions,
 * so that the shortest way of a log event calls nothing.
 */
#ifndef MM_LOG_SHORT_H
#define MM_LOG_SHORT_H

#include "log.h"

#include <string.h>

/* At most MM_FEW_VALUES values, and as many properties, no text longer than short. */
#define MM_SHORT_RECORD (sizeof(mm_record) + 8 + 3 * MM_FEW_VALUES * (8 + MM_MAX_SHORT_TEXT + 1))

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
        uint64_t part;
        memcpy(&part, from, 8);
        memcpy(to, &part, 8);
        memcpy(&part, from + bytes - 8, 8);
        memcpy(to + bytes - 8, &part, 8);
    }
    else if (bytes >= 4) {
        uint32_t part;
        memcpy(&part, from, 4);
        memcpy(to, &part, 4);
        memcpy(&part, from + bytes - 4, 4);
        memcpy(to + bytes - 4, &part, 4);
    }
    else if (bytes) {
        if (bytes >= 2) {
            memcpy(to, from, 2);
        }
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

/* Writes a value's code, and what it has besides to another place. Gives the end of that, NULL when this value needs the long
 * way. */
static inline uint8_t *mm_write_bare_text(uint8_t *to, PyObject *text, uint8_t *code)
{
    size_t units = (size_t)PyUnicode_GET_LENGTH(text);
    if (__builtin_expect(!mm_is_compact_ascii(text) || units > MM_MAX_SHORT_TEXT, 0)) {
        return NULL;
    }
    *code = (uint8_t)(MM_SHORT_TEXT | units);
    copy_short(to, (const uint8_t *)((PyASCIIObject *)text + 1), units);
    return to + padded(units);
}

static inline __attribute__((always_inline)) uint8_t *mm_write_bare(uint8_t *to, PyObject *object, const uint8_t *accepted, uint8_t *code)
{
    if (mm_is_small_int(object)) {
        *code = MM_INT;
        *(uint64_t *)to = (uint64_t)mm_small_int(object);
        return to + 8;
    }
    PyTypeObject *type = Py_TYPE(object);
    if (type == &PyUnicode_Type) {
        return __builtin_expect(*accepted & MM_ACCEPTS_TEXT, 1) ? mm_write_bare_text(to, object, code) : NULL;
    }
    if (type == &PyFloat_Type) {
        if (__builtin_expect(!(*accepted & MM_ACCEPTS_FLOAT), 0)) {
            return NULL;
        }
        *code = MM_FLOAT;
        memcpy(to, &((PyFloatObject *)object)->ob_fval, 8);
        return to + 8;
    }
    if (type == &PyLong_Type) { /* zero, negative, large */
#if PY_VERSION_HEX >= 0x030C0000
        if (!PyUnstable_Long_IsCompact((PyLongObject *)object)) {
            return NULL;
        }
        *(uint64_t *)to = (uint64_t)(int64_t)PyUnstable_Long_CompactValue((PyLongObject *)object);
#else
        Py_ssize_t digits = Py_SIZE(object);
        if (digits < -1 || digits > 1) {
            return NULL;
        }
        *(uint64_t *)to = (uint64_t)(digits * (int64_t)((PyLongObject *)object)->ob_digit[0]);
#endif
        *code = MM_INT;
        return to + 8;
    }
    if (object == Py_None && *accepted & MM_ACCEPTS_NONE) {
        *code = MM_NONE;
        return to;
    }
    if (type == &PyBool_Type) {
        *code = object == Py_True ? MM_TRUE : MM_FALSE;
        return to;
    }
    return NULL;
}

/* The same as elsewhere: a word with the code first. */
static inline uint8_t *mm_write_plain(uint8_t *to, PyObject *object, const uint8_t *accepted)
{
    *(uint64_t *)to = 0;
    return mm_write_bare(to + 8, object, accepted, to);
}

/* The same for properties; NULL also for a name that may be no property. */
static inline uint8_t *mm_write_plain_properties(uint8_t *to, PyObject *names, PyObject *const *values, Py_ssize_t count)
{
    static const uint8_t accepted = MM_ACCEPTS_ALL;
    for (Py_ssize_t index = 0; to && index < count; index++) {
        PyObject *name = PyTuple_GET_ITEM(names, index);
        Py_ssize_t length = PyUnicode_GET_LENGTH(name);
        if (length == MM_EXC_INFO_LENGTH || length == MM_PROPERTIES_LENGTH) {
            return NULL;
        }
        *(uint64_t *)to = 0;
        to = mm_write_bare_text(to + 8, name, to);
        to = to ? mm_write_plain(to, values[index], &accepted) : NULL;
    }
    return to;
}

#endif

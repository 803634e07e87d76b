/* Measures with properties beside those that their metric was declared with: of the call, of the context, of the process.
 *
 * Must never raise for what a property is, and never leave a value's text that is longer than those of sets.
 */
#include "recorder.h"

#include <string.h>

typedef struct {
    mm_property_set *ambient[2]; /* strong, as all below: of the process, of the context */
    size_t ambient_count;
    mm_property_set *declared; /* borrowed; or NULL */
    mm_property_set *given;    /* `properties=` of the call, or NULL */
    mm_value own[2 * MM_MAX_VALUES]; /* name, value, name, value … */
    size_t own_count;
} properties;

/* 0, or -1 with an exception set that must reach the program. */
static int measure_text(properties *all, PyObject *object)
{
    mm_value *value = &all->own[all->own_count];
    if (mm_value_measure(value, object, 's') < 0) {
        return -1;
    }
    if (value->text && PyUnicode_GET_LENGTH(value->text) > MM_MAX_PROPERTY_UNITS) {
        PyObject *whole = Py_NewRef(value->text), *cut = mm_text_of_object(whole);
        mm_values_clear(value, 1);
        Py_DECREF(whole);
        if (!cut) {
            return mm_swallow_error() < 0 ? -1 : 1;
        }
        mm_value_measure(value, cut, 's'); /* an exact str: can't fail */
        value->owned = cut;
    }
    all->own_count++;
    return 0;
}

static int measure_own(properties *all, PyObject *const *values, PyObject *names)
{
    Py_ssize_t count = names ? PyTuple_GET_SIZE(names) : 0;
    for (Py_ssize_t index = 0; index < count; index++) {
        PyObject *name = PyTuple_GET_ITEM(names, index), *value = values[index];
        if (Py_TYPE(value) == &mm_PropertySetType && PyUnicode_CompareWithASCIIString(name, "properties") == 0) {
            all->given = (mm_property_set *)Py_NewRef(value);
            continue;
        }
        if (all->own_count == 2 * MM_MAX_VALUES) {
            __atomic_fetch_add(&mm_refused_values, 1, __ATOMIC_RELAXED);
            continue;
        }
        int status = measure_text(all, name);
        status = status == 0 ? measure_text(all, value) : status;
        if (status < 0) {
            return -1;
        }
        if (all->own_count % 2) {
            mm_values_clear(&all->own[--all->own_count], 1); /* a name without a value: no memory */
        }
    }
    return 0;
}

static void write_plain(const void *descriptor, mm_number number)
{
    const size_t size = sizeof(mm_record) + 8;
    mm_block *block = mm_reserve(size, number.kind);
    if (block) {
        mm_write_head(block, descriptor, number.kind);
        *(uint64_t *)(block->cursor + sizeof(mm_record)) = number.bits;
        mm_commit(block, size);
    }
}

static uint8_t *write_set(uint8_t *to, const mm_property_set *set)
{
    memcpy(to, set->encoded, set->size);
    return to + set->size;
}

static void write_tagged(const void *descriptor, mm_number number, const properties *all)
{
    size_t size = sizeof(mm_record) + 8 + 16;
    size_t ambient = 0;
    for (size_t index = 0; index < all->ambient_count; index++) {
        size += all->ambient[index]->size;
        ambient += all->ambient[index]->count;
    }
    size_t count = ambient + all->own_count / 2;
    for (int index = 0; index < 2; index++) {
        const mm_property_set *set = index ? all->given : all->declared;
        size += set ? set->size : 0;
        count += set ? set->count : 0;
    }
    for (size_t index = 0; index < all->own_count; index++) {
        size += all->own[index].size;
    }
    if (count == 0) {
        write_plain(descriptor, number);
        return;
    }
    mm_block *block = mm_reserve(size, MM_METRIC_WITH);
    if (!block) {
        return;
    }
    mm_write_head(block, descriptor, MM_METRIC_WITH);
    uint64_t *words = (uint64_t *)(block->cursor + sizeof(mm_record));
    words[0] = (uint64_t)size | (uint64_t)ambient << 32 | (uint64_t)count << 48;
    words[1] = number.kind == MM_METRIC_INT ? MM_INT : MM_FLOAT;
    words[2] = number.bits;
    uint8_t *to = (uint8_t *)(words + 3);
    for (size_t index = 0; index < all->ambient_count; index++) {
        to = write_set(to, all->ambient[index]);
    }
    if (all->declared) {
        to = write_set(to, all->declared);
    }
    if (all->given) {
        to = write_set(to, all->given);
    }
    for (size_t index = 0; index < all->own_count; index++) {
        to = mm_value_write(&all->own[index], to);
    }
    mm_commit(block, size);
}

PyObject *mm_measure_with(const void *descriptor, mm_property_set *own, int with_context, mm_number number,
                          PyObject *const *values, PyObject *names)
{
    if (mm_recording == MM_OFF) {
        Py_RETURN_NONE;
    }
    properties all;
    all.ambient_count = all.own_count = 0;
    all.declared = own;
    all.given = NULL;
    if (with_context && mm_log_extras) {
        if (mm_global_properties) {
            all.ambient[all.ambient_count++] = (mm_property_set *)Py_NewRef(mm_global_properties);
        }
        mm_property_set *bound = mm_context_properties();
        if (bound) {
            all.ambient[all.ambient_count++] = bound;
        }
    }
    int status = measure_own(&all, values, names);
    if (status == 0) {
        write_tagged(descriptor, number, &all);
    }
    mm_values_clear(all.own, all.own_count);
    Py_XDECREF(all.given);
    while (all.ambient_count) {
        Py_DECREF(all.ambient[--all.ambient_count]);
    }
    if (status < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

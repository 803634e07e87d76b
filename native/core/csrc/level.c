/* Which log levels are recorded: one for the program, others for parts of it (a target and what lies below its dots).
 *
 * Nothing here is asked per event: loggers and call sites are told when a level changes.
 */
#include "recorder.h"

#include <stdlib.h>
#include <string.h>

typedef struct {
    char *prefix;
    size_t size;
    int level;
} filter;

static int default_level = MM_DEBUG;
static filter *filters;
static size_t filter_count;

static int matches(const filter *filter, mm_text target)
{
    return target.size >= filter->size && memcmp(target.data, filter->prefix, filter->size) == 0 &&
           (target.size == filter->size || target.data[filter->size] == '.');
}

int mm_level_of_target(mm_text target)
{
    const filter *longest = NULL;
    for (size_t index = 0; index < filter_count; index++) {
        if (matches(&filters[index], target) && (!longest || filters[index].size > longest->size)) {
            longest = &filters[index];
        }
    }
    return longest ? longest->level : default_level;
}

int mm_most_verbose_level(void)
{
    int level = default_level;
    for (size_t index = 0; index < filter_count; index++) {
        if (filters[index].level > level) {
            level = filters[index].level;
        }
    }
    return level;
}

static void free_filters(filter *unused, size_t count)
{
    for (size_t index = 0; unused && index < count; index++) {
        free(unused[index].prefix);
    }
    free(unused);
}

/* (level, ((target, level), …)): targets as UTF-8 bytes, levels from 0 (off) to 6 (trace) */
PyObject *mm_set_levels(PyObject *module, PyObject *args)
{
    (void)module;
    int level;
    PyObject *given;
    if (!PyArg_ParseTuple(args, "iO!", &level, &PyTuple_Type, &given)) {
        return NULL;
    }
    size_t count = (size_t)PyTuple_GET_SIZE(given);
    filter *wanted = calloc(count + 1, sizeof *wanted);
    int complete = wanted != NULL && level >= 0 && level <= MM_TRACE;
    for (size_t index = 0; complete && index < count; index++) {
        const char *prefix;
        Py_ssize_t size;
        filter *one = &wanted[index];
        PyObject *pair = PyTuple_GET_ITEM(given, (Py_ssize_t)index);
        complete = PyTuple_Check(pair) && PyArg_ParseTuple(pair, "y#i", &prefix, &size, &one->level) && one->level >= 0 &&
                   one->level <= MM_TRACE && (one->prefix = malloc((size_t)size + 1)) != NULL;
        if (complete) {
            memcpy(one->prefix, prefix, (size_t)size);
            one->size = (size_t)size;
        }
    }
    if (!complete) {
        free_filters(wanted, count);
        if (!PyErr_Occurred()) {
            PyErr_SetString(PyExc_ValueError, "log levels: not between 0 (off) and 6 (trace)");
        }
        return NULL;
    }
    free_filters(filters, filter_count);
    filters = wanted;
    filter_count = count;
    default_level = level;
    mm_log_levels_changed();
    Py_RETURN_NONE;
}

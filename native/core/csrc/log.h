/* What the C files of log events share. */
#ifndef MM_LOG_H
#define MM_LOG_H

#include "recorder.h"

#pragma GCC visibility push(hidden)

typedef struct mm_log {
    PyObject_HEAD
    int ceiling;     /* the least severe level recorded; 0 while recording is off */
    int limit;       /* a limit besides those of the targets: of a stdlib logger that this one stands for */
    uintptr_t salt;  /* 0: the target is the calling module's name */
    PyObject *target; /* UTF-8 bytes, NULL: see above */
    int is_stdlib;   /* takes the keywords of stdlib logging */
    struct mm_log *next;
} mm_log;

/* ---- log_site.c ---------------------------------------------------------------------------------------------------------- */

/* What is longer is data, and is not kept for ever. */
#define MM_MAX_LITERAL (64 << 10)

static inline int mm_is_literal(PyObject *message)
{
    return PyUnicode_CheckExact(message) && PyUnicode_GET_LENGTH(message) <= MM_MAX_LITERAL;
}

/* The site of a call that was not seen before; NULL when there are too many. */
mm_site *mm_log_site_add(uintptr_t key, int level, PyObject *text, const mm_log *self);
/* The descriptor for messages made elsewhere: of the site, or (also when there are too many descriptors) the one that all
 * other sites of a level share. */
const void *mm_log_varying(mm_site *site, int level, const mm_log *self);
/* Whether the level of its target lets a site's events through. */
void mm_log_site_mute_or_not(mm_site *site);

/* ---- log_message.c --------------------------------------------------------------------------------------------------------- */

/* The message made in the caller. NULL with an exception set: only what must reach the program. NULL without: no memory, the
 * event is lost. */
PyObject *mm_log_message(PyObject *template, PyObject *const *values, Py_ssize_t count);

/* ---- log_given.c ----------------------------------------------------------------------------------------------------------- */

/* Of the process, of the context. */
#define MM_AMBIENT_SETS 2

/* What a call gives by name, and what its context adds. */
typedef struct {
    PyObject *exception; /* borrowed; NULL: none */
    PyObject *stack;     /* borrowed; NULL: none */
    mm_property_set *sets[MM_AMBIENT_SETS + 1]; /* strong: of the process, of the context, of the call */
    size_t set_count;
    PyObject *stack_text; /* borrowed str: a stack that was found by others */
    PyObject *extra;      /* borrowed dict of more properties */
    PyObject *no_extra;   /* borrowed set of names in it that are none */
    PyObject *const *values;
    PyObject *names;
    Py_ssize_t name_count;
} mm_log_given;

/* Lengths of the words that are no properties: a name of another length need not be compared. */
#define MM_EXC_INFO_LENGTH 8
#define MM_PROPERTIES_LENGTH 10

/* The sets that every event gets, in the order of precedence; gives their number. Strong references. */
size_t mm_log_ambient_sets(mm_property_set **sets);
/* Takes the names of a call, and the sets of its context. */
void mm_log_take(mm_log_given *given, const mm_log *self, PyObject *const *values, PyObject *names);
void mm_log_forget(mm_log_given *given);
/* Records whatever was given. 0, or -1 with an exception set that must reach the program. */
int mm_log_record(const mm_log *self, int level, mm_site *site, PyObject *const *args, Py_ssize_t count, const mm_log_given *given);
int mm_log_given_init(void);

#pragma GCC visibility pop

#endif

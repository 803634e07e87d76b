/* What is known of a code object: whether and as what its calls are traced. Lives and dies with the code. */
#ifndef MM_MARK_H
#define MM_MARK_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <stdint.h>

/* Nothing outside of this module: no detour by its table of symbols. */
#pragma GCC visibility push(hidden)

typedef struct mm_mark {
    const void *descriptor; /* NULL: not traced */
    struct mm_mark *inner;  /* the next decorator inward */
    /* The automatic tracing that decided so, see monitoring.c; MM_FOR_GOOD for decorated functions. */
    uint64_t generation;
    struct mm_copy *copies;
} mm_mark;

#define MM_FOR_GOOD UINT64_MAX

extern Py_ssize_t mm_mark_index;

/* NULL when nothing is known. */
static inline mm_mark *mm_mark_of(PyObject *code)
{
    void *mark = NULL;
#if PY_VERSION_HEX >= 0x030C0000
    PyUnstable_Code_GetExtra(code, mm_mark_index, &mark);
#else
    _PyCode_GetExtra(code, mm_mark_index, &mark);
#endif
    return mark;
}

/* The mark that was asked for last: a call and its return ask for the same, often. */
extern struct mm_last_mark {
    PyObject *code; /* not counted */
    mm_mark *mark;
} mm_last_mark;

static inline mm_mark *mm_mark_seen(PyObject *code)
{
    if (__builtin_expect(mm_last_mark.code == code, 1)) {
        return mm_last_mark.mark;
    }
    mm_mark *mark = mm_mark_of(code);
    if (mark) {
        mm_last_mark.code = code;
        mm_last_mark.mark = mark;
    }
    return mark;
}

/* Makes one where there is none; NULL with an exception set without memory. */
mm_mark *mm_mark_make(PyObject *code);
int mm_mark_init(void);
/* (code, span): the copy of a code object whose calls are recorded as this span; the same one for the same arguments. */
PyObject *mm_traced_code(PyObject *module, PyObject *args);
/* (function, code): makes it the code of the function. */
PyObject *mm_give_code(PyObject *module, PyObject *args);
/* (code): never to be traced automatically. */
PyObject *mm_leave_code_alone(PyObject *module, PyObject *code);

#pragma GCC visibility pop

#endif

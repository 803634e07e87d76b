/* See mark.h. A decorated function gets a copy of its code, so that other functions made of the same code are not traced. */
#include "recorder.h"

#include <stdlib.h>

#include "caller.h"
#include "mark.h"

#if !defined(MM_PUBLIC_FRAME_API) && PY_VERSION_HEX >= 0x030D0000
#include "internal/pycore_function.h"
#endif

typedef struct mm_copy {
    const void *descriptor;
    PyObject *code; /* strong */
    struct mm_copy *next;
} mm_copy;

Py_ssize_t mm_mark_index = -1;
struct mm_last_mark mm_last_mark;

static void free_mark(void *memory)
{
    mm_mark *mark = memory;
    if (!mark) {
        return;
    }
    mm_last_mark = (struct mm_last_mark){NULL, NULL}; /* the code goes, too */
    for (mm_copy *copy = mark->copies; copy;) {
        mm_copy *next = copy->next;
        Py_DECREF(copy->code);
        free(copy);
        copy = next;
    }
    for (mm_mark *inner = mark->inner; inner;) {
        mm_mark *next = inner->inner;
        free(inner);
        inner = next;
    }
    free(mark);
}

mm_mark *mm_mark_make(PyObject *code)
{
    mm_mark *mark = mm_mark_of(code);
    if (mark) {
        return mark;
    }
    mark = calloc(1, sizeof *mark);
    if (!mark) {
        PyErr_NoMemory();
        return NULL;
    }
#if PY_VERSION_HEX >= 0x030C0000
    int status = PyUnstable_Code_SetExtra(code, mm_mark_index, mark);
#else
    int status = _PyCode_SetExtra(code, mm_mark_index, mark);
#endif
    if (status < 0) {
        free(mark);
        return NULL;
    }
    return mark;
}

/* The decorators of a code that is decorated already, for its copy. */
static int copy_decorators(const mm_mark *from, mm_mark *to)
{
    for (mm_mark **link = &to->inner; from && from->generation == MM_FOR_GOOD && from->descriptor; from = from->inner) {
        *link = calloc(1, sizeof **link);
        if (!*link) {
            PyErr_NoMemory();
            return -1;
        }
        (*link)->descriptor = from->descriptor;
        (*link)->generation = MM_FOR_GOOD;
        link = &(*link)->inner;
    }
    return 0;
}

PyObject *mm_traced_code(PyObject *module, PyObject *args)
{
    (void)module;
    PyObject *code, *span;
    if (!PyArg_ParseTuple(args, "O!O!", &PyCode_Type, &code, &mm_SpanType, &span)) {
        return NULL;
    }
    const void *descriptor = mm_span_descriptor(span);
    mm_mark *original = mm_mark_make(code);
    if (!original) {
        return NULL;
    }
    for (mm_copy *copy = original->copies; copy; copy = copy->next) {
        if (copy->descriptor == descriptor) {
            return Py_NewRef(copy->code);
        }
    }
    PyObject *traced = PyObject_CallMethod(code, "replace", NULL);
    mm_mark *mark = traced ? mm_mark_make(traced) : NULL;
    mm_copy *copy = mark && copy_decorators(original, mark) == 0 ? calloc(1, sizeof *copy) : NULL;
    if (!copy) {
        Py_XDECREF(traced);
        return PyErr_Occurred() ? NULL : PyErr_NoMemory();
    }
    mark->descriptor = descriptor;
    mark->generation = MM_FOR_GOOD;
    copy->descriptor = descriptor;
    copy->code = Py_NewRef(traced);
    copy->next = original->copies;
    original->copies = copy;
    return traced;
}

/* (function, code) */
PyObject *mm_give_code(PyObject *module, PyObject *args)
{
    (void)module;
    PyObject *function, *code;
    if (!PyArg_ParseTuple(args, "O!O!", &PyFunction_Type, &function, &PyCode_Type, &code) ||
        PyObject_SetAttrString(function, "__code__", code) < 0) {
        return NULL;
    }
#if !defined(MM_PUBLIC_FRAME_API) && PY_VERSION_HEX >= 0x030D0000
    /* 3.13 gives a version, without which its calls are not specialised (a third dearer), only to functions that a `def`
     * makes: that of their code. */
    _PyFunction_SetVersion((PyFunctionObject *)function, ((PyCodeObject *)code)->co_version);
#endif
    Py_RETURN_NONE;
}

PyObject *mm_leave_code_alone(PyObject *module, PyObject *code)
{
    (void)module;
    if (!PyCode_Check(code)) {
        PyErr_SetString(PyExc_TypeError, "leave_code_alone: not a code object");
        return NULL;
    }
    mm_mark *mark = mm_mark_make(code);
    if (!mark) {
        return NULL;
    }
    mark->generation = MM_FOR_GOOD;
    Py_RETURN_NONE;
}

int mm_mark_init(void)
{
#if PY_VERSION_HEX >= 0x030C0000
    mm_mark_index = PyUnstable_Eval_RequestCodeExtraIndex(free_mark);
#else
    mm_mark_index = _PyEval_RequestCodeExtraIndex(free_mark);
#endif
    if (mm_mark_index < 0) {
        PyErr_SetString(PyExc_RuntimeError, "recorder: no room for what is known of a code object is left in this process");
        return -1;
    }
    return 0;
}

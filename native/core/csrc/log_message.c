/* The message of a log event, made in the caller, where the native thread can't: a template that Python alone can format, a
 * message that is no literal, an object.
 *
 * Must never raise for what is being logged: broken objects and templates become part of the message.
 */
#include "log.h"

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

PyObject *mm_log_message(PyObject *template, PyObject *const *args, Py_ssize_t count)
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

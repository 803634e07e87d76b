/* Log events from other interfaces: records of stdlib logging, and whatever Python code hands over with its place.
 *
 * Takes no lock and calls no method of a record, so it can't wait for anybody.
 */
#include "recorder.h"

enum { NAME, LEVELNO, PATHNAME, LINENO, MSG, ARGS, EXC_INFO, STACK_INFO, ATTRIBUTES };
static PyObject *attributes[ATTRIBUTES];
static PyObject *standard;    /* set of the attributes that every record has */
static Py_ssize_t plain_size; /* of the dict of a record without extras */
static PyObject *level_map;   /* dict: number of stdlib logging → ours; NULL: the usual ones only */

/* (standard attributes, their number in a new record, levels) */
PyObject *mm_set_logging(PyObject *module, PyObject *args)
{
    (void)module;
    static const char *const names[ATTRIBUTES] = {"name", "levelno", "pathname", "lineno", "msg", "args", "exc_info", "stack_info"};
    PyObject *set, *map;
    Py_ssize_t size;
    if (!PyArg_ParseTuple(args, "O!nO!", &PyFrozenSet_Type, &set, &size, &PyDict_Type, &map)) {
        return NULL;
    }
    for (int index = 0; index < ATTRIBUTES; index++) {
        if (!attributes[index] && !(attributes[index] = PyUnicode_InternFromString(names[index]))) {
            return NULL;
        }
    }
    plain_size = size;
    Py_XSETREF(standard, Py_NewRef(set));
    Py_XSETREF(level_map, PyDict_GET_SIZE(map) ? Py_NewRef(map) : NULL);
    Py_RETURN_NONE;
}

static int level_of_number(PyObject *number)
{
    PyObject *mapped = level_map && number ? PyDict_GetItemWithError(level_map, number) : NULL;
    long value = number && PyLong_Check(number) ? PyLong_AsLong(mapped ? mapped : number) : 20;
    PyErr_Clear();
    if (mapped) {
        return (int)value;
    }
    return value >= 50 ? MM_FATAL : value >= 40 ? MM_ERROR : value >= 30 ? MM_WARN : value >= 20 ? MM_INFO
           : value >= 10 ? MM_DEBUG : MM_TRACE;
}

/* Exact str, borrowed; the empty one for whatever else a record may hold. */
static PyObject *text_in(PyObject *dict, int attribute)
{
    static PyObject *empty;
    PyObject *text = PyDict_GetItemWithError(dict, attributes[attribute]);
    if (text && PyUnicode_CheckExact(text)) {
        return text;
    }
    if (!empty) {
        empty = PyUnicode_FromString("");
    }
    return empty;
}

PyObject *mm_record_logging(PyObject *module, PyObject *record)
{
    (void)module;
    if (!standard || mm_recording == MM_OFF) {
        Py_RETURN_NONE;
    }
    PyObject *dict = PyObject_GenericGetDict(record, NULL);
    if (!dict) {
        PyErr_Clear();
        Py_RETURN_NONE;
    }
    PyObject *line = PyDict_GetItemWithError(dict, attributes[LINENO]);
    PyObject *exception = PyDict_GetItemWithError(dict, attributes[EXC_INFO]);
    PyObject *stack = PyDict_GetItemWithError(dict, attributes[STACK_INFO]);
    PyObject *message = PyDict_GetItemWithError(dict, attributes[MSG]);
    PyObject *values = PyDict_GetItemWithError(dict, attributes[ARGS]);
    mm_elsewhere event = {
        .level = level_of_number(PyDict_GetItemWithError(dict, attributes[LEVELNO])),
        .line = line && PyLong_CheckExact(line) ? (uint32_t)PyLong_AsUnsignedLongMask(line) : 0,
        .target = text_in(dict, NAME),
        .file = text_in(dict, PATHNAME),
        .message = message ? message : Py_None,
        .values = values,
        .exception = exception && exception != Py_None && exception != Py_False ? exception : NULL,
        .stack_text = stack && PyUnicode_CheckExact(stack) ? stack : NULL,
        .properties = PyDict_GET_SIZE(dict) > plain_size ? dict : NULL,
        .no_properties = standard,
    };
    PyErr_Clear();
    /* Code of the program that runs meanwhile may change the record. */
    PyObject *kept[] = {event.message, event.values, event.exception, event.stack_text};
    for (size_t index = 0; index < sizeof kept / sizeof *kept; index++) {
        Py_XINCREF(kept[index]);
    }
    int status = event.target && event.file ? mm_log_elsewhere(&event) : 0;
    for (size_t index = 0; index < sizeof kept / sizeof *kept; index++) {
        Py_XDECREF(kept[index]);
    }
    Py_DECREF(dict);
    if (status < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

/* (level, target, file, line, message, values, properties, exception) */
PyObject *mm_record_log(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    (void)module;
    long level = count == 8 && PyLong_Check(args[0]) ? PyLong_AsLong(args[0]) : 0;
    if (level < MM_FATAL || level > MM_TRACE || !PyUnicode_CheckExact(args[1]) || !PyUnicode_CheckExact(args[2]) ||
        !PyLong_Check(args[3]) || !PyTuple_Check(args[5]) || (args[6] != Py_None && !PyDict_Check(args[6]))) {
        PyErr_SetString(PyExc_TypeError, "record_log(level, target, file, line, message, values, properties, exception)");
        return NULL;
    }
    mm_elsewhere event = {
        .level = (int)level,
        .line = (uint32_t)PyLong_AsUnsignedLongMask(args[3]),
        .target = args[1],
        .file = args[2],
        .message = args[4],
        .values = args[5],
        .properties = args[6] == Py_None ? NULL : args[6],
        .exception = args[7] == Py_None ? NULL : args[7],
    };
    PyErr_Clear();
    if (mm_log_elsewhere(&event) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

/* Adds the recorder's hot types and functions to the native module. Called from Rust, again when the module is imported anew. */
#include "recorder.h"

#include "caller.h"
#include "mark.h"

static PyMethodDef functions[] = {
    {"span", (PyCFunction)(void (*)(void))mm_span_function, METH_FASTCALL,
     "(name, /): the span of this name at this place of the program; use it as `with span(\"load\"):`"},
    {"span_named", mm_span_named_function, METH_O,
     "(name, /): a span with a name made at run time, used as `with span_named(f\"load {path}\"):`"},
    {"trace_context", mm_trace_context, METH_NOARGS, "(): trace id and span id of the innermost async span, or None"},
    {"adopt_trace", mm_adopt_trace, METH_VARARGS, "(span, trace id, remote span id): an async span with a remote parent"},
    {"open_span", mm_open_span, METH_VARARGS, "(span, name, trace id, parent id, depth, age, /): begins one, not current"},
    {"remote_span", mm_remote_span, METH_VARARGS, "(trace id, span id, /): stands for a span of another process"},
    {"async_parent", mm_async_parent, METH_NOARGS, "(): trace id, span id and depth that a span opened here would get"},
    {"make_span", mm_make_span, METH_VARARGS, "(name, target, file, line): a span described by its maker"},
    {"make_metric", mm_make_metric, METH_VARARGS, "(name, unit, target, file, line, properties, with_context)"},
    {"make_counter", mm_make_counter, METH_VARARGS, "(name, unit, target, file, line, properties)"},
    {"make_frame", mm_make_frame, METH_VARARGS, "(metric, budget in ns)"},
    {"make_gc_callback", mm_make_gc_callback, METH_O, "(metrics, one per generation): a function for gc.callbacks"},
    {"give_code", mm_give_code, METH_VARARGS, "(function, code): makes it the code of the function"},
    {"traced_code", mm_traced_code, METH_VARARGS, "(code, span): the copy of a code object whose calls are recorded"},
    {"leave_code_alone", mm_leave_code_alone, METH_O, "(code): never to be traced automatically"},
    {"auto_trace", mm_auto_trace, METH_O, "(decider or None): switches automatic tracing on or off"},
#if PY_VERSION_HEX >= 0x030C0000
    {"monitoring_callbacks", mm_monitoring_callbacks, METH_O, "(DISABLE) -> the callbacks for sys.monitoring"},
#endif
    {"make_traced", mm_make_traced, METH_VARARGS, "(function, span)"},
    {"make_logger", mm_make_logger, METH_VARARGS, "(target, is_stdlib)"},
    {"make_properties", mm_make_properties, METH_VARARGS, "(mapping, interned)"},
    {"record_log", (PyCFunction)(void (*)(void))mm_record_log, METH_FASTCALL,
     "(level, target, file, line, message, values, properties, exception)"},
    {"record_logging", mm_record_logging, METH_O, "(record): the event that a record of stdlib logging tells of"},
    {"set_logging", mm_set_logging, METH_VARARGS, "(names of the attributes that every record has, levels by number)"},
    {"set_global_properties", mm_set_global_properties, METH_O, "(set or None)"},
    {"set_log_levels", mm_set_levels, METH_VARARGS, "(level, ((target, level), ...))"},
    {"rename_thread", mm_rename_thread, METH_VARARGS, "(native id, UTF-8 name): what spans of this thread come under"},
    {"text_of", mm_safe_text, METH_O, "(object): its str(), or a text that says why there is none"},
    {"use_context", mm_use_context, METH_NOARGS, "From now on logs look for properties bound to the context."},
    {NULL, NULL, 0, NULL},
};

/* What all modules of the process share; made once. */
static int make_shared(void)
{
    static int made;
    if (!made && (mm_span_init() < 0 || mm_metric_init() < 0 || mm_async_span_init() < 0 || mm_mark_init() < 0)) {
        return -1;
    }
    made = 1;
    return 0;
}

int mm_module_add(PyObject *module)
{
    /* Sites, spans and types are shared by the process; objects of an interpreter must not outlive it. */
    if (PyInterpreterState_Get() != PyInterpreterState_Main()) {
        PyErr_SetString(PyExc_ImportError, "micromegas: only the main interpreter can record, not a sub-interpreter");
        return -1;
    }
    mm_find_running_thread();
    PyTypeObject *types[] = {&mm_LogType,  &mm_MetricType,    &mm_CounterType, &mm_FrameType,
                             &mm_SpanType, &mm_NamedSpanType,  &mm_AsyncSpanType, &mm_TracedType, &mm_PropertySetType};
    for (size_t index = 0; index < sizeof types / sizeof *types; index++) {
        if (PyModule_AddType(module, types[index]) < 0) {
            return -1;
        }
    }
    if (mm_log_init(module) < 0 || make_shared() < 0 || mm_property_set_init(module) < 0) {
        return -1;
    }
    if (PyModule_AddObjectRef(module, "current_async_span", mm_async_span_variable()) < 0) {
        return -1;
    }
    return PyModule_AddFunctions(module, functions);
}

/* Function tracing: callbacks of sys.monitoring (3.12 on), the frame evaluation function of PEP 523 (3.11).
 *
 * A traced call leaves a begin and an end in its thread; a coroutine or generator one pair per step, so that the thread's
 * call tree stays whole. Must never change what a call returns or raises.
 */
#include "recorder.h"

#include "caller.h"
#include "mark.h"
#include "stack.h"

/* The automatic tracing under way; 0: none. A code's mark tells by the same number that it was decided about. */
static uint64_t generation;
static uint64_t last_generation;
static PyObject *decider; /* (module name, file name, qualified name) -> whether to trace */

#if PY_VERSION_HEX >= 0x030C0000 || !defined(MM_PUBLIC_FRAME_API)

static int decide_to_trace(PyCodeObject *code, PyObject *globals)
{
    if (!decider || !(code->co_flags & CO_OPTIMIZED)) {
        return 0; /* bodies of modules and classes */
    }
    PyObject *module = globals ? PyDict_GetItemString(globals, "__name__") : NULL;
    PyObject *answer = PyObject_CallFunctionObjArgs(decider, module ? module : Py_None, code->co_filename, code->co_qualname, NULL);
    int yes = answer && PyObject_IsTrue(answer) > 0;
    Py_XDECREF(answer);
    return yes;
}

/* Decides about a code once per generation. NULL without memory. The current exception stays. */
static __attribute__((noinline)) mm_mark *decide(PyObject *code, PyObject *globals)
{
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    uint64_t deciding = generation;
    mm_mark *mark = mm_mark_make(code);
    if (mark && mark->generation != MM_FOR_GOOD) {
        PyCodeObject *of = (PyCodeObject *)code;
        const void *descriptor = NULL;
        mark->descriptor = NULL;
        mark->generation = deciding; /* now: deciding runs Python code */
        if (decide_to_trace(of, globals)) {
            PyObject *module = globals ? PyDict_GetItemString(globals, "__name__") : NULL;
            mm_place place = {.line = (uint32_t)of->co_firstlineno, .file = mm_utf8(of->co_filename)};
            if (module && PyUnicode_Check(module)) {
                place.target = mm_utf8(module);
            }
            PyObject *span = mm_span_new(of->co_qualname, &place);
            descriptor = span ? mm_span_descriptor(span) : NULL;
            Py_XDECREF(span);
            mm_place_clear(&place);
        }
        mark->descriptor = descriptor;
    }
    PyErr_Restore(type, value, traceback);
    return mark;
}

#endif

#if PY_VERSION_HEX >= 0x030C0000

static PyObject *disable; /* sys.monitoring.DISABLE */

static void end_chain(const mm_mark *mark)
{
    if (mark->inner) {
        end_chain(mark->inner);
    }
    mm_emit(mark->descriptor, MM_SPAN_END);
}

static inline int is_decided(const mm_mark *mark)
{
    return mark && (mark->generation == MM_FOR_GOOD || mark->generation == generation);
}

static PyObject *begin_any(PyObject *code, int may_disable)
{
    mm_mark *mark = mm_mark_seen(code);
    if (!is_decided(mark) && (!generation || !(mark = decide(code, PyEval_GetGlobals())))) {
        Py_RETURN_NONE;
    }
    if (!mark->descriptor) {
        return Py_NewRef(may_disable ? disable : Py_None);
    }
    for (; mark; mark = mark->inner) {
        mm_emit(mark->descriptor, MM_SPAN_BEGIN);
    }
    Py_RETURN_NONE;
}

static PyObject *end_any(PyObject *code, int may_disable)
{
    mm_mark *mark = mm_mark_seen(code);
    if (!is_decided(mark)) {
        Py_RETURN_NONE; /* it runs since before tracing began */
    }
    if (!mark->descriptor) {
        return Py_NewRef(may_disable ? disable : Py_None);
    }
    end_chain(mark);
    Py_RETURN_NONE;
}

/* Called by the interpreter itself without the frame that a built-in function would have: they can't recurse. */
typedef struct {
    PyObject_HEAD
    vectorcallfunc call;
} mm_callback;

static PyTypeObject callback_type = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "micromegas._core._MonitoringCallback",
    .tp_basicsize = sizeof(mm_callback),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_VECTORCALL | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .tp_vectorcall_offset = offsetof(mm_callback, call),
    .tp_call = PyVectorcall_Call,
};

/* The descriptor of the code that was asked about last and is one span, or NULL. */
static inline const void *descriptor_at_once(PyObject *const *args, size_t count)
{
    const mm_mark *mark = mm_last_mark.mark;
    return PyVectorcall_NARGS(count) >= 1 && args[0] == mm_last_mark.code && is_decided(mark) && !mark->inner
               ? mark->descriptor
               : NULL;
}

/* What can't be is for a function that is called last, so that the shortest way keeps nothing on the stack. */
#define MM_CALLBACK(name, kind, any, may_disable)                                                       \
    static __attribute__((noinline)) PyObject *name##_otherwise(PyObject *const *args, size_t count)    \
    {                                                                                                   \
        if (PyVectorcall_NARGS(count) < 1 || !PyCode_Check(args[0])) {                                  \
            PyErr_SetString(PyExc_TypeError, "a callback for sys.monitoring: not called with a code");  \
            return NULL;                                                                                \
        }                                                                                               \
        return any(args[0], may_disable);                                                               \
    }                                                                                                   \
    static PyObject *name(PyObject *self, PyObject *const *args, size_t count, PyObject *names)         \
    {                                                                                                   \
        (void)self;                                                                                     \
        (void)names;                                                                                    \
        const void *descriptor = descriptor_at_once(args, count);                                       \
        if (!descriptor) {                                                                              \
            return name##_otherwise(args, count);                                                       \
        }                                                                                               \
        if (!mm_emit_at_once(descriptor, kind)) {                                                       \
            return mm_emit_slowly_for_none(mm_tagged(descriptor, kind));                                \
        }                                                                                               \
        Py_RETURN_NONE;                                                                                 \
    }

MM_CALLBACK(on_start, MM_SPAN_BEGIN, begin_any, 1)
MM_CALLBACK(on_return, MM_SPAN_END, end_any, 1)
MM_CALLBACK(on_throw, MM_SPAN_BEGIN, begin_any, 0)
MM_CALLBACK(on_unwind, MM_SPAN_END, end_any, 0)

static PyObject *new_callback(vectorcallfunc call)
{
    mm_callback *callback = PyObject_New(mm_callback, &callback_type);
    if (callback) {
        callback->call = call;
    }
    return (PyObject *)callback;
}

/* (DISABLE) -> callbacks for PY_START and PY_RESUME, for PY_RETURN and PY_YIELD, for PY_THROW, for PY_UNWIND */
PyObject *mm_monitoring_callbacks(PyObject *module, PyObject *given)
{
    (void)module;
    if (PyType_Ready(&callback_type) < 0) {
        return NULL;
    }
    Py_XSETREF(disable, Py_NewRef(given));
    return Py_BuildValue("(NNNN)", new_callback(on_start), new_callback(on_return), new_callback(on_throw),
                         new_callback(on_unwind));
}

static int hook(int on)
{
    (void)on;
    return 0;
}

#elif !defined(MM_PUBLIC_FRAME_API)

static PyObject *traced_evaluation(PyThreadState *thread, struct _PyInterpreterFrame *frame, int throws, const void *descriptor)
{
    mm_emit(descriptor, MM_SPAN_BEGIN);
    PyObject *result = _PyEval_EvalFrameDefault(thread, frame, throws);
    mm_emit(descriptor, MM_SPAN_END);
    return result;
}

typedef struct {
    PyThreadState *thread;
    struct _PyInterpreterFrame *frame;
    int throws;
    const void *descriptor;
    PyObject *result;
} evaluation;

static void evaluate_there(void *argument)
{
    evaluation *call = argument;
    call->result = call->descriptor
                       ? traced_evaluation(call->thread, call->frame, call->throws, call->descriptor)
                       : _PyEval_EvalFrameDefault(call->thread, call->frame, call->throws);
}

/* With an evaluation function set, the interpreter calls it for every Python call, also for those that it would otherwise
 * make without recursion in C. */
static PyObject *evaluate(PyThreadState *thread, struct _PyInterpreterFrame *frame, int throws)
{
    mm_mark *mark = mm_mark_of((PyObject *)frame->f_code);
    if (__builtin_expect(!mark || (mark->generation != generation && mark->generation != MM_FOR_GOOD), 0)) {
        mark = generation ? decide((PyObject *)frame->f_code, frame->f_globals) : NULL;
    }
    const void *descriptor = mark ? mark->descriptor : NULL;
    if (__builtin_expect(mm_stack_is_short(), 0)) {
        evaluation call = {thread, frame, throws, descriptor, NULL};
        if (mm_call_on_new_stack(evaluate_there, &call)) {
            return call.result;
        }
    }
    /* The call of a generator function only makes the generator. */
    if (!descriptor || (frame->owner != FRAME_OWNED_BY_GENERATOR &&
                        frame->f_code->co_flags & (CO_GENERATOR | CO_COROUTINE | CO_ASYNC_GENERATOR))) {
        return _PyEval_EvalFrameDefault(thread, frame, throws);
    }
    return traced_evaluation(thread, frame, throws, descriptor);
}

static int hook(int on)
{
    PyInterpreterState *interpreter = PyInterpreterState_Get();
    _PyFrameEvalFunction now = _PyInterpreterState_GetEvalFrameFunc(interpreter);
    if (now != evaluate && now != _PyEval_EvalFrameDefault) {
        if (!on) {
            return 0; /* theirs; ours behind it traces no more */
        }
        PyErr_SetString(PyExc_RuntimeError,
                        "automatic tracing: another tool has taken over the evaluation of frames (PEP 523); stop it first");
        return -1;
    }
    _PyInterpreterState_SetEvalFrameFunc(interpreter, on ? evaluate : _PyEval_EvalFrameDefault);
    return 0;
}

#else

static int hook(int on)
{
    if (on) {
        PyErr_SetString(PyExc_RuntimeError, "automatic tracing: this build does not know the frames of this interpreter");
        return -1;
    }
    return 0;
}

#endif

/* (decider or None): switches automatic tracing on or off. From 3.12 on the events are the caller's to set. */
PyObject *mm_auto_trace(PyObject *module, PyObject *given)
{
    (void)module;
    int on = given != Py_None;
    if (hook(on) < 0) {
        return NULL;
    }
    generation = on ? ++last_generation : 0;
    Py_XSETREF(decider, on ? Py_NewRef(given) : NULL);
    Py_RETURN_NONE;
}

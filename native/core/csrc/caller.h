/* The address of the caller's CALL instruction: the identity of a call site, for two or three loads. And whether the
 * caller's frame is one that can be suspended: a coroutine's or a generator's.
 *
 * Reads the interpreter's frame, whose layout is private and differs by version; for versions not known here, the public
 * frame API tells the same (dearer). Must never be used to find out anything else about the frame.
 */
#ifndef MM_CALLER_H
#define MM_CALLER_H

#define PY_SSIZE_T_CLEAN
#ifndef MM_PUBLIC_FRAME_API
#if PY_VERSION_HEX >= 0x030B0000 && PY_VERSION_HEX < 0x030E0000
#ifndef Py_BUILD_CORE
#define Py_BUILD_CORE 1
#endif
#include "internal/pycore_context.h"
#include "internal/pycore_frame.h"
#if PY_VERSION_HEX < 0x030C0000
#undef _PyGC_FINALIZED /* which the next header defines in its own way */
#include "internal/pycore_runtime.h"
#else
#include "internal/pycore_gil.h"
#endif
#else
#define MM_PUBLIC_FRAME_API 1
#endif
#endif

#if !defined(MM_PUBLIC_FRAME_API) && PY_VERSION_HEX >= 0x030C0000
/* Of the main interpreter, which alone records (running_thread.c); its `last_holder` is whoever holds it. */
extern const struct _gil_runtime_state *mm_gil __attribute__((visibility("hidden")));
/* Stands for the thread where that could not be found: has no frame. */
extern PyThreadState mm_thread_not_known __attribute__((visibility("hidden")));
#endif
int mm_find_running_thread(void) __attribute__((visibility("hidden")));

/* The running thread's state without a call, so that the shortest ways have none at all and save no registers; on 3.12 and
 * later perhaps one that says nothing. The GIL must be held. */
static inline PyThreadState *mm_thread_state_at_once(void)
{
#ifdef MM_PUBLIC_FRAME_API
    return _PyThreadState_UncheckedGet();
#elif PY_VERSION_HEX >= 0x030D0000
    return _Py_atomic_load_ptr_relaxed(&mm_gil->last_holder);
#elif PY_VERSION_HEX >= 0x030C0000
    return (PyThreadState *)_Py_atomic_load_relaxed(&mm_gil->last_holder);
#else
    return (PyThreadState *)_Py_atomic_load_relaxed(&_PyRuntime.gilstate.tstate_current);
#endif
}

/* Whether that is the thread's. */
static inline int mm_is_known(const PyThreadState *thread)
{
#if !defined(MM_PUBLIC_FRAME_API) && PY_VERSION_HEX >= 0x030C0000
    return __builtin_expect(thread != &mm_thread_not_known, 1);
#else
    (void)thread;
    return 1;
#endif
}

/* The same, and it is the thread's. */
static inline PyThreadState *mm_thread_state(void)
{
    PyThreadState *thread = mm_thread_state_at_once();
    return mm_is_known(thread) ? thread : PyThreadState_Get();
}

#ifndef MM_PUBLIC_FRAME_API
static inline const struct _PyInterpreterFrame *mm_caller_frame(PyThreadState *thread)
{
#if PY_VERSION_HEX >= 0x030D0000
    return thread->current_frame;
#else
    return thread->cframe->current_frame;
#endif
}
#endif

/* The identity of the caller's frame when it belongs to a coroutine or a generator, else 0. It stays the same over
 * suspensions and is unique while the frame lives. */
static inline uintptr_t mm_suspendable_frame(PyThreadState *thread)
{
#ifdef MM_PUBLIC_FRAME_API
    (void)thread;
    PyFrameObject *frame = PyEval_GetFrame();
    if (!frame) {
        return 0;
    }
    PyCodeObject *code = PyFrame_GetCode(frame);
    int flags = code->co_flags;
    Py_DECREF(code);
    return flags & (CO_COROUTINE | CO_ASYNC_GENERATOR | CO_GENERATOR) ? (uintptr_t)frame : 0;
#else
    const struct _PyInterpreterFrame *frame = mm_caller_frame(thread);
    return __builtin_expect(!frame || frame->owner != FRAME_OWNED_BY_GENERATOR, 1) ? 0 : (uintptr_t)frame;
#endif
}

/* Whether such a frame, which runs now, is a plain generator's. */
static inline int mm_frame_is_generator(uintptr_t frame)
{
#ifdef MM_PUBLIC_FRAME_API
    PyCodeObject *code = PyFrame_GetCode((PyFrameObject *)frame);
    int flags = code->co_flags;
    Py_DECREF(code);
#elif PY_VERSION_HEX >= 0x030D0000
    int flags = ((PyCodeObject *)((const struct _PyInterpreterFrame *)frame)->f_executable)->co_flags;
#else
    int flags = ((const struct _PyInterpreterFrame *)frame)->f_code->co_flags;
#endif
    return !(flags & (CO_COROUTINE | CO_ASYNC_GENERATOR | CO_ITERABLE_COROUTINE));
}

/* Whether the thread runs inside `Context.run`, as every asyncio task does. */
static inline int mm_inside_context_run(PyThreadState *thread)
{
#ifdef MM_PUBLIC_FRAME_API
    /* Not told by the public API; a running event loop comes near. Only asked for generators. */
    (void)thread;
    PyObject *events = PyDict_GetItemString(PyImport_GetModuleDict(), "asyncio.events");
    PyObject *loop = events ? PyObject_CallMethod(events, "_get_running_loop", NULL) : NULL;
    int runs = loop && loop != Py_None;
    Py_XDECREF(loop);
    PyErr_Clear();
    return runs;
#else
    return thread->context && ((PyContext *)thread->context)->ctx_entered;
#endif
}

/* Not 0 when the address was found: there is a frame, and the thread's state tells of it. */
static inline int mm_find_caller(PyThreadState *thread, uintptr_t *address)
{
#ifdef MM_PUBLIC_FRAME_API
    (void)thread;
    PyFrameObject *frame = PyEval_GetFrame();
    if (!frame) {
        return 0;
    }
    PyCodeObject *code = PyFrame_GetCode(frame);
    /* The bytecode lies inside the code object, so code address + offset can't meet another code's. */
    *address = (uintptr_t)code + (uintptr_t)PyFrame_GetLasti(frame);
    Py_DECREF(code);
#else
    const struct _PyInterpreterFrame *frame = mm_caller_frame(thread);
    if (__builtin_expect(!frame, 0)) {
        return 0;
    }
#if PY_VERSION_HEX >= 0x030D0000
    *address = (uintptr_t)frame->instr_ptr;
#else
    *address = (uintptr_t)frame->prev_instr;
#endif
#endif
    return 1;
}

/* One site per instruction and level; instructions are two bytes apart, addresses leave the upper bits free. */
static inline uintptr_t mm_site_key_of(uintptr_t address, int level)
{
    return (address << 3) | (uintptr_t)level;
}

/* Calls without a frame share one per level. */
static inline uintptr_t mm_site_key(int level)
{
    uintptr_t address = 0;
    mm_find_caller(mm_thread_state(), &address);
    return mm_site_key_of(address, level);
}

#endif

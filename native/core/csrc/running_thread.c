/* Where the shortest ways find the running thread: CPython keeps it where only CPython's own functions look for it quickly (3.12
 * and later), but the lock that the thread must hold tells who holds it. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "caller.h"

#if !defined(MM_PUBLIC_FRAME_API) && PY_VERSION_HEX >= 0x030C0000
#ifdef _PyGC_FINALIZED
#undef _PyGC_FINALIZED /* which the next header defines in its own way */
#endif
#include "internal/pycore_interp.h"

PyThreadState mm_thread_not_known;

/* Whoever waits for the lock leaves its own name only where it has got it, and no call of the C API changes a thread's state
 * without giving up the lock and taking it again. */
static struct _gil_runtime_state no_gil;
const struct _gil_runtime_state *mm_gil = &no_gil;

/* The interpreter that runs may be a later patch of the one that this was compiled for. Both places lie in the interpreter's state:
 * where one is told by the other, the layout is the same. */
static const struct _gil_runtime_state *gil_of(const PyInterpreterState *interpreter)
{
    return interpreter->ceval.gil == &interpreter->_gil ? &interpreter->_gil : NULL;
}

int mm_find_running_thread(void)
{
#if PY_VERSION_HEX >= 0x030D0000
    no_gil.last_holder = &mm_thread_not_known;
#else
    static _PyCFrame no_frame;
    mm_thread_not_known.cframe = &no_frame;
    _Py_atomic_store_relaxed(&no_gil.last_holder, (uintptr_t)&mm_thread_not_known);
#endif
    const struct _gil_runtime_state *gil = gil_of(PyInterpreterState_Main());
    if (gil) {
        mm_gil = gil;
        if (mm_thread_state_at_once() != PyThreadState_Get()) {
            mm_gil = &no_gil;
        }
    }
    return mm_gil != &no_gil;
}
#else
int mm_find_running_thread(void)
{
    return 1;
}
#endif

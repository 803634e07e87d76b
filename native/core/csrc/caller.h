/* The address of the caller's CALL instruction: the identity of a call site, for two or three loads.
 *
 * Reads the interpreter's frame, whose layout is private and differs by version; for versions not known here, the public
 * frame API gives an equally unique (dearer) key. Must never be used to find out anything else about the frame.
 */
#ifndef MM_CALLER_H
#define MM_CALLER_H

#define PY_SSIZE_T_CLEAN
#ifndef MM_PUBLIC_FRAME_API
#if PY_VERSION_HEX >= 0x030B0000 && PY_VERSION_HEX < 0x030E0000
#ifndef Py_BUILD_CORE
#define Py_BUILD_CORE 1
#endif
#include "internal/pycore_frame.h"
#else
#define MM_PUBLIC_FRAME_API 1
#endif
#endif

static inline uintptr_t mm_caller_address(void)
{
#ifdef MM_PUBLIC_FRAME_API
    PyFrameObject *frame = PyEval_GetFrame();
    if (!frame) {
        return 0;
    }
    PyCodeObject *code = PyFrame_GetCode(frame);
    /* The bytecode lies inside the code object, so code address + offset can't meet another code's. */
    uintptr_t address = (uintptr_t)code + (uintptr_t)PyFrame_GetLasti(frame);
    Py_DECREF(code);
    return address;
#else
#if PY_VERSION_HEX >= 0x030D0000
    const struct _PyInterpreterFrame *frame = PyThreadState_GetUnchecked()->current_frame;
    return frame ? (uintptr_t)frame->instr_ptr : 0;
#else
    const struct _PyInterpreterFrame *frame = _PyThreadState_UncheckedGet()->cframe->current_frame;
    return frame ? (uintptr_t)frame->prev_instr : 0;
#endif
#endif
}

/* One site per instruction and level; instructions are two bytes apart, addresses leave the upper bits free. */
static inline uintptr_t mm_site_key(int level)
{
    return (mm_caller_address() << 3) | (uintptr_t)level;
}

#endif

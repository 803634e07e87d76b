/* Python tracebacks of all threads for a report of a crash: walks the interpreter's frames without its lock and writes with
 * write(2) only. As unsafe as any look at a program in the middle of a fault, so it comes last in a report.
 */
#include "recorder.h"

#include <string.h>
#include <unistd.h>

#include "caller.h"

#define MM_MAX_FRAMES 100
#define MM_MAX_THREADS 100
#define MM_MAX_TEXT 300

void mm_write_text(int fd, const char *text)
{
    if (write(fd, text, strlen(text)) < 0) {
        return; /* there is nobody to tell */
    }
}

void mm_write_number(int fd, uintptr_t number, unsigned base)
{
    char digits[24];
    char *at = digits + sizeof digits;
    *--at = '\0';
    do {
        *--at = "0123456789abcdef"[number % base];
        number /= base;
    } while (number);
    mm_write_text(fd, at);
}

#ifdef MM_PUBLIC_FRAME_API

void mm_write_tracebacks(int fd)
{
    mm_write_text(fd, "no traceback: the frames of this interpreter are not known\n");
}

#else

typedef struct _PyInterpreterFrame mm_frame;

#if PY_VERSION_HEX >= 0x030D0000
static mm_frame *innermost(PyThreadState *thread)
{
    return thread->current_frame;
}

static PyObject *code_of(const mm_frame *frame)
{
    return frame->f_executable;
}
#else
static mm_frame *innermost(PyThreadState *thread)
{
    return thread->cframe ? thread->cframe->current_frame : NULL;
}

static PyObject *code_of(const mm_frame *frame)
{
    return (PyObject *)frame->f_code;
}
#endif

static void write_string(int fd, PyObject *string)
{
    if (!string || !PyUnicode_Check(string)) {
        mm_write_text(fd, "?");
        return;
    }
    Py_ssize_t length = PyUnicode_GET_LENGTH(string);
    for (Py_ssize_t index = 0; index < length && index < MM_MAX_TEXT; index++) {
        Py_UCS4 character = PyUnicode_READ_CHAR(string, index);
        if (character >= ' ' && character < 0x7f) {
            char text[2] = {(char)character, '\0'};
            mm_write_text(fd, text);
        }
        else {
            mm_write_text(fd, "\\x{");
            mm_write_number(fd, character, 16);
            mm_write_text(fd, "}");
        }
    }
    if (length > MM_MAX_TEXT) {
        mm_write_text(fd, "...");
    }
}

static void write_frames(int fd, PyThreadState *thread)
{
    const mm_frame *frame = innermost(thread);
    for (int depth = 0; frame; frame = frame->previous) {
        PyObject *object = code_of(frame);
        if (!object || !PyCode_Check(object)) {
            continue; /* where C calls into Python */
        }
        if (depth++ == MM_MAX_FRAMES) {
            mm_write_text(fd, "  ...\n");
            return;
        }
        PyCodeObject *code = (PyCodeObject *)object;
        int line = PyCode_Addr2Line(code, _PyInterpreterFrame_LASTI((mm_frame *)frame) * (int)sizeof(_Py_CODEUNIT));
        mm_write_text(fd, "  File \"");
        write_string(fd, code->co_filename);
        mm_write_text(fd, "\", line ");
        mm_write_number(fd, line > 0 ? (uintptr_t)line : 0, 10);
        mm_write_text(fd, " in ");
        write_string(fd, code->co_qualname);
        mm_write_text(fd, "\n");
    }
}

static void write_thread(int fd, PyThreadState *thread, const char *which)
{
    mm_write_text(fd, which);
    mm_write_number(fd, thread->native_thread_id, 10);
    mm_write_text(fd, " (most recent call first):\n");
    write_frames(fd, thread);
}

/* Of the calling thread first. */
void mm_write_tracebacks(int fd)
{
    PyThreadState *current = PyGILState_GetThisThreadState();
    if (current) {
        write_thread(fd, current, "current thread ");
    }
    else {
        mm_write_text(fd, "current thread: none of Python\n");
    }
    PyThreadState *thread = PyInterpreterState_ThreadHead(PyInterpreterState_Main());
    for (int count = 0; thread && count < MM_MAX_THREADS; count++, thread = PyThreadState_Next(thread)) {
        if (thread != current) {
            write_thread(fd, thread, "thread ");
        }
    }
}

#endif

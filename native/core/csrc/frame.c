/* Frames: `with frame:` leaves where a frame begins and where it ends; the native thread makes the measure of it.
 *
 * A frame object has no state, so one object serves all threads. Must never compute what the native thread can.
 */
#include "recorder.h"

typedef struct {
    PyObject_HEAD
    const void *descriptor; /* of the measure; NULL when there were too many */
    uint64_t budget_ns;
} mm_frame;

typedef struct {
    mm_record head;
    uint64_t budget_and_end; /* budget in ns above the lowest bit, which is set at the end */
} boundary;

static void record_boundary(const mm_frame *frame, uint64_t is_end)
{
    mm_block *block = mm_reserve(sizeof(boundary), MM_FRAME);
    if (block) {
        mm_write_head(block, frame->descriptor, MM_FRAME);
        ((boundary *)block->cursor)->budget_and_end = frame->budget_ns << 1 | is_end;
        mm_commit(block, sizeof(boundary));
    }
}

static PyObject *frame_enter(PyObject *self, PyObject *unused)
{
    (void)unused;
    record_boundary((mm_frame *)self, 0);
    return Py_NewRef(self);
}

static PyObject *frame_exit(PyObject *self, PyObject *const *args, Py_ssize_t count)
{
    (void)args;
    (void)count;
    record_boundary((mm_frame *)self, 1);
    Py_RETURN_NONE;
}

static PyMethodDef frame_methods[] = {
    {"__enter__", frame_enter, METH_NOARGS, NULL},
    {"__exit__", (PyCFunction)(void (*)(void))frame_exit, METH_FASTCALL, NULL},
    {NULL, NULL, 0, NULL},
};

PyTypeObject mm_FrameType = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "micromegas._core.Frame",
    .tp_doc = "A piece of work that comes again and again: use `with frame:` around each.",
    .tp_basicsize = sizeof(mm_frame),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .tp_methods = frame_methods,
};

/* (metric, budget in ns, 0 for none) */
PyObject *mm_make_frame(PyObject *module, PyObject *args)
{
    (void)module;
    PyObject *metric;
    unsigned long long budget_ns;
    if (!PyArg_ParseTuple(args, "O!K", &mm_MetricType, &metric, &budget_ns)) {
        return NULL;
    }
    mm_frame *frame = PyObject_New(mm_frame, &mm_FrameType);
    if (frame) {
        frame->descriptor = mm_descriptor_of_metric(metric);
        frame->budget_ns = budget_ns;
    }
    return (PyObject *)frame;
}

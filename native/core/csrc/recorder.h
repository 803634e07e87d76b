/* What the C files of the recorder share, and the functions that C and Rust (src/recorder/hotpath.rs) offer each other. */
#ifndef MM_RECORDER_H
#define MM_RECORDER_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "buffer.h"

/* Nothing outside of this module: no detour by its table of symbols. */
#pragma GCC visibility push(hidden)

enum mm_level { MM_FATAL = 1, MM_ERROR = 2, MM_WARN = 3, MM_INFO = 4, MM_DEBUG = 5, MM_TRACE = 6 };

/* UTF-8, not terminated. */
typedef struct {
    const char *data;
    size_t size;
} mm_text;

/* ---- offered by Rust: descriptors are immortal, aligned to 16 bytes, NULL when there are too many ------------------ */

/* Writes one letter per conversion of the template (s r d x f) to `conversions` and their count, or -1 when the native
 * thread can't format the template as Python does, or it has more than MM_MAX_VALUES conversions. */
const void *mm_describe_log(uint32_t level, uint32_t line, mm_text template_text, mm_text target, mm_text file,
                            char *conversions, int *conversion_count);
/* `properties`: name, value, name, value … */
const void *mm_describe_metric(mm_text name, mm_text unit, mm_text target, mm_text file, uint32_t line,
                               const mm_text *properties, size_t property_texts);
const void *mm_describe_span(mm_text name, mm_text target, mm_text file, uint32_t line);
/* Tells, once per session, that the program made too many of these. */
enum mm_limit { MM_LOG_SITES = 0, MM_SPANS = 1, MM_METRICS = 2, MM_COUNTERS = 3, MM_PROPERTY_SETS = 4, MM_LOGGERS = 5 };
void mm_limit_reached(uint32_t limit);
/* The target that a descriptor was made with. */
mm_text mm_described_target(const void *descriptor);
/* Starts the native thread of a forked child. Returns 0 when that failed; recording is off then. */
int mm_recorder_restart(void);
/* Makes the folder in which the session's blocks outlive the process, and calls mm_pages_open; says so if it can't. */
void mm_spool_make_folder(void);
/* Stops writing to the journal, if this is its file. */
void mm_journal_end(int descriptor);

/* Around a fork: nobody makes a descriptor meanwhile. */
void mm_descriptors_hold(void);
void mm_descriptors_let_go(void);
/* Changes whenever records, or what describes them, are laid out differently. */
extern const uint64_t mm_record_layout;

/* ---- buffers, beyond the inline part ---------------------------------------------------------------------------------- */

int mm_buffers_init(PyObject *namer, uint64_t memory_limit);
PyObject *mm_rename_thread(PyObject *module, PyObject *args);
void mm_buffers_begin(int with_folder);
void mm_buffers_want_folder(void);
uint64_t mm_blocks_outside_file(void);
void mm_set_recording(int recording);
/* mm_emit_slowly for a function of Python that returns None: to be called last. */
PyObject *mm_emit_slowly_for_none(uint64_t tagged_descriptor);

/* ---- counters: summed in place, read by the native thread ----------------------------------------------------------- */

typedef struct mm_sum {
    int64_t integers;
    double floats;
    const void *descriptor;
    struct mm_sum *next;
} mm_sum;

/* Zeroed, never freed, and found after the process has died; NULL when there are too many. Needs the GIL. */
mm_sum *mm_new_sum(void);

/* ---- reports of crashes, in signal handlers ------------------------------------------------------------------------------ */

void mm_write_text(int fd, const char *text);
void mm_write_number(int fd, uintptr_t number, unsigned base);
void mm_write_tracebacks(int fd);

/* ---- where an event was written --------------------------------------------------------------------------------------- */

typedef struct {
    PyObject *code;   /* strong, or NULL when no Python frame is running */
    PyObject *target; /* strong, UTF-8 bytes: the module's __name__ */
    PyObject *file;   /* strong, UTF-8 bytes */
    uint32_t line;
} mm_place;

/* Never fails: what can't be found out is empty. */
void mm_place_of_caller(mm_place *place);
void mm_place_clear(mm_place *place);

/* New bytes object holding the text as UTF-8, lone surrogates written as \udcxx. NULL (error cleared) only without memory. */
PyObject *mm_utf8(PyObject *text);
mm_text mm_text_of(PyObject *utf8_bytes);

/* ---- call sites -------------------------------------------------------------------------------------------------------- */

/* What a conversion takes without Python code besides integers, so that one bit in memory tells. */
enum mm_accepts { MM_ACCEPTS_TEXT = 1, MM_ACCEPTS_FLOAT = 2, MM_ACCEPTS_NONE = 4, MM_ACCEPTS_ALL = 7 };

typedef struct mm_site {
    uintptr_t key;
    const void *descriptor; /* of the literal */
    int conversion_count;   /* -1: the message must be formatted by the caller */
    int muted;              /* by the level of its target */
    uint8_t accepted[MM_FEW_VALUES]; /* of the first conversions: mm_accepts */
    char conversions[MM_MAX_VALUES];
    PyObject *text;         /* strong: the literal that the site was first called with; NULL when it was none */
    PyObject *code;         /* strong: the key is unique only while the code lives */
    PyObject *span;         /* strong: for span sites */
    const void *varying;    /* for messages made elsewhere; NULL until needed */
    unsigned names;         /* of a span site: descriptions beside that of the literal */
} mm_site;

typedef struct {
    uintptr_t key; /* 0: free */
    mm_site *site;
} mm_slot;

extern mm_slot *mm_slots;
extern size_t mm_slot_mask;
extern int mm_slot_shift;

static inline size_t mm_first_slot(uintptr_t key)
{
    return (size_t)(((uint64_t)key * 0x9E3779B97F4A7C15u) >> mm_slot_shift);
}

/* NULL when the site is unknown. Level 0 is for spans. Key 0 (no Python frame) is never known. */
static inline mm_site *mm_site_find(uintptr_t key)
{
    size_t index = mm_first_slot(key);
    for (;;) {
        const mm_slot *slot = &mm_slots[index];
        if (__builtin_expect(slot->key == key, 1)) {
            return slot->site;
        }
        if (!slot->key) {
            return NULL;
        }
        index = (index + 1) & mm_slot_mask;
    }
}

/* Forgets which sites may take the shortest way: something has changed that this way does not ask for. */
void mm_log_hot_sites_clear(void);

/* Adds a site; NULL when the table is full or memory is short. Steals nothing. */
mm_site *mm_site_add(uintptr_t key, PyObject *text, PyObject *code);
void mm_sites_each(void (*act)(mm_site *));
size_t mm_site_count(void);

/* ---- values ------------------------------------------------------------------------------------------------------------ */

/* Whether a value is an exact int of which one comparison tells that it is small: from 1 to 2^30 - 1, as most are. */
static inline int mm_is_small_int(PyObject *object)
{
    if (!PyLong_CheckExact(object)) {
        return 0;
    }
#if PY_VERSION_HEX < 0x030C0000
    return Py_SIZE(object) == 1;
#elif PY_VERSION_HEX < 0x030E0000
    return ((PyLongObject *)object)->long_value.lv_tag == 1 << 3; /* one digit, positive */
#else
    return PyUnstable_Long_IsCompact((PyLongObject *)object);
#endif
}

static inline int64_t mm_small_int(PyObject *object)
{
#if PY_VERSION_HEX < 0x030C0000
    return (int64_t)((PyLongObject *)object)->ob_digit[0];
#elif PY_VERSION_HEX < 0x030E0000
    return (int64_t)((PyLongObject *)object)->long_value.ob_digit[0];
#else
    return (int64_t)PyUnstable_Long_CompactValue((PyLongObject *)object);
#endif
}

typedef struct {
    PyObject *text; /* the text to copy: borrowed from the caller, or equal to `owned` */
    PyObject *owned;
    union {
        int64_t integer;
        double real;
        uint64_t whole; /* code points before the cut */
    } as;
    uint64_t word;
    size_t size;
} mm_value;

/* 0: `value` is ready to copy as the conversion asks ('s', 'r', 'd', 'x', 'f'). 1: only Python can format this one.
 * -1: a BaseException that is no Exception (KeyboardInterrupt …) is set and must reach the program. */
int mm_value_measure(mm_value *value, PyObject *object, char conversion);
uint8_t *mm_value_write(const mm_value *value, uint8_t *to);
void mm_values_clear(mm_value *values, size_t count);

/* Around code of the program that a log call runs (str(), repr()). 0: nested too deep, don't run it and don't leave. */
int mm_value_enter(void);
void mm_value_leave(void);

/* Clears the current exception and returns 0, unless it must reach the program (then -1). */
int mm_swallow_error(void);

/* The text that a record would hold for an object, cut where it is very long; never fails for what the object does.
 * NULL only with a BaseException that is no Exception set, or without memory. */
PyObject *mm_text_of_object(PyObject *object);

/* ---- property sets ----------------------------------------------------------------------------------------------------- */

#define MM_MAX_SET_PROPERTIES 64
#define MM_MAX_PROPERTY_UNITS 8192 /* of a text */

/* What `mm.properties(user="alice")` gives. Immutable. Equal interned sets are one object, which lives for ever: its address
 * may serve as a key (of a metric's descriptor with these properties, for one). */
typedef struct {
    PyObject_HEAD
    int interned;         /* 0: the set of a context, or there were too many */
    PyObject *pairs;      /* tuple of (name, value), both str, sorted by name */
    size_t count;
    size_t size;      /* of `encoded` */
    uint8_t *encoded; /* name, value, name, value … as mm_value_write writes them, ready to copy into a log record */
} mm_property_set;

extern PyTypeObject mm_PropertySetType; /* exact: can't be subclassed */

/* Not 0 when log events may have properties beside their own: 1 a context was bound once, 2 the process has global ones. */
extern uintptr_t mm_log_extras;
extern mm_property_set *mm_global_properties; /* borrowed; NULL: none */
/* Of the running context; a new reference, or NULL (no error) when there are none. */
mm_property_set *mm_context_properties(void);

PyObject *mm_safe_text(PyObject *module, PyObject *object);
/* Of a tuple of (name, value), both str, in their order; not interned. */
PyObject *mm_new_property_set(PyObject *pairs);
int mm_property_set_init(PyObject *module);
PyObject *mm_make_properties(PyObject *module, PyObject *args);
PyObject *mm_use_context(PyObject *module, PyObject *unused);
PyObject *mm_set_global_properties(PyObject *module, PyObject *set);

/* ---- measures ------------------------------------------------------------------------------------------------------------- */

typedef struct {
    enum mm_kind kind; /* MM_METRIC_INT, MM_METRIC_FLOAT */
    uint64_t bits;
} mm_number;

/* 0: it is no number; an exception may be set. */
int mm_number_of(PyObject *value, mm_number *number);

/* What metrics and counters are declared with; borrowed. */
typedef struct {
    PyObject *name;                   /* str */
    PyObject *unit, *target, *file;   /* UTF-8 bytes */
    unsigned int line;
    PyObject *properties;             /* tuple of UTF-8 bytes: name, value, … */
    int with_context;
    const void *descriptor;           /* NULL: there are too many */
} mm_declaration;

/* Parses the arguments of make_metric, and of make_counter, which has no `with_context`. Returns 0, or -1 with an error. */
int mm_declare(PyObject *args, int is_metric, mm_declaration *declaration);
PyObject *mm_metric_of(const mm_declaration *declaration);
int mm_metric_init(void); /* now, because later there may be too many descriptors */
PyObject *mm_metric_record_number(PyObject *metric, mm_number number);

/* A measure with properties: those bound to the context and the process, if wanted, then `own`, which may be NULL, then those
 * that a call gives by name. NULL with an exception set that must reach the program, else None. */
PyObject *mm_measure_with(const void *descriptor, mm_property_set *own, int with_context, mm_number number,
                          PyObject *const *values, PyObject *names);

/* ---- log events that happened elsewhere than the call ---------------------------------------------------------------------- */

typedef struct {
    int level;
    uint32_t line;
    PyObject *target; /* exact str, as all below borrowed */
    PyObject *file;   /* exact str */
    PyObject *message;
    PyObject *values;        /* tuple, mapping, NULL */
    PyObject *exception;     /* as for exc_info=; NULL: none */
    PyObject *stack_text;    /* str, NULL */
    PyObject *properties;    /* dict with str keys, NULL */
    PyObject *no_properties; /* set of keys of it that are none, NULL */
} mm_elsewhere;

/* 0, or -1 with an exception set that must reach the program. */
int mm_log_elsewhere(mm_elsewhere *event);
PyObject *mm_record_log(PyObject *module, PyObject *const *args, Py_ssize_t count);
PyObject *mm_record_logging(PyObject *module, PyObject *record);
PyObject *mm_set_logging(PyObject *module, PyObject *args);

/* ---- levels ------------------------------------------------------------------------------------------------------------ */

int mm_level_of_target(mm_text target);
int mm_most_verbose_level(void);
PyObject *mm_set_levels(PyObject *module, PyObject *args);
/* Also when recording begins or ends. */
void mm_log_levels_changed(void);

/* ---- types ------------------------------------------------------------------------------------------------------------- */

extern PyTypeObject mm_LogType, mm_MetricType, mm_FrameType, mm_CounterType, mm_SpanType, mm_NamedSpanType, mm_AsyncSpanType, mm_TracedType;
int mm_log_init(PyObject *module); /* now, because later there may be too many descriptors */
int mm_span_init(void);
int mm_async_span_init(void);
PyObject *mm_span_function(PyObject *module, PyObject *const *args, Py_ssize_t count);
PyObject *mm_span_new(PyObject *name, const mm_place *place);
PyObject *mm_make_span(PyObject *module, PyObject *args);
PyObject *mm_make_metric(PyObject *module, PyObject *args);
PyObject *mm_make_counter(PyObject *module, PyObject *args);
const void *mm_descriptor_of_metric(PyObject *metric);
PyObject *mm_make_frame(PyObject *module, PyObject *args);
PyObject *mm_make_gc_callback(PyObject *module, PyObject *metrics);
void mm_metric_record_integer(PyObject *metric, int64_t value);
PyObject *mm_make_traced(PyObject *module, PyObject *args);
const void *mm_span_descriptor(PyObject *span);
PyObject *mm_span_named_function(PyObject *module, PyObject *name);
PyObject *mm_async_span_open(const void *descriptor, PyObject *name);
PyObject *mm_async_span_enter(PyObject *span, const void *descriptor, PyObject *name);
PyObject *mm_async_span_leave(const void *descriptor);
/* New ids from `first` on, and 32 hexadecimal digits: another session, or another process. */
void mm_async_ids_restart(uint64_t first, const char *trace);
PyObject *mm_trace_context(PyObject *module, PyObject *unused);
PyObject *mm_adopt_trace(PyObject *module, PyObject *args);
PyObject *mm_open_span(PyObject *module, PyObject *args);
PyObject *mm_remote_span(PyObject *module, PyObject *args);
PyObject *mm_async_parent(PyObject *module, PyObject *unused);
PyObject *mm_async_span_variable(void);

/* A block (`with span:`) in a frame that can be suspended, or in one that is not known (MM_NO_FRAME).
 * 0: it is one of the thread's. */
#define MM_NO_FRAME ((uintptr_t)1)
int mm_block_begin(PyThreadState *thread, const void *descriptor, PyObject *name, uintptr_t frame);
/* All of a span's `__enter__`, also where it is one of the thread's; gives the span, a new reference. */
PyObject *mm_block_enter(PyObject *span, const void *descriptor, PyThreadState *thread, uintptr_t frame);
int mm_block_end(PyThreadState *thread, const void *descriptor, uintptr_t frame);
extern size_t mm_open_blocks; /* how many there are */
PyObject *mm_auto_trace(PyObject *module, PyObject *decider);
PyObject *mm_monitoring_callbacks(PyObject *module, PyObject *disable);
PyObject *mm_make_logger(PyObject *module, PyObject *args);

/* Values that could not be recorded (a metric's value that is no number …), counted for the native thread. */
extern uint64_t mm_refused_values;

#pragma GCC visibility pop

#endif

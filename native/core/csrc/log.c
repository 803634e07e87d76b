/* `micromegas.log` and `mm.logger(target)`: one method per level. A call copies its values; the native thread makes the message.
 *
 * Must never raise for what is being logged: broken objects and templates become part of the message.
 */
#if defined(__GNUC__) && !defined(__clang__)
/* Else what several branches read is read before them, into registers that would have to be saved. */
#pragma GCC optimize("no-gcse")
#endif

#include "log.h"

#include <string.h>

#include "caller.h"
#include "log_short.h"

/* Site keys have the logger's number above the address of the call: 47 bits and 3 for the level. */
#define MM_SALT_SHIFT 50
#define MM_MAX_LOGGERS 16000

/* Loggers are never freed: call sites are theirs. */
static mm_log *loggers;
static uintptr_t logger_count;

/* ---- levels ---------------------------------------------------------------------------------------------------------------- */

static void set_ceiling(mm_log *log)
{
    int ceiling = 0;
    if (mm_recording != MM_OFF) {
        ceiling = log->target ? mm_level_of_target(mm_text_of(log->target)) : mm_most_verbose_level();
    }
    log->ceiling = ceiling < log->limit ? ceiling : log->limit;
}

void mm_log_levels_changed(void)
{
    for (mm_log *log = loggers; log; log = log->next) {
        set_ceiling(log);
    }
    mm_sites_each(mm_log_site_mute_or_not);
    mm_log_hot_sites_clear();
}

/* ---- the long way ----------------------------------------------------------------------------------------------------------- */

static __attribute__((noinline)) PyObject *record_long(const mm_log *self, PyObject *const *args, Py_ssize_t count,
                                                       PyObject *names, int level, PyObject *exception)
{
    if (count < 1) {
        PyErr_SetString(PyExc_TypeError, "log: a message is missing");
        return NULL;
    }
    uintptr_t key = mm_site_key(level) ^ self->salt;
    mm_site *site = mm_site_find(key);
    if (!site) {
        site = mm_log_site_add(key, level, args[0], self);
    }
    if (site && site->muted) {
        Py_RETURN_NONE;
    }
    mm_log_given given = {.exception = exception};
    mm_log_take(&given, self, args + count, names);
    int status = mm_log_record(self, level, site, args, count, &given);
    mm_log_forget(&given);
    if (status < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

/* ---- the shortest way ------------------------------------------------------------------------------------------------------- */

/* Of the sites that were called last, those with a literal whose events are recorded and get nothing from a context: all that
 * the shortest way needs to know, in one place found by a mask. Two sites of one place take turns. */
typedef struct {
    uintptr_t key;          /* of the site; 0: free */
    PyObject *text;         /* borrowed from the site, which is never freed */
    uint64_t tagged_literal;
    int32_t value_count;    /* never that of a call when this is no site for the short way */
    uint8_t accepted[MM_FEW_VALUES];
} mm_hot_site;

#define MM_HOT_SITES 1024
_Static_assert(sizeof(mm_hot_site) == 32, "the place of a key is found by the bits above the lowest five");
/* `kind_bits` makes the one of the other. */
_Static_assert((MM_LOG_FEW & MM_LOG_VALUES) == MM_LOG_LITERAL && MM_LOG_VALUES == (MM_LOG_LITERAL | 1), "tags differ by a bit");

static mm_hot_site hot_sites[MM_HOT_SITES];

/* Call instructions are more than four bytes apart. */
static inline mm_hot_site *hot_place(uintptr_t key)
{
    return (mm_hot_site *)((char *)hot_sites + (key & (MM_HOT_SITES - 1) * sizeof *hot_sites));
}

void mm_log_hot_sites_clear(void)
{
    memset(hot_sites, 0, sizeof hot_sites);
}

static PyObject *record_values(const mm_log *self, PyObject *const *args, Py_ssize_t count, int level);
static PyObject *record_properties(const mm_log *self, PyObject *const *args, Py_ssize_t count, PyObject *names, int level);

/* Whether the short way can take what a call gives by name. */
static inline int has_few_names(const mm_log *self, PyObject *names)
{
    return !names || (PyTuple_GET_SIZE(names) <= MM_FEW_VALUES && !self->is_stdlib);
}

/* What makes the tag of a record with values of a literal's. */
static inline uint64_t kind_bits(PyObject *names)
{
    return names ? MM_LOG_VALUES ^ MM_LOG_LITERAL : MM_LOG_FEW ^ MM_LOG_LITERAL;
}

/* Writes all of a record with few values but its head; gives its end, NULL when a value needs the long way. */
static inline __attribute__((always_inline)) uint8_t *write_few(mm_record *head, const uint8_t *accepted, PyObject *const *args,
                                                                Py_ssize_t count)
{
    uint64_t *words = (uint64_t *)(head + 1);
    uint8_t *to = (uint8_t *)(words + 1);
    uint8_t *codes = (uint8_t *)words;
    to = count > 1 ? mm_write_bare(to, args[1], accepted + 0, codes) : to;
    to = count > 2 && to ? mm_write_bare(to, args[2], accepted + 1, codes + 1) : to;
    to = count > 3 && to ? mm_write_bare(to, args[3], accepted + 2, codes + 2) : to;
    to = count > 4 && to ? mm_write_bare(to, args[4], accepted + 3, codes + 3) : to;
    if (__builtin_expect(to != NULL, 1)) {
        ((uint32_t *)words)[1] = (uint32_t)(count - 1) | (uint32_t)(to - (uint8_t *)head) << 16;
    }
    return to;
}

/* The same of a record with properties. */
static inline __attribute__((always_inline)) uint8_t *write_with(mm_record *head, const uint8_t *accepted,
                                                                 PyObject *const *args, Py_ssize_t count, PyObject *names,
                                                                 mm_property_set *const *sets, size_t set_count)
{
    Py_ssize_t name_count = names ? PyTuple_GET_SIZE(names) : 0;
    uint64_t properties = (uint64_t)name_count;
    uint64_t *words = (uint64_t *)(head + 1);
    uint8_t *to = (uint8_t *)(words + 1);
    for (Py_ssize_t index = 1; to && index < count; index++) {
        to = mm_write_plain(to, args[index], accepted + index - 1);
    }
    for (size_t index = 0; to && index < set_count; index++) {
        memcpy(to, sets[index]->encoded, sets[index]->size);
        to += sets[index]->size;
        properties += sets[index]->count;
    }
    if (names && to) {
        to = mm_write_plain_properties(to, names, args + count, name_count);
    }
    if (__builtin_expect(to != NULL, 1)) {
        uint64_t size = (uint64_t)(to - (uint8_t *)head);
        words[0] = size | (uint64_t)(count - 1) << 32 | properties << 48;
    }
    return to;
}

/* Few values, and the properties of the process and of the context. 0: some of it needs the long way. */
static int record_few_with_ambient(const mm_log *self, const mm_site *site, PyObject *const *args, Py_ssize_t count, PyObject *names)
{
    if (count < 1 || site->text != args[0] || site->muted || site->conversion_count != count - 1 ||
        count - 1 > MM_FEW_VALUES || !has_few_names(self, names)) {
        return 0;
    }
    mm_property_set *sets[MM_AMBIENT_SETS];
    size_t set_count = mm_log_ambient_sets(sets);
    size_t room = MM_SHORT_RECORD;
    for (size_t index = 0; index < set_count; index++) {
        room += sets[index]->size;
    }
    int is_literal = count == 1 && !names && !set_count;
    enum mm_kind kind = is_literal ? MM_LOG_LITERAL : MM_LOG_VALUES;
    mm_block *block = mm_reserve(room, kind);
    int done = 1; /* without room, too: the loss is counted */
    if (block) {
        mm_record *head = (mm_record *)block->cursor;
        uint8_t *end = is_literal ? (uint8_t *)(head + 1)
                                  : write_with(head, site->accepted, args, count, names, sets, set_count);
        done = end != NULL;
        if (done) {
            mm_write_head(block, site->descriptor, kind);
            mm_commit(block, (size_t)(end - block->cursor));
        }
    }
    for (size_t index = 0; index < set_count; index++) {
        Py_DECREF(sets[index]);
    }
    return done;
}

/* Where the shortest way never goes: all events get properties of the process or of their context. */
static __attribute__((noinline)) PyObject *record_with_ambient(const mm_log *self, PyObject *const *args, Py_ssize_t count,
                                                               PyObject *names, int level)
{
    const mm_site *site = mm_site_find(mm_site_key(level) ^ self->salt);
    if (site && record_few_with_ambient(self, site, args, count, names)) {
        Py_RETURN_NONE;
    }
    return record_long(self, args, count, names, level, NULL);
}

/* A literal with few values at a place that the shortest way knows, where there is no room at once: reading the clock is a call,
 * or the block is full. 0: a value needs the long way. */
static __attribute__((noinline)) int record_few_slowly(const mm_hot_site *hot, PyObject *const *args, Py_ssize_t count, PyObject *names)
{
    mm_block *block = mm_reserve(MM_SHORT_RECORD, names ? MM_LOG_VALUES : MM_LOG_FEW);
    if (!block) {
        return 1; /* the loss is counted */
    }
    mm_record *head = (mm_record *)block->cursor;
    uint8_t *end = names ? write_with(head, hot->accepted, args, count, names, NULL, 0)
                         : write_few(head, hot->accepted, args, count);
    if (end) {
        mm_write_tagged_head(block, hot->tagged_literal | kind_bits(names));
        mm_commit(block, (size_t)(end - block->cursor));
    }
    return end != NULL;
}

/* For what the shortest way can't record: remembers the site when the next call can take it, and goes on. */
static __attribute__((noinline)) PyObject *record_otherwise(const mm_log *self, PyObject *const *args, Py_ssize_t count,
                                                            PyObject *names, int level)
{
    if (mm_log_extras) {
        return record_with_ambient(self, args, count, names, level);
    }
    uintptr_t key = mm_site_key(level) ^ self->salt; /* again: who called this would have to save it */
    mm_hot_site *hot = hot_place(key);
    if (hot->key == key && count >= 1 && hot->text == args[0] && hot->value_count == count - 1 && has_few_names(self, names) &&
        !mm_is_ready(mm_current, MM_SHORT_RECORD) && record_few_slowly(hot, args, count, names)) {
        Py_RETURN_NONE;
    }
    const mm_site *site = mm_site_find(key);
    if (hot->key != key && site && site->text && count >= 1 && site->text == args[0] && !site->muted) {
        int is_short = site->conversion_count >= 0 && site->conversion_count <= MM_FEW_VALUES;
        hot->key = key;
        hot->text = site->text;
        hot->tagged_literal = mm_tagged(site->descriptor, MM_LOG_LITERAL);
        hot->value_count = is_short ? site->conversion_count : -2;
        memcpy(hot->accepted, site->accepted, sizeof hot->accepted);
        return names ? record_properties(self, args, count, names, level) : record_values(self, args, count, level);
    }
    return record_long(self, args, count, names, level, NULL);
}

/* Of the call that runs; NULL when the shortest way does not know it. */
static inline __attribute__((always_inline)) const mm_hot_site *hot_site_of_call(const mm_log *self, PyObject *text, int level)
{
    uintptr_t address;
    if (!mm_find_caller(mm_thread_state_at_once(), &address)) {
        return NULL;
    }
    uintptr_t key = mm_site_key_of(address, level) ^ self->salt;
    const mm_hot_site *hot = hot_place(key);
    return __builtin_expect(hot->key == key && hot->text == text, 1) ? hot : NULL;
}

/* A literal with few values, none of which needs Python code. */
static inline __attribute__((always_inline)) PyObject *record_few(const mm_log *self, PyObject *const *args, Py_ssize_t count,
                                                                  PyObject *names, int level)
{
    const mm_hot_site *hot = hot_site_of_call(self, args[0], level);
    mm_block *block = mm_current;
    if (__builtin_expect(!hot || hot->value_count != count - 1 || !has_few_names(self, names) ||
                         !mm_is_ready(block, MM_SHORT_RECORD), 0)) {
        return record_otherwise(self, args, count, names, level);
    }
    mm_record *head = (mm_record *)block->cursor;
    uint8_t *end = names ? write_with(head, hot->accepted, args, count, names, NULL, 0)
                         : write_few(head, hot->accepted, args, count);
    if (__builtin_expect(!end, 0)) {
        /* Read again, so that no register keeps the level while values are written. */
        int same = __builtin_constant_p(level) ? level : (int)(*(volatile const uintptr_t *)&hot->key & 7);
        return record_otherwise(self, args, count, names, same);
    }
    mm_write_head_at_once(head, hot->tagged_literal | kind_bits(names));
    mm_commit_until(block, end);
    Py_RETURN_NONE;
}

static inline __attribute__((always_inline)) PyObject *record_literal(const mm_log *self, PyObject *const *args, int level)
{
    const mm_hot_site *hot = hot_site_of_call(self, args[0], level);
    mm_block *block = mm_current;
    if (__builtin_expect(!hot, 0)) {
        return record_otherwise(self, args, 1, NULL, level);
    }
    if (!mm_is_ready(block, sizeof(mm_record))) {
        return mm_emit_slowly_for_none(hot->tagged_literal);
    }
    mm_record *record = (mm_record *)block->cursor;
    mm_write_head_at_once(record, hot->tagged_literal);
    mm_commit_until(block, (uint8_t *)(record + 1));
    Py_RETURN_NONE;
}

/* Where the count is known, values are written without a loop, in few enough registers that none is saved. */
static __attribute__((noinline)) PyObject *record_two_values(const mm_log *self, PyObject *const *args, int level)
{
    return record_few(self, args, 3, NULL, level);
}

static __attribute__((noinline)) PyObject *record_three_values(const mm_log *self, PyObject *const *args, int level)
{
    return record_few(self, args, 4, NULL, level);
}

/* Any count, also none. */
static __attribute__((noinline)) PyObject *record_values(const mm_log *self, PyObject *const *args, Py_ssize_t count, int level)
{
    return count == 3   ? record_two_values(self, args, level)
           : count == 4 ? record_three_values(self, args, level)
           : count < 1  ? record_long(self, args, count, NULL, level, NULL)
                        : record_few(self, args, count, NULL, level);
}

static __attribute__((noinline)) PyObject *record_properties(const mm_log *self, PyObject *const *args, Py_ssize_t count,
                                                             PyObject *names, int level)
{
    return count < 1 ? record_long(self, args, count, names, level, NULL) : record_few(self, args, count, names, level);
}

/* ---- methods -------------------------------------------------------------------------------------------------------------------- */

/* A function for each way, so that a short one saves no registers for a longer one. */
#define LEVEL_METHOD(name, level)                                                                            \
    static __attribute__((noinline)) PyObject *name##_literal(const mm_log *self, PyObject *const *args)     \
    {                                                                                                        \
        return record_literal(self, args, level);                                                            \
    }                                                                                                        \
    static __attribute__((noinline)) PyObject *name##_value(const mm_log *self, PyObject *const *args)       \
    {                                                                                                        \
        return record_few(self, args, 2, NULL, level);                                                       \
    }                                                                                                        \
    static PyObject *log_##name(PyObject *object, PyObject *const *args, Py_ssize_t count, PyObject *names)  \
    {                                                                                                        \
        const mm_log *self = (const mm_log *)object;                                                         \
        if (level > self->ceiling) {                                                                         \
            Py_RETURN_NONE;                                                                                  \
        }                                                                                                    \
        if (names) {                                                                                         \
            return record_properties(self, args, count, names, level);                                       \
        }                                                                                                    \
        if (count == 2) {                                                                                    \
            return name##_value(self, args);                                                                 \
        }                                                                                                    \
        if (count == 1) {                                                                                    \
            return name##_literal(self, args);                                                               \
        }                                                                                                    \
        return count == 4 ? record_three_values(self, args, level)                                           \
                          : record_values(self, args, count, level);                                         \
    }
LEVEL_METHOD(fatal, MM_FATAL)
LEVEL_METHOD(error, MM_ERROR)
LEVEL_METHOD(warn, MM_WARN)
LEVEL_METHOD(info, MM_INFO)
LEVEL_METHOD(debug, MM_DEBUG)
LEVEL_METHOD(trace, MM_TRACE)

static PyObject *log_exception(PyObject *self, PyObject *const *args, Py_ssize_t count, PyObject *names)
{
    mm_log *log = (mm_log *)self;
    if (MM_ERROR > log->ceiling) {
        Py_RETURN_NONE;
    }
    return record_long(log, args, count, names, MM_ERROR, Py_True);
}

/* Number of a level given by name or number; 0 with an error when there is none. */
static int level_of(PyObject *given)
{
    static const struct {
        const char *name;
        int level;
    } known[] = {{"fatal", MM_FATAL}, {"critical", MM_FATAL}, {"error", MM_ERROR}, {"warn", MM_WARN},
                 {"warning", MM_WARN}, {"info", MM_INFO}, {"debug", MM_DEBUG}, {"trace", MM_TRACE}};
    for (size_t index = 0; PyUnicode_Check(given) && index < sizeof known / sizeof *known; index++) {
        if (PyUnicode_CompareWithASCIIString(given, known[index].name) == 0) {
            return known[index].level;
        }
    }
    PyErr_Format(PyExc_ValueError, "log level %R: not one of fatal, error, warn, info, debug, trace", given);
    return 0;
}

static PyObject *log_is_enabled(PyObject *self, PyObject *name)
{
    mm_log *log = (mm_log *)self;
    int level = level_of(name);
    if (!level) {
        return NULL;
    }
    int enabled = level <= log->ceiling;
    if (enabled && !log->target) {
        mm_place place;
        mm_place_of_caller(&place);
        enabled = level <= mm_level_of_target(mm_text_of(place.target));
        mm_place_clear(&place);
    }
    return PyBool_FromLong(enabled);
}

static PyObject *log_target(PyObject *self, void *unused)
{
    (void)unused;
    PyObject *target = ((mm_log *)self)->target;
    if (!target) {
        Py_RETURN_NONE;
    }
    return PyUnicode_DecodeUTF8(PyBytes_AS_STRING(target), PyBytes_GET_SIZE(target), "replace");
}

static PyObject *log_set_limit(PyObject *self, PyObject *level)
{
    long limit = PyLong_AsLong(level);
    if (limit == -1 && PyErr_Occurred()) {
        return NULL;
    }
    ((mm_log *)self)->limit = limit < 0 ? 0 : limit > MM_TRACE ? MM_TRACE : (int)limit;
    set_ceiling((mm_log *)self);
    Py_RETURN_NONE;
}

static PyObject *log_repr(PyObject *self)
{
    PyObject *target = log_target(self, NULL);
    PyObject *text = target ? (target == Py_None ? PyUnicode_FromString("<logger of the calling module>")
                                                 : PyUnicode_FromFormat("<logger %R>", target))
                            : NULL;
    Py_XDECREF(target);
    return text;
}

#define LEVEL_ENTRY(name, function) \
    {name, (PyCFunction)(void (*)(void))function, METH_FASTCALL | METH_KEYWORDS, \
     "(message, /, *values, **properties): record a log event; the message is message % values, formatted elsewhere"}

static PyMethodDef log_methods[] = {
    LEVEL_ENTRY("fatal", log_fatal),
    LEVEL_ENTRY("critical", log_fatal),
    LEVEL_ENTRY("error", log_error),
    LEVEL_ENTRY("exception", log_exception),
    LEVEL_ENTRY("warn", log_warn),
    LEVEL_ENTRY("warning", log_warn),
    LEVEL_ENTRY("info", log_info),
    LEVEL_ENTRY("debug", log_debug),
    LEVEL_ENTRY("trace", log_trace),
    {"is_enabled", log_is_enabled, METH_O, "(level, /): whether an event of this level would be recorded here"},
    {"_set_limit", log_set_limit, METH_O, "Number of a level that is the last one recorded, whatever the targets' levels."},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef log_getset[] = {
    {"target", log_target, NULL, "The target of all events; None: the name of the calling module.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

PyTypeObject mm_LogType = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "micromegas._core.Log",
    .tp_doc = "Records log events, one method per level.",
    .tp_basicsize = sizeof(mm_log),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .tp_repr = log_repr,
    .tp_methods = log_methods,
    .tp_getset = log_getset,
};

static PyObject *new_logger(PyObject *target, int is_stdlib)
{
    mm_log *log = PyObject_New(mm_log, &mm_LogType);
    if (log) {
        log->limit = MM_TRACE;
        log->salt = logger_count++ << MM_SALT_SHIFT;
        log->target = Py_XNewRef(target);
        log->is_stdlib = is_stdlib;
        log->next = loggers;
        loggers = (mm_log *)Py_NewRef(log);
        set_ceiling(log);
    }
    return (PyObject *)log;
}

/* (target, is_stdlib): None when there are too many */
PyObject *mm_make_logger(PyObject *module, PyObject *args)
{
    (void)module;
    PyObject *target;
    int is_stdlib;
    if (!PyArg_ParseTuple(args, "Sp", &target, &is_stdlib)) {
        return NULL;
    }
    if (logger_count >= MM_MAX_LOGGERS) {
        mm_limit_reached(MM_LOGGERS);
        Py_RETURN_NONE;
    }
    return new_logger(target, is_stdlib);
}

int mm_log_init(PyObject *module)
{
    static PyObject *log;
    if (!log) {
        for (int level = MM_FATAL; level <= MM_TRACE; level++) {
            if (!mm_log_varying(NULL, level, NULL)) {
                PyErr_NoMemory();
                return -1;
            }
        }
        if (mm_log_given_init() < 0) {
            return -1;
        }
        log = new_logger(NULL, 0);
    }
    return log ? PyModule_AddObjectRef(module, "log", log) : -1;
}

/* Log events that happened elsewhere than the call that records them: of stdlib logging, warnings, other interfaces. */
#include "log.h"

/* Bit 63 keeps these keys away from the addresses of calls. Unique for the same two texts; the texts are looked at by the caller. */
static uintptr_t elsewhere_key(const mm_elsewhere *event)
{
    uint64_t texts = ((uint64_t)(uintptr_t)event->target >> 4) * 0x9E3779B97F4A7C15u ^
                     ((uint64_t)(uintptr_t)event->file >> 4) * 0xC2B2AE3D27D4EB4Fu;
    return (uintptr_t)((uint64_t)1 << 63 | (((texts >> 8) + event->line) << 3 & ~((uint64_t)1 << 63)) | (uint64_t)event->level);
}

static mm_site *find_elsewhere(const mm_elsewhere *event, uintptr_t key)
{
    mm_site *site = mm_site_find(key);
    int is_it = site && PyTuple_GET_ITEM(site->code, 0) == event->target && PyTuple_GET_ITEM(site->code, 1) == event->file;
    return is_it ? site : NULL;
}

static __attribute__((noinline, cold)) mm_site *add_elsewhere(mm_elsewhere *event)
{
    /* Equal texts made anew (records that came by a pickle) are one place. */
    PyUnicode_InternInPlace(&event->target);
    PyUnicode_InternInPlace(&event->file);
    uintptr_t key = elsewhere_key(event);
    mm_site *site = find_elsewhere(event, key);
    if (site || mm_site_find(key)) {
        return site;
    }
    mm_text empty = {"", 0};
    PyObject *texts = PyTuple_Pack(2, event->target, event->file);
    PyObject *target = mm_utf8(event->target), *file = mm_utf8(event->file);
    PyObject *template = mm_is_literal(event->message) ? mm_utf8(event->message) : NULL;
    site = texts && target && file ? mm_site_add(key, template ? event->message : NULL, texts) : NULL;
    if (site) {
        char unused[MM_MAX_VALUES];
        int count;
        mm_text target_text = mm_text_of(target), file_text = mm_text_of(file);
        site->varying = mm_describe_log((uint32_t)event->level, event->line, (mm_text){"%s", 2}, target_text, file_text, unused,
                                        &count);
        if (!site->varying) {
            site->varying = mm_describe_log((uint32_t)event->level, 0, (mm_text){"%s", 2}, empty, empty, unused, &count);
        }
        if (template) {
            site->descriptor = mm_describe_log((uint32_t)event->level, event->line, mm_text_of(template), target_text, file_text,
                                               site->conversions, &site->conversion_count);
            if (!site->descriptor) {
                Py_CLEAR(site->text);
            }
        }
        mm_log_site_mute_or_not(site);
    }
    Py_XDECREF(template);
    Py_XDECREF(file);
    Py_XDECREF(target);
    Py_XDECREF(texts);
    PyErr_Clear();
    return site;
}

int mm_log_elsewhere(mm_elsewhere *event)
{
    static mm_log nobody;
    if (mm_recording == MM_OFF || event->level > mm_most_verbose_level()) {
        return 0;
    }
    Py_INCREF(event->target);
    Py_INCREF(event->file);
    mm_site *site = find_elsewhere(event, elsewhere_key(event));
    if (!site) {
        site = add_elsewhere(event);
    }
    int status = 0;
    if (!site || !site->muted) {
        PyObject *few[5] = {event->message};
        PyObject **args = few;
        Py_ssize_t count = 0;
        if (event->values && PyTuple_Check(event->values)) {
            count = PyTuple_GET_SIZE(event->values);
            if (count >= (Py_ssize_t)(sizeof few / sizeof *few) && (args = PyMem_Malloc(((size_t)count + 1) * sizeof *args))) {
                args[0] = event->message;
            }
            for (Py_ssize_t index = 0; args && index < count; index++) {
                args[index + 1] = PyTuple_GET_ITEM(event->values, index);
            }
        }
        else if (event->values && event->values != Py_None) {
            args[++count] = event->values; /* a mapping */
        }
        if (args) {
            mm_log_given given = {.exception = event->exception,
                                  .stack_text = event->stack_text,
                                  .extra = event->properties,
                                  .no_extra = event->no_properties};
            mm_log_take(&given, &nobody, NULL, NULL);
            status = mm_log_record(&nobody, event->level, site, args, count + 1, &given);
            mm_log_forget(&given);
        }
        if (args != few) {
            PyMem_Free(args);
        }
    }
    Py_DECREF(event->file);
    Py_DECREF(event->target);
    return status;
}

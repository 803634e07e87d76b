/* The table of call sites, and what is found out about a site when it is first seen.
 *
 * Sites are never freed (the native thread holds their descriptors), so the table is capped. Must never be read without the GIL.
 */
#include "recorder.h"

#include <stdlib.h>
#include <string.h>

#define MM_MAX_SITES 65536u

typedef struct {
    uintptr_t key;
    mm_site *site;
} slot;

static slot *slots;
static size_t slot_mask;
static int slot_shift;
static size_t site_count;

static inline size_t first_slot(uintptr_t key)
{
    return (size_t)(((uint64_t)key * 0x9E3779B97F4A7C15u) >> slot_shift);
}

mm_site *mm_site_find(uintptr_t key)
{
    if (!slots) {
        return NULL;
    }
    for (size_t index = first_slot(key);; index = (index + 1) & slot_mask) {
        if (slots[index].key == key && slots[index].site) {
            return slots[index].site;
        }
        if (!slots[index].site) {
            return NULL;
        }
    }
}

static void put(slot *into, mm_site *site)
{
    size_t index = first_slot(site->key);
    while (into[index].site) {
        index = (index + 1) & slot_mask;
    }
    into[index] = (slot){site->key, site};
}

static int make_room(void)
{
    if (slots && site_count * 2 <= slot_mask) {
        return 1;
    }
    size_t old_size = slots ? slot_mask + 1 : 0;
    size_t new_size = old_size ? old_size * 2 : 1024;
    slot *wider = calloc(new_size, sizeof *wider);
    if (!wider) {
        return 0;
    }
    slot *old = slots;
    slot_mask = new_size - 1;
    slot_shift = 64 - __builtin_ctzll(new_size);
    for (size_t index = 0; index < old_size; index++) {
        if (old[index].site) {
            put(wider, old[index].site);
        }
    }
    slots = wider;
    free(old);
    return 1;
}

mm_site *mm_site_add(uintptr_t key, PyObject *text, PyObject *code)
{
    if (site_count >= MM_MAX_SITES || !make_room()) {
        return NULL;
    }
    mm_site *site = calloc(1, sizeof *site);
    if (site) {
        site->key = key;
        site->text = Py_XNewRef(text);
        site->code = Py_XNewRef(code);
        put(slots, site);
        site_count++;
    }
    return site;
}

/* ---- places ------------------------------------------------------------------------------------------------------------- */

PyObject *mm_utf8(PyObject *text)
{
    PyObject *bytes = PyUnicode_AsEncodedString(text, "utf-8", "backslashreplace");
    if (!bytes) {
        PyErr_Clear();
    }
    return bytes;
}

mm_text mm_text_of(PyObject *utf8_bytes)
{
    if (!utf8_bytes) {
        return (mm_text){"", 0};
    }
    return (mm_text){PyBytes_AS_STRING(utf8_bytes), (size_t)PyBytes_GET_SIZE(utf8_bytes)};
}

void mm_place_of_caller(mm_place *place)
{
    memset(place, 0, sizeof *place);
    PyFrameObject *frame = PyEval_GetFrame();
    if (!frame) {
        return;
    }
    PyCodeObject *code = PyFrame_GetCode(frame);
    int line = PyFrame_GetLineNumber(frame);
    place->code = (PyObject *)code;
    place->line = line > 0 ? (uint32_t)line : 0;
    place->file = mm_utf8(code->co_filename);
    PyObject *globals = PyEval_GetGlobals();
    PyObject *name = globals ? PyDict_GetItemString(globals, "__name__") : NULL;
    if (name && PyUnicode_Check(name)) {
        place->target = mm_utf8(name);
    }
}

void mm_place_clear(mm_place *place)
{
    Py_CLEAR(place->code);
    Py_CLEAR(place->target);
    Py_CLEAR(place->file);
}

/* The table of call sites, and what is found out about a site when it is first seen.
 *
 * Sites are never freed (the native thread holds their descriptors), so the table is capped. Must never be read without the GIL.
 */
#include "recorder.h"

#include <stdlib.h>
#include <string.h>

#define MM_MAX_SITES 65536u

/* Never without a free slot, so that a search ends. */
static mm_slot first_slots[2];
mm_slot *mm_slots = first_slots;
size_t mm_slot_mask = 1;
int mm_slot_shift = 63;
static size_t site_count;

static void put(mm_slot *into, mm_site *site)
{
    size_t index = mm_first_slot(site->key);
    while (into[index].key) {
        index = (index + 1) & mm_slot_mask;
    }
    into[index] = (mm_slot){site->key, site};
}

static int make_room(void)
{
    if (site_count * 2 < mm_slot_mask) {
        return 1;
    }
    mm_slot *old = mm_slots;
    size_t old_size = mm_slot_mask + 1;
    size_t new_size = old_size < 1024 ? 1024 : old_size * 2;
    mm_slot *wider = calloc(new_size, sizeof *wider);
    if (!wider) {
        return 0;
    }
    mm_slot_mask = new_size - 1;
    mm_slot_shift = 64 - __builtin_ctzll(new_size);
    for (size_t index = 0; index < old_size; index++) {
        if (old[index].key) {
            put(wider, old[index].site);
        }
    }
    mm_slots = wider;
    if (old != first_slots) {
        free(old);
    }
    return 1;
}

mm_site *mm_site_add(uintptr_t key, PyObject *text, PyObject *code)
{
    if (site_count >= MM_MAX_SITES) {
        mm_limit_reached(MM_LOG_SITES);
        return NULL;
    }
    if (key == 0 || !make_room()) {
        return NULL;
    }
    mm_site *site = calloc(1, sizeof *site);
    if (site) {
        site->key = key;
        site->text = Py_XNewRef(text);
        site->code = Py_XNewRef(code);
        put(mm_slots, site);
        site_count++;
    }
    return site;
}

void mm_sites_each(void (*act)(mm_site *))
{
    for (size_t index = 0; index <= mm_slot_mask; index++) {
        if (mm_slots[index].key) {
            act(mm_slots[index].site);
        }
    }
}

size_t mm_site_count(void)
{
    return site_count;
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

/* What is found out about a log call when it is first seen: its descriptors, and whether it is muted. */
#include "log.h"

static void find_place(mm_place *place, const mm_log *self)
{
    mm_place_of_caller(place);
    if (self->target) {
        Py_XSETREF(place->target, Py_NewRef(self->target));
    }
}

const void *mm_log_varying(mm_site *site, int level, const mm_log *self)
{
    static const void *overflow[MM_TRACE + 1];
    const void **place_for = site ? &site->varying : &overflow[level];
    if (!*place_for) {
        mm_place place = {0};
        if (site) {
            find_place(&place, self);
        }
        char unused[MM_MAX_VALUES];
        int count;
        *place_for = mm_describe_log((uint32_t)level, place.line, (mm_text){"%s", 2}, mm_text_of(place.target),
                                     mm_text_of(place.file), unused, &count);
        mm_place_clear(&place);
        if (!*place_for && site) {
            return mm_log_varying(NULL, level, NULL);
        }
    }
    return *place_for;
}

void mm_log_site_mute_or_not(mm_site *site)
{
    int level = (int)(site->key & 7);
    const void *descriptor = site->descriptor ? site->descriptor : site->varying;
    if (level == 0) {
        return; /* a span */
    }
    mm_text target = descriptor ? mm_described_target(descriptor) : (mm_text){"", 0};
    site->muted = level > mm_level_of_target(target);
}

static uint8_t accepted_by(char conversion)
{
    switch (conversion) {
    case 's':
        return MM_ACCEPTS_ALL;
    case 'r':
        return MM_ACCEPTS_FLOAT | MM_ACCEPTS_NONE;
    case 'd':
    case 'x':
        return 0;
    default:
        return MM_ACCEPTS_FLOAT;
    }
}

mm_site *mm_log_site_add(uintptr_t key, int level, PyObject *text, const mm_log *self)
{
    mm_place place;
    find_place(&place, self);
    mm_site *site = mm_site_add(key, mm_is_literal(text) ? text : NULL, place.code);
    if (site && site->text) {
        PyObject *template = mm_utf8(text);
        if (template) {
            site->descriptor =
                mm_describe_log((uint32_t)level, place.line, mm_text_of(template), mm_text_of(place.target),
                                mm_text_of(place.file), site->conversions, &site->conversion_count);
            Py_DECREF(template);
        }
        for (int value = 0; value < site->conversion_count && value < MM_FEW_VALUES; value++) {
            site->accepted[value] = accepted_by(site->conversions[value]);
        }
        if (!site->descriptor) {
            Py_CLEAR(site->text);
        }
    }
    if (site) {
        if (!site->descriptor) {
            mm_log_varying(site, level, self);
        }
        mm_log_site_mute_or_not(site);
    }
    mm_place_clear(&place);
    return site;
}

/* The layout of the records that the calling threads leave for the native thread (mirrored by src/recorder/record.rs).
 *
 * A record begins with two words: the clock ticks, and a descriptor's address whose four low bits hold the kind.
 * Must never hold a Python object: the native thread reads records without the GIL.
 */
#ifndef MM_RECORD_H
#define MM_RECORD_H

#include <stdint.h>

enum mm_kind {
    MM_SPAN_BEGIN = 0,   /* ticks, descriptor */
    MM_SPAN_END = 1,     /* ticks, descriptor */
    MM_METRIC_INT = 2,   /* ticks, descriptor, i64 */
    MM_METRIC_FLOAT = 3, /* ticks, descriptor, f64 */
    MM_LOG_LITERAL = 4,  /* ticks, descriptor: the message is the descriptor's template as it stands */
    MM_LOG_VALUES = 5,   /* ticks, descriptor, log head, values, then properties: name, value, name, value … */
    MM_LOG_TEXT = 6,     /* the same with one value: the message, already formatted */
    MM_ASYNC_BEGIN = 7,  /* ticks, descriptor, span id, parent span id, depth */
    MM_ASYNC_END = 8,
    MM_NAMED_BEGIN = 9,        /* ticks, descriptor of the place, size of the record, the name as a value; ends by MM_SPAN_END */
    MM_ASYNC_NAMED_BEGIN = 10, /* ticks, descriptor of the place, size of the record, span id, parent, depth, name */
    MM_ASYNC_NAMED_END = 11,
    MM_LOG_FEW = 12,           /* ticks, descriptor, head of few, what the values have besides their codes */
    MM_METRIC_WITH = 13,       /* ticks, descriptor, measure head, the number as a value, then properties as those of a log */
    MM_FRAME = 14, /* ticks, descriptor of the measure, budget in ns << 1 | whether the frame ends */
    MM_KINDS = 15,
};
#define MM_KIND_BITS 15u

/* Log head, one word: u32 size of the whole record, u16 values, u16 properties. */

/* Head of few, one word: the codes of the values, a byte each, u8 values, a free byte, u16 size of the whole record. */
#define MM_FEW_VALUES 4

/* Measure head, one word: u32 size of the whole record, u16 properties of the context and the process, u16 properties in all:
 * those come first. */

/* A value is a word, its code in the low byte, and what the code says it has besides, padded to 8 bytes. Few values have their
 * codes in the head, and no words. */
enum mm_code {
    MM_NONE = 0,
    MM_FALSE = 1,
    MM_TRUE = 2,
    MM_INT = 3,    /* i64 */
    MM_FLOAT = 4,  /* f64 */
    /* The count of code units is above the code. */
    MM_TEXT1 = 5,  /* Latin-1 code units */
    MM_TEXT2 = 6,  /* UCS-2 code units */
    MM_TEXT4 = 7,  /* UCS-4 code units */
    MM_CUT = 0x40, /* set on a text that was cut: one more word, the count of code points before the cut, precedes the units */
    MM_SHORT_TEXT = 0x80, /* of ASCII: the count of units is the rest of the code */
};

#define MM_MAX_VALUES 32
#define MM_MAX_TEXT_BYTES (4u << 20)
#define MM_MAX_SHORT_TEXT 63 /* so that no length has the bit MM_CUT */

typedef struct {
    uint64_t ticks;
    uint64_t tagged_descriptor;
} mm_record;

#endif

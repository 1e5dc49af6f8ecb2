/* json_blocks.h: between json.c and json_blocks.c. */
#ifndef EVBUS_EVENT_JSON_BLOCKS_H
#define EVBUS_EVENT_JSON_BLOCKS_H

#include "event/json.h"

/* true: text is one JSON object, and has no line break. false says nothing: ask the scanner. */
bool json_blocks_pass(struct evbus_slice text);

/* The end of an escape, or of all bytes beyond ASCII that stand here together. NULL: they are not valid, or neither. */
const uint8_t *json_special_end(const uint8_t *p, const uint8_t *end);

/* Whether a number, true, false or null begins here, and a blank, a comma or a closing bracket comes next. */
bool json_scalar_is_whole(const uint8_t *p, const uint8_t *end);

#endif

/* decimal.h: decimal digits, as offsets are written. */
#ifndef EVBUS_BASE_DECIMAL_H
#define EVBUS_BASE_DECIMAL_H

#include "base/err.h"

/* Decimal digits; returns how many. text has room for 20. */
size_t decimal_format(uint64_t value, char *text);
/* All of text, no sign, no leading zero except "0" itself, at most UINT64_MAX - 1. */
bool decimal_parse(struct evbus_slice text, uint64_t *value);

#endif

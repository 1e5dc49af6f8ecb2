/* decimal.h: decimal digits, as offsets are written. */
#ifndef EVBUS_BASE_DECIMAL_H
#define EVBUS_BASE_DECIMAL_H

#include "base/err.h"

/* The eight digits of a number below 10^8, zeros in front, all at once; the first one is the lowest byte. Pairs of digits
 * are divided in lanes of one word, by multiplications that are exact for them. */
static inline uint64_t decimal_eight(uint32_t value)
{
	uint64_t fours = value / 10000 | (uint64_t)(value % 10000) << 32;
	uint64_t hundreds = fours * 5243 >> 19 & 0x0000007f0000007f;
	uint64_t twos = hundreds | (fours - hundreds * 100) << 16;
	uint64_t tens = twos * 103 >> 10 & 0x000f000f000f000f;

	return (tens | (twos - tens * 10) << 8) + 0x3030303030303030;
}

/* Decimal digits; returns how many. text has room for 20, of which those behind may be written too. */
size_t decimal_format(uint64_t value, char *text);
/* All of text, no sign, no leading zero except "0" itself, at most UINT64_MAX - 1. */
bool decimal_parse(struct evbus_slice text, uint64_t *value);

#endif

/* decimal.c: numbers as texts, and texts as numbers. */
#include "base/decimal.h"

size_t decimal_format(uint64_t value, char *text)
{
	char digits[20];
	size_t n = 0;

	do {
		digits[n++] = (char)('0' + value % 10);
		value /= 10;
	} while (value);
	for (size_t i = 0; i < n; i++)
		text[i] = digits[n - 1 - i];
	return n;
}

bool decimal_parse(struct evbus_slice text, uint64_t *value)
{
	uint64_t v = 0;

	if (text.len == 0 || text.len > 20 || (text.len > 1 && text.data[0] == '0'))
		return false;
	for (size_t i = 0; i < text.len; i++) {
		uint64_t digit = (uint64_t)(unsigned char)text.data[i] - '0';
		/* Only the twentieth digit can be too much. */
		if (digit > 9 || (i == 19 && v > (UINT64_MAX - 1 - digit) / 10))
			return false;
		v = v * 10 + digit;
	}
	*value = v;
	return true;
}

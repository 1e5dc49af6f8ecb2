/* hex.h: hexadecimal digits. */
#ifndef EVBUS_BASE_HEX_H
#define EVBUS_BASE_HEX_H

/* Of either case; -1: it is none. */
static inline int hex_value(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c = (char)(c | 32);
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

#endif

/* percent.c: see percent.h. */
#include "base/percent.h"

#include "base/hex.h"

bool percent_decode(char *text)
{
	char *to = text;

	for (const char *from = text; *from; from++) {
		char c = *from;
		if (c == '%') {
			int high = hex_value(from[1]), low = high < 0 ? -1 : hex_value(from[2]);
			c = low < 0 ? '\0' : (char)(high << 4 | low);
			if (!c)
				return false;
			from += 2;
		}
		*to++ = c;
	}
	*to = '\0';
	return true;
}

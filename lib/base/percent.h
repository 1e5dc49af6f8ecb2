/* percent.h: what is written with % and two hexadecimal digits in a URL (RFC 3986, 2.1). */
#ifndef EVBUS_BASE_PERCENT_H
#define EVBUS_BASE_PERCENT_H

#include <stdbool.h>

/* In place. false: an escape is broken, or it is that of a NUL. */
bool percent_decode(char *text);

#endif

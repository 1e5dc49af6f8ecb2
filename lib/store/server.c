/* server.c: the URL of a store that is on a server. */
#include "store/server.h"

#include <string.h>

/* A password may have any character, also "?", "/" and "@", and an option may have an "@": where it cannot be told which
 * it is, nothing behind the scheme is shown. */
void server_show(const char *url, char *text)
{
	const char *slashes = strstr(url, "://"), *from = slashes ? slashes + 3 : url;
	size_t scheme = (size_t)(from - url), len = strcspn(url, "?");

	for (size_t i = scheme; i < len; i++)
		if (url[i] == '@')
			from = url + i + 1;
	if (from == url + scheme && strchr(url + len, '@'))
		len = scheme;
	size_t rest = len > scheme ? (size_t)(url + len - from) : 0;
	memcpy(text, url, scheme);
	memcpy(text + scheme, from, rest);
	text[scheme + rest] = '\0';
}

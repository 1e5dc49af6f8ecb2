/* url.h: the URL of a bus that lives on servers: SCHEME://USER:PASSWORD@HOST:PORT,HOST:PORT?NAME=VALUE&...
 *
 * Percent escapes (RFC 3986, section 2.1) are decoded in the user, the password, the path, names and values. What goes into
 * messages is `shown`, which has neither user nor options: either may be a secret. */
#ifndef EVBUS_BACKEND_URL_H
#define EVBUS_BACKEND_URL_H

#include "base/err.h"

#define URL_OPTIONS_MAX 64u

struct url_option {
	const char *name, *value;
	bool taken;
};

struct url {
	char *text;                      /* what the others point into */
	const char *shown;               /* "nats://HOST:PORT,HOST:PORT" */
	const char *user, *password;     /* NULL: none */
	const char *servers;             /* "HOST:PORT,HOST:PORT", as it was written; "" where there are none */
	const char *path;                /* what stands behind them and a '/', decoded; NULL: nothing */
	struct url_option options[URL_OPTIONS_MAX];
	size_t option_count;
	bool hides;                      /* among them may stand the end of a password, so none is named */
};

/* url as evbus_open() got it. EVBUS_CONFIG: it has another shape, a broken escape, an option twice, or too many. */
CHECKED enum evbus_code url_parse(const char *url, struct url *parsed, struct evbus_err *err);
/* The same of a scheme that has paths. */
CHECKED enum evbus_code url_parse_path(const char *url, struct url *parsed, struct evbus_err *err);
void url_release(struct url *url);

/* The value of an option, and the option counts as known; NULL: it was not given. */
const char *url_option(struct url *url, const char *name);

/* Of an option that was given; else *value stays. EVBUS_CONFIG: it is not of that kind, or not within these limits. */
CHECKED enum evbus_code url_number(struct url *url, const char *name, uint64_t min, uint64_t max, uint64_t *value,
				   struct evbus_err *err);
CHECKED enum evbus_code url_flag(struct url *url, const char *name, bool *value, struct evbus_err *err);
/* "timeout": 10, 10s or 500ms; from 1 ms to an hour. */
CHECKED enum evbus_code url_timeout(struct url *url, int *timeout_ms, struct evbus_err *err);

/* EVBUS_CONFIG: an option was given that nobody asked for. known: those that there are, for the message. */
CHECKED enum evbus_code url_done(const struct url *url, const char *known, struct evbus_err *err);

#endif

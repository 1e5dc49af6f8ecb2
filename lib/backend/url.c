/* url.c: the URL of a bus that lives on servers. */
#include "backend/url.h"

#include "base/os.h"
#include "base/percent.h"
#include "log/line.h"

#include <errno.h>
#include <string.h>

#define TIMEOUT_MAX_MS 3600000u

/* ---- parsing --------------------------------------------------------------------------------------------------- */

static enum evbus_code refuse(const struct url *url, const char *why, struct evbus_err *err)
{
	return err_set(err, EVBUS_CONFIG, 0, "the bus '%s' cannot be read: %s", url->shown, why);
}

static enum evbus_code add_option(struct url *url, char *text, struct evbus_err *err)
{
	char *equals = strchr(text, '=');

	if (!equals || equals == text)
		return refuse(url, "behind '?' stand options, NAME=VALUE with '&' between them", err);
	*equals = '\0';
	if (!percent_decode(text) || !percent_decode(equals + 1))
		return refuse(url, "an option has a '%' that two hex digits do not follow", err);
	for (size_t i = 0; i < url->option_count; i++)
		if (!strcmp(url->options[i].name, text))
			return err_set(err, EVBUS_CONFIG, 0, "the bus '%s' has the option '%s' twice", url->shown,
				       url->hides ? "***" : text);
	if (url->option_count == URL_OPTIONS_MAX)
		return refuse(url, "it has too many options", err);
	url->options[url->option_count++] = (struct url_option){ text, equals + 1, false };
	return EVBUS_OK;
}

/* Ends the text at the first of these, and returns what stands behind; NULL: there is none. */
static char *cut(char *text, char at)
{
	char *found = strchr(text, at);

	if (found)
		*found++ = '\0';
	return found;
}

static enum evbus_code set_user(struct url *url, char *user, struct evbus_err *err)
{
	char *password = cut(user, ':');

	if (!percent_decode(user) || (password && !percent_decode(password)))
		return refuse(url, "the user or the password has a '%' that two hex digits do not follow: write %25",
			      err);
	url->user = user;
	url->password = password;
	return EVBUS_OK;
}

static enum evbus_code set_path(struct url *url, char *servers, bool paths, struct evbus_err *err)
{
	char *path = cut(servers, '/');

	if (path && !paths)
		return refuse(url, "nothing stands behind the servers but '?' and options", err);
	if (path && !percent_decode(path))
		return refuse(url, "behind the server stands a '%' that two hex digits do not follow", err);
	url->path = path && *path ? path : NULL;
	return EVBUS_OK;
}

/* text is ours to cut up. */
static enum evbus_code parse(struct url *url, char *text, char *shown, bool paths, struct evbus_err *err)
{
	char *options = cut(text, '?'), *rest = strchr(text, ':') + 1, *servers = rest;

	url->shown = memcpy(shown, text, (size_t)(rest - text));
	shown += rest - text;
	*shown = '\0';
	if (*rest && strncmp(rest, "//", 2) != 0)
		return refuse(url, "write SCHEME://HOST:PORT", err);
	servers += *rest ? 2 : 0;
	/* A password may have any character, as long as it is escaped or no '?'. */
	char *at = strrchr(servers, '@');
	char *behind = at ? at + 1 : servers;
	/* Of one that has a '?' the end stands among the options, and what looks like servers is a part of it. */
	url->hides = options && strchr(options, '@');
	url->servers = behind;
	if (*behind)
		snprintf(shown, strlen(behind) + 6, "//%s", url->hides ? "***" : behind);
	if (at)
		*at = '\0';
	TRY(set_path(url, behind, paths, err));
	if (at)
		TRY(set_user(url, servers, err));
	for (char *option = options; option && *option; option = options) {
		options = cut(option, '&');
		TRY(add_option(url, option, err));
	}
	return EVBUS_OK;
}

static enum evbus_code parse_copy(const char *url, struct url *parsed, bool paths, struct evbus_err *err)
{
	size_t size = strlen(url) + 1;
	char *text = os.realloc(NULL, 2 * size + 2);

	if (!text)
		return err_set(err, EVBUS_IO, ENOMEM, "cannot open a bus");
	*parsed = (struct url){ .text = text };
	enum evbus_code code = parse(parsed, memcpy(text, url, size), text + size, paths, err);
	if (code != EVBUS_OK)
		url_release(parsed);
	return code;
}

enum evbus_code url_parse(const char *url, struct url *parsed, struct evbus_err *err)
{
	return parse_copy(url, parsed, false, err);
}

enum evbus_code url_parse_path(const char *url, struct url *parsed, struct evbus_err *err)
{
	return parse_copy(url, parsed, true, err);
}

/* There may be a password in it. */
void url_release(struct url *url)
{
	if (url->text)
		explicit_bzero(url->text, strlen(url->text));
	free(url->text);
	*url = (struct url){ 0 };
}

/* ---- options --------------------------------------------------------------------------------------------------- */

const char *url_option(struct url *url, const char *name)
{
	for (size_t i = 0; i < url->option_count; i++)
		if (!strcmp(url->options[i].name, name)) {
			url->options[i].taken = true;
			return url->options[i].value;
		}
	return NULL;
}

enum evbus_code url_number(struct url *url, const char *name, uint64_t min, uint64_t max, uint64_t *value,
			   struct evbus_err *err)
{
	const char *text = url_option(url, name);
	uint64_t number = 0;

	if (!text)
		return EVBUS_OK;
	if (!decimal_parse((struct evbus_slice){ text, strlen(text) }, &number) || number < min || number > max)
		return err_set(err, EVBUS_CONFIG, 0, "the bus '%s': %s='%s' is not a number from %llu to %llu",
			       url->shown, name, text, (unsigned long long)min, (unsigned long long)max);
	*value = number;
	return EVBUS_OK;
}

enum evbus_code url_flag(struct url *url, const char *name, bool *value, struct evbus_err *err)
{
	const char *text = url_option(url, name);

	if (!text)
		return EVBUS_OK;
	*value = !strcmp(text, "1") || !strcmp(text, "true") || !strcmp(text, "yes");
	if (*value || !strcmp(text, "0") || !strcmp(text, "false") || !strcmp(text, "no"))
		return EVBUS_OK;
	return err_set(err, EVBUS_CONFIG, 0, "the bus '%s': %s='%s' is neither true nor false", url->shown, name, text);
}

enum evbus_code url_timeout(struct url *url, int *timeout_ms, struct evbus_err *err)
{
	const char *text = url_option(url, "timeout");
	uint64_t number = 0;

	if (!text)
		return EVBUS_OK;
	size_t digits = strspn(text, "0123456789");
	bool ms = !strcmp(text + digits, "ms");
	bool known = ms || !strcmp(text + digits, "s") || !text[digits];
	if (!known || !decimal_parse((struct evbus_slice){ text, digits }, &number) || !number ||
	    number > TIMEOUT_MAX_MS / (ms ? 1 : 1000))
		return err_set(err, EVBUS_CONFIG, 0,
			       "the bus '%s': timeout='%s' is not a time from 1ms to 3600s, such as 10s or 500ms",
			       url->shown, text);
	*timeout_ms = (int)number * (ms ? 1 : 1000);
	return EVBUS_OK;
}

enum evbus_code url_done(const struct url *url, const char *known, struct evbus_err *err)
{
	for (size_t i = 0; i < url->option_count; i++) {
		if (url->options[i].taken)
			continue;
		if (url->hides)
			return err_set(err, EVBUS_CONFIG, 0,
				       "the bus '%s' cannot be read: there is no such option; there are %s; a '?' in a "
				       "password is written %%3F, and an '@' in an option %%40",
				       url->shown, known);
		return err_set(err, EVBUS_CONFIG, 0, "the bus '%s' has no option '%s'; there are %s", url->shown,
			       url->options[i].name, known);
	}
	return EVBUS_OK;
}

/* subject.c: topic names, and patterns over the tokens of a name. */
#include "event/subject.h"

#include <string.h>

#define SHOWN_MAX_BYTES 32 /* of a name that is too long */

static bool is_alnum(char c)
{
	return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
}

static bool is_wildcard(const char *token, size_t len)
{
	return len == 1 && (*token == '*' || *token == '>');
}

/* What is wrong with a token, NULL if nothing is. */
static const char *token_fault(const char *token, size_t len, bool pattern)
{
	if (len == 0)
		return "has an empty token between its dots";
	if (is_wildcard(token, len)) {
		if (!pattern)
			return "is a pattern, and one name is needed here";
		return *token == '>' && token[1] ? "has > before its end" : NULL;
	}
	for (size_t i = 0; i < len; i++) {
		if (token[i] == '*' || token[i] == '>')
			return "has a wildcard within a token: * and > stand for whole tokens";
		if (!is_alnum(token[i]) && token[i] != '_' && token[i] != '-')
			return "has a character other than A-Z a-z 0-9 _ - and the dot";
	}
	return NULL;
}

static const char *name_fault(const char *name, bool pattern)
{
	if (!*name)
		return "is empty";
	for (const char *token = name;; token++) {
		size_t len = strcspn(token, ".");
		const char *fault = token_fault(token, len, pattern);
		if (token == name && !is_alnum(*token) && !is_wildcard(token, len))
			return "does not begin with a letter or digit";
		if (fault)
			return fault;
		token += len;
		if (!*token)
			return NULL;
	}
}

static enum evbus_code check(const char *what, const char *name, bool pattern, struct evbus_err *err)
{
	size_t len = strlen(name);
	const char *fault = name_fault(name, pattern);

	if (len > EVBUS_TOPIC_MAX_BYTES)
		return err_set(err, EVBUS_USAGE, 0, "%s '%.*s...' is longer than %d bytes", what, SHOWN_MAX_BYTES, name,
			       EVBUS_TOPIC_MAX_BYTES);
	if (!fault)
		return EVBUS_OK;
	/* What is left of crm.> when the shell took the > for a redirection. */
	if (len > 1 && name[len - 1] == '.' && name[len - 2] != '.')
		return err_set(err, EVBUS_USAGE, 0, "%s '%s' ends with a dot; a pattern needs quotes: '%s>'", what,
			       name, name);
	return err_set(err, EVBUS_USAGE, 0, "%s '%s' %s", what, name, fault);
}

enum evbus_code subject_check_name(const char *what, const char *name, struct evbus_err *err)
{
	return check(what, name, false, err);
}

enum evbus_code subject_check_pattern(const char *what, const char *pattern, struct evbus_err *err)
{
	return check(what, pattern, true, err);
}

enum evbus_code evbus_topic_check(const char *name, bool pattern, struct evbus_err *err)
{
	return check("topic", name, pattern, err);
}

bool subject_is_pattern(const char *name)
{
	return strpbrk(name, "*>") != NULL;
}

static size_t token_len(const char *token, const char *end)
{
	const char *dot = memchr(token, '.', (size_t)(end - token));

	return (size_t)((dot ? dot : end) - token);
}

bool subject_matches(const char *pattern, struct evbus_slice subject)
{
	const char *token = subject.data ? subject.data : "";
	const char *end = token + (subject.data ? subject.len : 0);

	for (;; pattern++, token++) {
		size_t wanted = strcspn(pattern, ".");
		if (pattern[0] == '>' && !pattern[1])
			return true;
		size_t len = token_len(token, end);
		bool any = wanted == 1 && *pattern == '*';
		if (!any && (len != wanted || memcmp(token, pattern, len) != 0))
			return false;
		pattern += wanted;
		token += len;
		if (!*pattern || token == end)
			return !*pattern && token == end;
	}
}

bool evbus_topic_matches(const char *pattern, const char *topic)
{
	return subject_matches(pattern, (struct evbus_slice){ topic, strlen(topic) });
}

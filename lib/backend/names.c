/* names.c: lists of topic names. */
#include "backend/names.h"

#include "base/os.h"
#include "event/subject.h"

#include <errno.h>
#include <string.h>

enum evbus_code names_add(struct buf *names, const char *pattern, struct evbus_slice name, struct evbus_err *err)
{
	if (pattern && !subject_matches(pattern, name))
		return EVBUS_OK;
	TRY(buf_reserve(names, name.len + 1, err));
	TRY(buf_add(names, name.data, name.len, err));
	return buf_add(names, "", 1, err);
}

static int by_name(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

enum evbus_code names_give(const struct buf *names, char ***list, struct evbus_err *err)
{
	size_t count = 0;

	for (size_t at = 0; at < names->len; at += strlen(names->data + at) + 1)
		count++;
	char **given = os.realloc(NULL, (count + 1) * sizeof *given + names->len);
	if (!given)
		return err_set(err, EVBUS_IO, ENOMEM, "cannot list the topics");
	char *text = (char *)(given + count + 1);
	if (names->len)
		memcpy(text, names->data, names->len);
	for (size_t i = 0; i < count; i++, text += strlen(text) + 1)
		given[i] = text;
	given[count] = NULL;
	qsort(given, count, sizeof *given, by_name);
	*list = given;
	return EVBUS_OK;
}

/* letter_counts.c: how many dead letters there are of each kind. */
#include "letter_counts.h"
#include "out.h"

#include <search.h>
#include <stdlib.h>
#include <string.h>

#define KINDS_MAX 100000u

struct count {
	int64_t times;
	bool known;                  /* else it stands for all that have none */
	size_t len;
	char value[];
};

static int by_value(const void *a, const void *b)
{
	const struct count *x = a, *y = b;
	size_t shorter = x->len < y->len ? x->len : y->len;
	int order = memcmp(x->value, y->value, shorter);

	if (x->known != y->known)
		return x->known - y->known;
	return order ? order : (x->len > y->len) - (x->len < y->len);
}

static int by_times(const void *a, const void *b)
{
	const struct count *x = *(struct count *const *)a, *y = *(struct count *const *)b;

	return x->times != y->times ? (x->times < y->times) - (x->times > y->times) : by_value(x, y);
}

static struct evbus_slice kind_of(const char *by, const struct evbus_letter *letter)
{
	static const struct {
		const char *name;
		size_t at;
	} kinds[] = { { "type", offsetof(struct evbus_letter, event_type) },
		      { "topic", offsetof(struct evbus_letter, topic) },
		      { "group", offsetof(struct evbus_letter, group) },
		      { "tenant", offsetof(struct evbus_letter, tenant_id) } };
	const char *reason = evbus_reason_name(letter->reason);

	for (size_t i = 0; i < COUNT(kinds); i++)
		if (!strcmp(by, kinds[i].name))
			return *(const struct evbus_slice *)(const void *)((const char *)letter + kinds[i].at);
	return (struct evbus_slice){ reason, strlen(reason) };
}

static enum evbus_code no_memory(struct counts *counts)
{
	return fail(counts->call, EVBUS_IO, "cannot count letters by %s: out of memory", counts->by);
}

static enum evbus_code reserve(struct counts *counts)
{
	if (counts->count == KINDS_MAX)
		return fail(counts->call, EVBUS_USAGE,
			    "there are more than %u different ones to be counted: choose fewer letters by a filter",
			    KINDS_MAX);
	if (counts->count < counts->room)
		return EVBUS_OK;
	size_t room = 2 * counts->room + 64;
	struct count **larger = realloc(counts->all, room * sizeof *larger);
	if (!larger)
		return no_memory(counts);
	counts->all = larger;
	counts->room = room;
	return EVBUS_OK;
}

enum evbus_code counts_add(struct counts *counts, const struct evbus_letter *letter)
{
	struct evbus_slice kind = kind_of(counts->by, letter);
	struct count *count = malloc(sizeof *count + kind.len);
	struct count *const *found;

	if (!count)
		return no_memory(counts);
	*count = (struct count){ .known = kind.data != NULL, .len = kind.len };
	memcpy(count->value, kind.data ? kind.data : "", kind.len);
	found = tfind(count, &counts->tree, by_value);
	if (found) {
		free(count);
		count = *found;
	} else {
		enum evbus_code code = reserve(counts);

		if (!code && !tsearch(count, &counts->tree, by_value))
			code = no_memory(counts);
		if (code) {
			free(count);
			return code;
		}
		counts->all[counts->count++] = count;
	}
	count->times++;
	counts->total++;
	return EVBUS_OK;
}

enum evbus_code counts_print(struct counts *counts, const char *format)
{
	const struct column columns[] = { { counts->by, TEXT }, { "count", NUMBER } };
	CLEANUP(table_cleanup) struct table table = { .count = 0 };

	if (counts->count)
		qsort(counts->all, counts->count, sizeof(*counts->all), by_times);
	table_start(&table, columns, COUNT(columns), format);
	for (size_t i = 0; i < counts->count; i++) {
		const struct count *count = counts->all[i];

		table_slice(&table, (struct evbus_slice){ count->known ? count->value : NULL, count->len });
		table_number(&table, count->times);
	}
	if (table.format == TABLE_ALIGNED) {
		table_text(&table, "total");
		table_number(&table, counts->total);
	}
	return table_end(&table, counts->call);
}

void counts_release(struct counts *counts)
{
	tdestroy(counts->tree, free);
	free(counts->all);
}

/* make_letters BUS <LINES: puts dead letters into the store of a bus, in one transaction; for tests of the dlq commands.
 *
 * EVBUS_STORE is where they go if it is set. A line is a JSON object with what matters; the rest has defaults. The payload is text, so it may be anything:
 *
 *	{"group":"billing","topic":"orders","offset":"42","payload":"{\"id\":\"1\"}","age":"3600","returns":"2"}
 */
#include "event/history.h"
#include "store/letters.h"
#include "store/table.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>

#define TIME_BYTES 28

static struct evbus_err err;

static void check(enum evbus_code code)
{
	if (!code)
		return;
	fprintf(stderr, "make_letters: %s\n", err.text);
	exit(1);
}

/* The texts of a line, until it was put. */
static char *texts[32];
static size_t text_count;

/* The text of a member; data NULL where it is null, the default where it is absent. */
static struct evbus_slice member(struct evbus_slice line, const char *pointer, const char *otherwise)
{
	struct evbus_slice value = evbus_json_find(line, pointer, NULL);

	if (!value.data)
		return (struct evbus_slice){ otherwise, otherwise ? strlen(otherwise) : 0 };
	if (value.data[0] == 'n')
		return (struct evbus_slice){ NULL, 0 };
	size_t len = evbus_json_text(value, NULL, 0);
	char *text = malloc(len + 1);
	if (!text || text_count == sizeof texts / sizeof *texts)
		exit(1);
	texts[text_count++] = text;
	evbus_json_text(value, text, len);
	text[len] = '\0';
	return (struct evbus_slice){ text, len };
}

static int64_t number(struct evbus_slice line, const char *pointer, const char *otherwise)
{
	const char *text = member(line, pointer, otherwise).data;

	return text ? strtoll(text, NULL, 10) : 0;
}

static void put(struct store *store, struct evbus_slice line, int count)
{
	CLEANUP(buf_release) struct buf made = { 0 };
	char offset[24], at[TIME_BYTES];
	int64_t id, at_us = evbus_time_now() - number(line, "/age", "0") * 1000000;
	struct letter_row row = { .group = member(line, "/group", "g"),
				  .tenant_id = member(line, "/tenant_id", NULL),
				  .topic = member(line, "/topic", "orders"),
				  .partition_id = (int32_t)number(line, "/partition_id", "0"),
				  .offset_kind = member(line, "/offset_kind", "file_line"),
				  .log_id = member(line, "/log_id", "0123456789abcdef0123456789abcdef"),
				  .partition_key = member(line, "/partition_key", NULL),
				  .event_id = member(line, "/event_id", NULL),
				  .event_type = member(line, "/event_type", NULL),
				  .correlation_id = member(line, "/correlation_id", NULL),
				  .payload = member(line, "/payload", "{}"),
				  .reason = member(line, "/reason", "retries"),
				  .error = member(line, "/error", "no"),
				  .attempts = number(line, "/attempts", "1"),
				  .returns = number(line, "/returns", "0") };
	enum evbus_reason reason;

	snprintf(offset, sizeof offset, "%d", count);
	row.offset = member(line, "/offset", offset);
	evbus_time_format(at_us, at);
	row.published_at = row.updated_at = (struct evbus_slice){ at, TIME_BYTES - 1 };
	if (!reason_parse(row.reason, &reason))
		exit(1);
	check(history_add(&made, (struct evbus_slice){ "[]", 2 }, row.attempts, at_us, reason, row.error, &err));
	row.history = member(line, "/history", NULL);
	if (!row.history.data)
		row.history = (struct evbus_slice){ made.data, made.len };
	check(letters_put(store, &row, &id, &err));
	while (text_count)
		free(texts[--text_count]);
}

int main(int argc, char **argv)
{
	char url[4096], modules[4096], *line = NULL;
	const struct store_options options = { .module_dir = modules };
	const char *elsewhere = getenv("EVBUS_STORE");
	struct store *store;
	size_t size = 0;
	ssize_t len;
	int count = 0;

	if (argc != 2 || !getenv("EVBUS_TEST_BUILD"))
		return 64;
	snprintf(url, sizeof url, "sqlite:%s/.evbus/state.db", argv[1]);
	snprintf(modules, sizeof modules, "%s/lib", getenv("EVBUS_TEST_BUILD"));
	check(store_open(AT_FDCWD, elsewhere ? elsewhere : url, &options, &store, &err));
	check(table_begin(store, &err));
	while ((len = getline(&line, &size, stdin)) > 0)
		put(store, (struct evbus_slice){ line, (size_t)len - 1 }, count++);
	check(table_commit(store, &err));
	store_close(store);
	free(line);
	return 0;
}

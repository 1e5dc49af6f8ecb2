/* What the tests of dead letters have in common: a bus with a store, letters in it, and lists of them. */
#ifndef EVBUS_TESTS_LETTERS_HELPERS_H
#define EVBUS_TESTS_LETTERS_HELPERS_H

#include "store_helpers.h"

#include "base/clock.h"
#include "letters.h"

#include <sys/stat.h>

#define LOG "0123456789abcdef0123456789abcdef"
#define PUBLISHED "2026-01-01T12:00:00.000000Z"
#define ATTEMPT(number, at) "{\"attempt\":" number ",\"at\":\"" at "\",\"reason\":\"timeout\",\"error\":\"slow\"}"

static struct evbus *bus;
static struct evbus_outbox *const *given; /* to what lists and changes */
static size_t given_count;

static inline struct evbus_slice slice_of(const char *text)
{
	return (struct evbus_slice){ text, text ? strlen(text) : 0 };
}

static inline void open_bus(void)
{
	const struct evbus_options options = { .store = stored_on_server() ? stored_url("state.db") : NULL };

	setup();
	cr_assert(!mkdir("bus", 0700));
	cr_assert_eq(evbus_open("file:bus", &options, &bus, &err), EVBUS_OK, "%s", err.text);
	bus->store = open_store("sqlite:state.db");
}

static inline void close_bus(void)
{
	evbus_close(bus);
	teardown();
}

/* A letter that died at a time; offset and whatever else matters is for the test to set. */
static inline struct letter_row letter_at(const char *offset, const char *died_at)
{
	return (struct letter_row){ .group = SLICE("g"),
				    .topic = SLICE("orders"),
				    .offset = slice_of(offset),
				    .offset_kind = SLICE("file_line"),
				    .log_id = SLICE(LOG),
				    .published_at = SLICE(PUBLISHED),
				    .event_type = SLICE("order.made"),
				    .payload = SLICE("{}"),
				    .reason = SLICE("retries"),
				    .error = SLICE("no"),
				    .attempts = 1,
				    .history = SLICE("[" ATTEMPT("1", PUBLISHED) "]"),
				    .updated_at = slice_of(died_at) };
}

/* Within a transaction, as consumers do. */
static inline void put_all(const struct letter_row *rows, int count, int64_t *id)
{
	cr_assert_eq(table_begin(bus->store, &err), EVBUS_OK, "%s", err.text);
	for (int i = 0; i < count; i++)
		cr_assert_eq(letters_put(bus->store, &rows[i], id, &err), EVBUS_OK, "%s", err.text);
	cr_assert_eq(table_commit(bus->store, &err), EVBUS_OK, "%s", err.text);
}

static inline int64_t put_row(const struct letter_row *row)
{
	int64_t id = 0;

	put_all(row, 1, &id);
	return id;
}

/* `count` letters at offsets 0, 1, … */
static inline void put_letters(int count)
{
	struct letter_row rows[600];
	char offsets[600][8];
	int64_t id;

	cr_assert(count <= 600);
	for (int i = 0; i < count; i++) {
		snprintf(offsets[i], sizeof offsets[i], "%d", i);
		rows[i] = letter_at(offsets[i], "2026-01-02T00:00:00.000000Z");
	}
	put_all(rows, count, &id);
}

__attribute__((unused)) static const struct evbus_letter_filter any = { .reason = -1, .state = -1 };

/* The ids that a list gives out: "1 2 3 ". */
static char listed[4096];

static inline enum evbus_code take_id(void *context, const struct evbus_letter *letter, struct evbus_err *e)
{
	(void)context;
	(void)e;
	size_t len = strlen(listed);
	snprintf(listed + len, sizeof listed - len, "%s ", letter->id);
	return EVBUS_OK;
}

static inline enum evbus_code list_code(const struct evbus_letter_filter *filter)
{
	listed[0] = '\0';
	return evbus_letter_list(bus, given, given_count, filter, take_id, NULL, &err);
}

static inline const char *list(const struct evbus_letter_filter *filter)
{
	cr_assert_eq(list_code(filter), EVBUS_OK, "%s", err.text);
	return listed;
}

static inline enum evbus_code stop(void *context, const struct evbus_letter *l, struct evbus_err *e)
{
	(void)l;
	return err_set(e, *(enum evbus_code *)context, 0, "enough");
}

/* ---- one letter of the store, copied ---------------------------------------------------------------------------------- */

struct kept {
	int count;
	struct evbus_letter letter; /* its slices point into text */
	char text[20000];
};

static inline enum evbus_code keep(void *context, const struct evbus_letter *letter, struct evbus_err *e)
{
	struct kept *kept = context;
	struct evbus_letter *to = &kept->letter;
	struct evbus_slice *slices[] = { &to->source,      &to->group,       &to->tenant_id,        &to->topic,
					 &to->event_id,    &to->event_type,  &to->correlation_id,   &to->partition_key,
					 &to->offset,      &to->offset_kind, &to->published_at_utc, &to->payload,
					 &to->error,       &to->history,     &to->created_at,       &to->updated_at,
					 &to->resolved_by, &to->result };
	char *at = kept->text;

	(void)e;
	kept->count++;
	*to = *letter;
	for (size_t i = 0; i < sizeof slices / sizeof *slices; i++) {
		if (!slices[i]->data)
			continue;
		cr_assert(at + slices[i]->len < kept->text + sizeof kept->text);
		memcpy(at, slices[i]->data, slices[i]->len);
		slices[i]->data = at;
		at[slices[i]->len] = '\0';
		at += slices[i]->len + 1;
	}
	return EVBUS_OK;
}

static struct kept kept;

static inline const struct evbus_letter *letter(const char *id)
{
	struct evbus_letter_filter filter = any;

	filter.ids = &id;
	filter.id_count = 1;
	kept.count = 0;
	cr_assert_eq(evbus_letter_list(bus, given, given_count, &filter, keep, &kept, &err), EVBUS_OK, "%s", err.text);
	cr_assert_eq(kept.count, 1);
	return &kept.letter;
}

#define IS(slice, text) cr_assert((slice).data && !strcmp((slice).data, text), "%s", (slice).data)

/* ---- changes -------------------------------------------------------------------------------------------------------- */

static inline enum evbus_code change(const char *id, enum evbus_letter_change what)
{
	return evbus_letter_change(bus, given, given_count, id, what, EVBUS_REASON_SIGNAL, SLICE("said so"), "me@here",
				   &err);
}

static inline void set(const char *what, int64_t id)
{
	char text[500];

	snprintf(text, sizeof text, "UPDATE dlq SET %s WHERE id = %d", what, (int)id);
	sql("state.db", text);
}

#endif

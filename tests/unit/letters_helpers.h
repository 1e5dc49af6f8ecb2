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

static inline struct evbus_slice slice_of(const char *text)
{
	return (struct evbus_slice){ text, text ? strlen(text) : 0 };
}

static inline void open_bus(void)
{
	setup();
	cr_assert(!mkdir("bus", 0700));
	cr_assert_eq(evbus_open("file:bus", NULL, &bus, &err), EVBUS_OK, "%s", err.text);
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

static inline int64_t put_row(const struct letter_row *row)
{
	int64_t id = 0;

	cr_assert_eq(table_begin(bus->store, &err), EVBUS_OK, "%s", err.text);
	cr_assert_eq(letters_put(bus->store, row, &id, &err), EVBUS_OK, "%s", err.text);
	cr_assert_eq(table_commit(bus->store, &err), EVBUS_OK, "%s", err.text);
	return id;
}

/* `count` letters at offsets 0, 1, … */
static inline void put_letters(int count)
{
	char offset[24];

	for (int i = 0; i < count; i++) {
		snprintf(offset, sizeof offset, "%d", i);
		struct letter_row row = letter_at(offset, "2026-01-02T00:00:00.000000Z");
		put_row(&row);
	}
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

#endif

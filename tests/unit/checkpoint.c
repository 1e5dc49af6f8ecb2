/* checkpoint.c and position.c: what cannot be made, or named. */
#include "delivery/checkpoint.h"
#include "delivery/position.h"
#include "log_helpers.h"

TestSuite(checkpoint, .init = enter, .fini = leave, .timeout = 60);

/* It would have no fingerprint, and fit on any log. */
Test(checkpoint, behind_a_damaged_record_is_neither_made_nor_believed)
{
	CLEANUP(cursor_close) struct cursor cursor;
	struct evbus_checkpoint made = { .group = "" }, none = made;
	uint64_t next = 99;

	must_publish(0, 4);
	cr_assert_eq(cursor_open(&topic, 0, 65536, &cursor, &err), EVBUS_OK, "%s", err.text);
	flip_payload(1);
	cr_assert_eq(checkpoint_make(&cursor, "g", 2, &made, &err), EVBUS_IO);
	cr_assert(strstr(err.text, "partition=0.jsonl") && strstr(err.text, "damaged"), "%s", err.text);
	cr_assert(!memcmp(&made, &none, sizeof made));
	flip_payload(1);
	cr_assert_eq(checkpoint_make(&cursor, "g", 2, &made, &err), EVBUS_OK, "%s", err.text);
	cr_assert_eq(strlen(made.fingerprint), 8);
	flip_payload(1);
	cr_assert_eq(checkpoint_check(&cursor, &made, &next, &err), EVBUS_IO);
	cr_assert_eq(next, 99);
	flip_payload(1);
	cr_assert_eq(checkpoint_check(&cursor, &made, &next, &err), EVBUS_OK, "%s", err.text);
	cr_assert_eq(next, 2);
}

Test(checkpoint, a_time_that_is_none_is_no_position)
{
	static const char *const texts[] = { "@", "@yesterday", "@2026-13-01T00:00:00Z" };
	struct position position = { .number = 7 };

	for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
		cr_assert_eq(position_parse(texts[i], &position, &err), EVBUS_USAGE, "%s", texts[i]);
		cr_assert(strstr(err.text, texts[i] + 1) && position.number == 7, "%s", err.text);
	}
}

Test(checkpoint, the_stored_position_of_nobody_is_none)
{
	CLEANUP(cursor_close) struct cursor cursor;
	struct position position;
	uint64_t offset = 99;

	must_publish(0, 1);
	cr_assert_eq(cursor_open(&topic, 0, 65536, &cursor, &err), EVBUS_OK, "%s", err.text);
	cr_assert_eq(position_parse("stored", &position, &err), EVBUS_OK);
	cr_assert_eq(position_resolve(&position, &cursor, &offset, &err), EVBUS_USAGE);
	cr_assert_str_eq(err.text, "'stored' needs a group: say which with --group");
	cr_assert_eq(offset, 99);
}

/* The map of an outbox: what its table, columns and states are called. */
#include "outbox_map.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

static struct outbox_map map;
static struct evbus_err err;

static void parse(const char *text)
{
	cr_assert_eq(outbox_map_parse(text, &map, &err), EVBUS_OK, "%s: %s", text, err.text);
}

/* It is refused, and the message has these words in it. */
static void refuse(const char *text, const char *words)
{
	struct outbox_map before = map;

	cr_assert_eq(outbox_map_parse(text, &map, &err), EVBUS_USAGE, "%s", text);
	cr_assert(strstr(err.text, words), "%s: %s", text, err.text);
	cr_assert(!memcmp(&before, &map, sizeof map), "%s", text);
}

Test(outbox_map, without_one_the_names_are_ours)
{
	parse(NULL);
	cr_assert_str_eq(map.table, "outbox");
	cr_assert_str_eq(map.columns[OUTBOX_PAYLOAD], "payload");
	cr_assert_str_eq(map.columns[OUTBOX_EXPIRES], "lease_expires_at");
	cr_assert_str_eq(map.states[EVBUS_OUTBOX_SENT], "SENT");
	cr_assert_eq(map.named, 0);
	parse("");
	cr_assert_str_eq(map.table, "outbox");
}

Test(outbox_map, names_the_table_its_columns_and_states)
{
	parse("payload=body,topic='crm.{type}',state.SENT=COMPLETED,table=app.events,seq=rowid");
	cr_assert_str_eq(map.schema, "app");
	cr_assert_str_eq(map.table, "events");
	cr_assert_str_eq(map.columns[OUTBOX_PAYLOAD], "body");
	cr_assert_str_eq(map.columns[OUTBOX_SEQ], "rowid");
	cr_assert_str_eq(map.topic, "crm.{type}");
	cr_assert_str_eq(map.states[EVBUS_OUTBOX_SENT], "COMPLETED");
	cr_assert_str_eq(map.states[EVBUS_OUTBOX_FAILED], "FAILED");
	cr_assert_eq(map.named, OUTBOX_BIT(OUTBOX_PAYLOAD) | OUTBOX_BIT(OUTBOX_SEQ));
}

Test(outbox_map, takes_blanks_around_its_parts)
{
	parse(" payload = body , state.SENT= all done ,topic = 'a.b' ");
	cr_assert_str_eq(map.columns[OUTBOX_PAYLOAD], "body");
	cr_assert_str_eq(map.states[EVBUS_OUTBOX_SENT], "all done");
	cr_assert_str_eq(map.topic, "a.b");
}

Test(outbox_map, takes_a_template_whose_quotes_a_shell_has_taken)
{
	parse("topic=crm.{event_type}");
	cr_assert_str_eq(map.topic, "crm.{event_type}");
	parse("topic=channel");
	cr_assert_str_eq(map.topic, "");
	cr_assert_str_eq(map.columns[OUTBOX_TOPIC], "channel");
}

Test(outbox_map, tells_a_quoted_word_from_a_column)
{
	parse("topic='channel'");
	cr_assert_str_eq(map.topic, "channel");
	parse("topic=\"crm.{event_type}\"");
	cr_assert_str_eq(map.topic, "crm.{event_type}");
}

Test(outbox_map, names_the_word_that_it_does_not_know_and_those_that_there_are)
{
	refuse("body=payload", "no word 'body'");
	refuse("body=payload", "table seq id tenant_id topic");
	refuse("body=payload", "state.PENDING state.PROCESSING state.SENT state.FAILED");
	refuse("state.DONE=x", "'state.DONE'");
	refuse("payload", "'payload' in the map is not OURS=THEIRS");
	refuse("payload,id=x", "'payload' in the map is not OURS=THEIRS");
	refuse(",id=x", "'' in the map is not");
}

Test(outbox_map, refuses_a_word_that_stands_twice)
{
	refuse("payload=a,id=x,payload=b", "'payload' stands in the map twice");
	refuse("table=a,table=b", "'table' stands");
	refuse("state.SENT=a,state.SENT=b", "'state.SENT' stands");
}

Test(outbox_map, refuses_one_column_for_two_things_of_which_evbus_writes_one)
{
	refuse("last_error=note,receipt=note", "both last_error and receipt");
	refuse("receipt=payload", "both payload and receipt");
	parse("event_key=id,partition_key=tenant_id");
}

Test(outbox_map, refuses_states_that_cannot_be_told_apart)
{
	refuse("state.FAILED=SENT", "both state.SENT and state.FAILED");
	refuse("state.PROCESSING=NEW,state.PENDING=NEW", "'NEW'");
}

Test(outbox_map, lets_nothing_through_that_is_not_a_name)
{
	static const char *const values[] = { "a\"b", "a'b",  "a b",      "a;b",  "a-b", "a`b",
					      "a\\b", "a(b)", "\xc3\xa4", "a\nb", "" };
	char text[200];

	for (size_t i = 0; i < sizeof values / sizeof *values; i++) {
		snprintf(text, sizeof text, "payload=%s", values[i]);
		cr_assert_eq(outbox_map_parse(text, &map, &err), EVBUS_USAGE, "%s", text);
		snprintf(text, sizeof text, "table=%s", values[i]);
		cr_assert_eq(outbox_map_parse(text, &map, &err), EVBUS_USAGE, "%s", text);
		snprintf(text, sizeof text, "table=s.%s", values[i]);
		cr_assert_eq(outbox_map_parse(text, &map, &err), EVBUS_USAGE, "%s", text);
		snprintf(text, sizeof text, "topic=a.{%s}", values[i]);
		cr_assert_eq(outbox_map_parse(text, &map, &err), EVBUS_USAGE, "%s", text);
	}
	refuse("state.SENT=a'b", "state.SENT");
	refuse("state.SENT=a\"b", "state.SENT");
	refuse("state.SENT=", "state.SENT");
	refuse("table=a.b.c", "table");
	refuse("topic='a b'", "topic");
	refuse("topic='a.{b'", "topic");
	refuse("topic='a.}b'", "topic");
	refuse("topic=''", "topic");
	refuse("topic='a", "not closed");
	refuse("topic='a'b", "a comma is missing");
}

Test(outbox_map, takes_names_up_to_63_bytes)
{
	char text[200];

	snprintf(text, sizeof text, "payload=%063d", 7);
	parse(text);
	snprintf(text, sizeof text, "payload=%064d", 7);
	refuse(text, "1 to 63");
}

Test(outbox_map, parts_of_a_template_come_in_turn)
{
	const char *at = "a.{b}{c}.d";
	struct evbus_slice part;
	char all[100] = "";
	bool column;

	while (outbox_template_next(&at, &part, &column)) {
		size_t len = strlen(all);
		snprintf(all + len, sizeof all - len, "%s%.*s;", column ? "column " : "", (int)part.len, part.data);
	}
	cr_assert_str_eq(all, "a.;column b;column c;.d;");
}

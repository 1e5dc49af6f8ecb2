/* FAILED rows of outboxes as dead letters. */
#include "outbox_double.h"

TestSuite(letters_outbox, .init = give_both, .fini = close_bus, .timeout = 120);

static enum evbus_letter_state states[10];
static int64_t returns;
static char seen[1000];

static enum evbus_code look(void *context, const struct evbus_letter *l, struct evbus_err *e)
{
	(void)context;
	(void)e;
	states[strtol(strchr(l->id, ':') + 1, NULL, 10)] = l->state;
	returns = l->returns;
	snprintf(seen, sizeof seen, "%.*s %.*s %s %.*s %.*s", (int)l->created_at.len, l->created_at.data,
		 (int)l->updated_at.len, l->updated_at.data, evbus_reason_name(l->reason), (int)l->error.len,
		 l->error.data, (int)l->resolved_by.len, l->resolved_by.data);
	return EVBUS_OK;
}

static const char *see(void)
{
	cr_assert_eq(evbus_letter_list(bus, both, 1, &any, look, NULL, &err), EVBUS_OK, "%s", err.text);
	return seen;
}

/* ---- lists ----------------------------------------------------------------------------------------------------- */

Test(letters_outbox, come_after_those_of_the_store_in_the_order_of_the_outboxes)
{
	put_letters(2);
	add_row(&app);
	add_row(&app)->state = EVBUS_OUTBOX_SENT;
	add_row(&app)->state = EVBUS_OUTBOX_PENDING;
	add_row(&app)->state = EVBUS_OUTBOX_PROCESSING;
	add_row(&app);
	add_row(&crm);
	cr_assert_str_eq(list(&any), "1 2 app.db:1 app.db:5 crm:1 ");
}

static enum evbus_code compare(void *context, const struct evbus_letter *l, struct evbus_err *e)
{
	const struct evbus_outbox_row *row = context;

	(void)e;
	cr_assert_str_eq(l->id, "app.db:1");
	cr_assert(l->source.len == 6 && !strncmp(l->source.data, "app.db", 6));
	cr_assert(!l->group.data && !l->offset.data && !l->offset_kind.data && !l->published_at_utc.data &&
		  l->partition_id == -1 && l->attempts == 2 && l->returns == 0 && l->state == EVBUS_LETTER_DEAD);
	cr_assert(l->topic.data == row->topic.data && l->event_id.data == row->id.data &&
		  l->event_type.data == row->event_type.data && l->tenant_id.data == row->tenant_id.data &&
		  l->partition_key.data == row->partition_key.data && l->payload.data == row->payload.data &&
		  l->history.data == row->history.data);
	return EVBUS_OK;
}

Test(letters_outbox, are_made_of_the_columns_of_their_row)
{
	struct evbus_outbox_row *row = add_row(&app);

	row->tenant_id = SLICE("A");
	row->partition_key = SLICE("k");
	cr_assert_eq(evbus_letter_list(bus, both, 1, &any, compare, row, &err), EVBUS_OK, "%s", err.text);
}

Test(letters_outbox, have_their_times_and_reason_from_the_history)
{
	struct evbus_outbox_row *row = add_row(&app);

	cr_assert_str_eq(see(), "2026-01-03T00:00:00.000000Z 2026-01-04T00:00:00.000000Z timeout slow ");
	/* As a database writes it that keeps JSON in a form of its own. */
	row->history = SLICE("[{\"at\": \"2026-01-05T00:00:00.000000Z\", \"error\": \"\", \"reason\": \"signal\", "
			     "\"attempt\": 1}, {\"at\": \"2026-01-06T00:00:00.000000Z\", \"error\": \"\", \"reason\": "
			     "\"not_json\", \"attempt\": 2}]");
	cr_assert_str_eq(see(), "2026-01-05T00:00:00.000000Z 2026-01-06T00:00:00.000000Z not_json slow ");
	row->history =
		SLICE("[" ATTEMPT("5", PUBLISHED) "," ATTEMPT("6", PUBLISHED) "," ATTEMPT("1", PUBLISHED) "," ATTEMPT(
			"2", PUBLISHED) "," ATTEMPT("1", PUBLISHED) "," ATTEMPT("1", PUBLISHED) "]");
	see();
	cr_assert_eq(returns, 3);
}

Test(letters_outbox, have_the_time_of_their_row_where_there_is_no_history_of_ours)
{
	static const char *const none[] = { NULL,
					    "",
					    "[]",
					    "[1]",
					    "[[]]",
					    "nothing",
					    "[{}]",
					    "[{\"attempt\":1}]",
					    "[" ATTEMPT("1", "yesterday at midday, or so") "]",
					    "[" ATTEMPT("-1", PUBLISHED) "]",
					    "[" ATTEMPT("1", PUBLISHED) "," };
	struct evbus_outbox_row *row = add_row(&app);

	for (size_t i = 0; i < sizeof none / sizeof *none; i++) {
		row->history = slice_of(none[i]);
		cr_assert_str_eq(see(), "2026-01-02T00:00:00.000000Z 2026-01-02T00:00:00.000000Z retries slow ",
				 "%zu: %s", i, seen);
	}
	row->created_at = SLICE("2026-01-02T03:00:00+02:00");
	cr_assert_str_eq(see(), "2026-01-02T01:00:00.000000Z 2026-01-02T01:00:00.000000Z retries slow ");
	row->created_at = SLICE("yesterday");
	cr_assert_str_eq(see(), "  retries slow ");
	row->created_at = (struct evbus_slice)NOTHING;
	cr_assert_str_eq(see(), "  retries slow ");
}

Test(letters_outbox, are_filtered_as_those_of_groups_are)
{
	struct evbus_letter_filter filter = any;
	int64_t day;

	put_letters(1);
	add_row(&app)->tenant_id = SLICE("A");
	add_row(&crm)->topic = SLICE("crm.deals");
	add_row(&crm)->created_at = SLICE("yesterday");
	crm.rows[1].history = (struct evbus_slice)NOTHING;
	filter.outbox = "crm";
	cr_assert_str_eq(list(&filter), "crm:1 crm:2 ");
	filter.outbox = "store";
	cr_assert_eq(list_code(&filter), EVBUS_NONE);
	filter.outbox = NULL;
	filter.group = "g";
	cr_assert_str_eq(list(&filter), "1 ");
	filter.group = NULL;
	filter.tenant = "A";
	cr_assert_str_eq(list(&filter), "app.db:1 ");
	filter.tenant = NULL;
	filter.topic = "crm.*";
	cr_assert_str_eq(list(&filter), "crm:1 ");
	filter.topic = NULL;
	filter.reason = EVBUS_REASON_TIMEOUT;
	cr_assert_str_eq(list(&filter), "app.db:1 crm:1 ");
	filter.reason = -1;
	filter.state = EVBUS_LETTER_QUEUED;
	cr_assert_str_eq(list(&filter), "");
	filter.state = EVBUS_LETTER_DEAD;
	filter.max = 2;
	cr_assert_str_eq(list(&filter), "1 app.db:1 ");
	filter = any;
	/* The age of what has no time is not known: it is not among the older, nor among the newer. */
	cr_assert(clock_parse_exact("2026-01-02T12:00:00.000000Z", &day));
	filter.newer_than_us = day;
	cr_assert_str_eq(list(&filter), "app.db:1 crm:1 ");
	filter.newer_than_us = 0;
	filter.older_than_us = day;
	cr_assert_str_eq(list(&filter), "1 ");
}

Test(letters_outbox, are_found_by_id)
{
	static const char *const ids[] = { "crm:1", "app.db:2", "1", "app.db:1", "app.db:3" };
	static const char *const gone[] = { "1", "crm:2" };
	static const char *const elsewhere[] = { "1", "web:2" };
	struct evbus_letter_filter filter = any;

	put_letters(1);
	add_row(&app);
	add_row(&app);
	add_row(&app)->state = EVBUS_OUTBOX_SENT;
	add_row(&crm);
	filter.ids = ids;
	filter.id_count = 5;
	/* A row that was sent since is a letter no longer, as one that was retried would not be DEAD any more. */
	cr_assert_str_eq(list(&filter), "1 app.db:1 app.db:2 crm:1 ");
	filter.outbox = "crm";
	cr_assert_str_eq(list(&filter), "crm:1 ");
	filter.outbox = NULL;
	filter.max = 3;
	cr_assert_str_eq(list(&filter), "1 app.db:1 app.db:2 ");
	filter.ids = gone;
	filter.id_count = 2;
	cr_assert_eq(list_code(&filter), EVBUS_NONE);
	cr_assert_str_eq(err.text, "there is no dead letter 'crm:2': the outbox has no such row");
	cr_assert_str_eq(listed, "");
	filter.ids = elsewhere;
	cr_assert_eq(list_code(&filter), EVBUS_NONE);
	cr_assert_str_eq(err.text,
			 "the dead letter 'web:2' is in the outbox 'web', which is not among those given: name "
			 "it with --outbox");
}

Test(letters_outbox, of_two_outboxes_of_one_name_cannot_be_told_apart)
{
	struct evbus_outbox *const twice[] = { &app, &crm, &app };
	static char name[EVBUS_LETTER_ID_MAX_BYTES];

	cr_assert_eq(evbus_letter_list(bus, twice, 3, &any, take_id, NULL, &err), EVBUS_USAGE);
	cr_assert_str_eq(err.text, "two outboxes have the name 'app.db': give one of them another");
	cr_assert_eq(evbus_letter_change(bus, twice, 3, "app.db:1", EVBUS_LETTER_QUEUE, EVBUS_REASON_RETRIES, SLICE(""),
					 "me", &err),
		     EVBUS_USAGE);
	crm.name = memset(name, 'x', sizeof name - 1);
	cr_assert_eq(list_code(&any), EVBUS_USAGE);
	/* The longest that is allowed has an id of its own for every row. */
	name[EVBUS_LETTER_ID_MAX_BYTES - sizeof ":9223372036854775807"] = '\0';
	add_row(&crm)->seq = INT64_MAX;
	cr_assert(strstr(list(&any), ":9223372036854775807 "));
}

Test(letters_outbox, of_an_outbox_that_fails_are_not_passed_over)
{
	put_letters(1);
	crm.fails = EVBUS_UNAVAILABLE;
	cr_assert_eq(list_code(&any), EVBUS_UNAVAILABLE);
	cr_assert_str_eq(listed, "");
}

Test(letters_outbox, are_no_longer_listed_when_the_callback_fails)
{
	add_row(&app);
	for (enum evbus_code code = EVBUS_NO; code <= EVBUS_USAGE; code += EVBUS_USAGE - EVBUS_NO) {
		cr_assert_eq(evbus_letter_list(bus, both, 2, &any, stop, &code, &err), code);
		cr_assert_str_eq(err.text, "enough");
	}
}

static enum evbus_code interfere(void *context, const struct evbus_letter *l, struct evbus_err *e)
{
	static char history[200];
	char now[28];

	TRY(take_id(context, l, e));
	if (strcmp(l->id, "app.db:1") != 0)
		return EVBUS_OK;
	evbus_time_format(evbus_time_now(), now);
	snprintf(history, sizeof history, "[" ATTEMPT("1", "%s") "]", now);
	app.rows[1].state = EVBUS_OUTBOX_FAILED;
	app.rows[1].history = slice_of(history);
	cr_assert_eq(change("app.db:3", EVBUS_LETTER_DISCARD), EVBUS_OK, "%s", err.text);
	cr_assert_eq(change("app.db:4", EVBUS_LETTER_QUEUE), EVBUS_OK, "%s", err.text);
	add_row(&app);
	add_row(&crm);
	return EVBUS_OK;
}

Test(letters_outbox, that_come_or_change_during_a_list_are_not_in_it)
{
	add_row(&app);
	add_row(&app)->state = EVBUS_OUTBOX_PENDING;
	add_row(&app);
	add_row(&app);
	add_row(&app);
	cr_assert_eq(evbus_letter_list(bus, both, 2, &any, interfere, NULL, &err), EVBUS_OK, "%s", err.text);
	cr_assert_str_eq(listed, "app.db:1 app.db:5 ");
	cr_assert_str_eq(list(&any), "app.db:1 app.db:2 app.db:3 app.db:5 app.db:6 crm:1 ");
}

Test(letters_outbox, are_listed_though_the_clock_went_back)
{
	add_row(&app)->history = SLICE("[" ATTEMPT("1", "2200-01-01T00:00:00.000000Z") "]");
	cr_assert_str_eq(list(&any), "app.db:1 ");
	cr_assert_eq(change("app.db:1", EVBUS_LETTER_DISCARD), EVBUS_OK, "%s", err.text);
	cr_assert_str_eq(list(&any), "app.db:1 ");
	see();
	cr_assert_eq(states[1], EVBUS_LETTER_DISCARDED);
}

/* ---- changes --------------------------------------------------------------------------------------------------- */

Test(letters_outbox, that_are_dead_can_be_queued_discarded_settled_and_fail_again)
{
	for (int i = 0; i < 4; i++)
		add_row(&app);
	cr_assert_eq(change("app.db:1", EVBUS_LETTER_UNDO), EVBUS_CONFLICT);
	cr_assert_str_eq(err.text,
			 "the dead letter 'app.db:1' is DEAD: only one that is DISCARDED or QUEUED can be taken back");
	cr_assert_eq(change("app.db:1", EVBUS_LETTER_QUEUE), EVBUS_OK, "%s", err.text);
	cr_assert_eq(app.rows[0].state, EVBUS_OUTBOX_PENDING);
	cr_assert_eq(change("app.db:2", EVBUS_LETTER_SUCCEED), EVBUS_OK, "%s", err.text);
	cr_assert(app.rows[1].state == EVBUS_OUTBOX_SENT && app.rows[1].receipt.len == 7);
	cr_assert_eq(change("app.db:3", EVBUS_LETTER_FAIL), EVBUS_OK, "%s", err.text);
	cr_assert(app.rows[2].attempts == 3 && app.rows[2].last_error.len == 7);
	cr_assert(access("state.db", F_OK), "nothing of it is in the store");
	cr_assert_eq(change("app.db:4", EVBUS_LETTER_DISCARD), EVBUS_OK, "%s", err.text);
	cr_assert_eq(app.rows[3].state, EVBUS_OUTBOX_FAILED);
	see();
	cr_assert(states[3] == EVBUS_LETTER_DEAD && states[4] == EVBUS_LETTER_DISCARDED);
	cr_assert(strstr(seen, "me@here"));
	cr_assert_str_eq(list(&any), "app.db:3 app.db:4 ");
}

Test(letters_outbox, that_are_discarded_can_only_be_taken_back)
{
	add_row(&app);
	cr_assert_eq(change("app.db:1", EVBUS_LETTER_DISCARD), EVBUS_OK, "%s", err.text);
	cr_assert_eq(change("app.db:1", EVBUS_LETTER_DISCARD), EVBUS_CONFLICT);
	cr_assert_eq(change("app.db:1", EVBUS_LETTER_QUEUE), EVBUS_CONFLICT);
	cr_assert_str_eq(err.text, "the dead letter 'app.db:1' is DISCARDED: only one that is DEAD can be queued");
	cr_assert_eq(change("app.db:1", EVBUS_LETTER_SUCCEED), EVBUS_CONFLICT);
	cr_assert_eq(change("app.db:1", EVBUS_LETTER_FAIL), EVBUS_CONFLICT);
	cr_assert_eq(change("app.db:1", EVBUS_LETTER_UNDO), EVBUS_OK, "%s", err.text);
	see();
	cr_assert_eq(states[1], EVBUS_LETTER_DEAD);
	cr_assert_eq(change("app.db:1", EVBUS_LETTER_QUEUE), EVBUS_OK, "%s", err.text);
}

Test(letters_outbox, that_are_none_any_more_do_not_change)
{
	for (unsigned state = EVBUS_OUTBOX_PENDING; state < EVBUS_OUTBOX_FAILED; state++)
		add_row(&app)->state = state;
	for (unsigned what = EVBUS_LETTER_QUEUE; what <= EVBUS_LETTER_FAIL; what++) {
		cr_assert_eq(change("app.db:1", what), EVBUS_CONFLICT);
		cr_assert_eq(change("app.db:2", what), EVBUS_CONFLICT);
		cr_assert_eq(change("app.db:3", what), EVBUS_CONFLICT);
		cr_assert_eq(change("app.db:4", what), EVBUS_NONE);
	}
	cr_assert_str_eq(err.text, "there is no dead letter 'app.db:4': the outbox has no such row");
	cr_assert_eq(change("app.db:3", EVBUS_LETTER_QUEUE), EVBUS_CONFLICT);
	cr_assert_str_eq(err.text, "the dead letter 'app.db:3' is SENT: only one that is DEAD can be queued");
}

Test(letters_outbox, that_somebody_else_changes_first_are_a_conflict)
{
	add_row(&app);
	app.lost = true;
	cr_assert_eq(change("app.db:1", EVBUS_LETTER_QUEUE), EVBUS_CONFLICT);
	cr_assert_str_eq(err.text, "the dead letter 'app.db:1' was changed by somebody else just now");
	cr_assert_eq(change("app.db:1", EVBUS_LETTER_SUCCEED), EVBUS_CONFLICT);
	cr_assert_eq(change("app.db:1", EVBUS_LETTER_FAIL), EVBUS_CONFLICT);
}

Test(letters_outbox, that_die_anew_are_not_discarded_any_more)
{
	static char history[200];
	char later[28];

	add_row(&app);
	cr_assert_eq(change("app.db:1", EVBUS_LETTER_DISCARD), EVBUS_OK, "%s", err.text);
	evbus_time_format(evbus_time_now() + 1000000, later);
	snprintf(history, sizeof history, "[" ATTEMPT("1", "%s") "]", later);
	app.rows[0].history = slice_of(history);
	see();
	cr_assert_eq(states[1], EVBUS_LETTER_DEAD);
	cr_assert_eq(change("app.db:1", EVBUS_LETTER_DISCARD), EVBUS_OK, "%s", err.text);
	see();
	cr_assert_eq(states[1], EVBUS_LETTER_DISCARDED);
}

Test(letters_outbox, of_two_outboxes_are_decided_about_apart)
{
	add_row(&app);
	add_row(&crm);
	cr_assert_eq(change("crm:1", EVBUS_LETTER_DISCARD), EVBUS_OK, "%s", err.text);
	see();
	cr_assert_eq(states[1], EVBUS_LETTER_DEAD);
	cr_assert_eq(change("app.db:1", EVBUS_LETTER_UNDO), EVBUS_CONFLICT);
	cr_assert_eq(change("crm:1", EVBUS_LETTER_UNDO), EVBUS_OK, "%s", err.text);
}

/* Dead letters of groups: changing them, one at a time. */
#include "letters_helpers.h"

#include "event/history.h"

TestSuite(letters_change, .init = open_bus, .fini = close_bus, .timeout = 120);

Test(letters_change, change_from_the_states_that_allow_it_and_from_no_other)
{
	static const char *const becomes[EVBUS_LETTER_STATES][5] = {
		/*	       QUEUE	 DISCARD      UNDO    SUCCEED	 FAIL */
		[EVBUS_LETTER_DEAD] = { "QUEUED", "DISCARDED", NULL, "RETRIED", "DEAD" },
		[EVBUS_LETTER_QUEUED] = { NULL, "DISCARDED", "DEAD", NULL, NULL },
		[EVBUS_LETTER_RETRIED] = { NULL, NULL, NULL, NULL, NULL },
		[EVBUS_LETTER_DISCARDED] = { NULL, NULL, "DEAD", NULL, NULL },
	};
	char text[100];

	put_letters(1);
	for (unsigned from = 0; from < EVBUS_LETTER_STATES; from++)
		for (unsigned what = EVBUS_LETTER_QUEUE; what <= EVBUS_LETTER_FAIL; what++) {
			const char *name = evbus_letter_state_name(from), *to = becomes[from][what];
			snprintf(text, sizeof text, "state = '%s'", name);
			set(text, 1);
			cr_assert_eq(change("1", what), to ? EVBUS_OK : EVBUS_CONFLICT, "%s %u", name, what);
			cr_assert_str_eq(evbus_letter_state_name(letter("1")->state), to ? to : name);
		}
	cr_assert_eq(change("1", 99), EVBUS_USAGE);
	cr_assert_eq(change("2", EVBUS_LETTER_QUEUE), EVBUS_NONE);
	set("state = 'RETRIED'", 1);
	cr_assert_eq(change("1", EVBUS_LETTER_QUEUE), EVBUS_CONFLICT);
	cr_assert_str_eq(err.text, "the dead letter '1' is RETRIED: only one that is DEAD can be queued");
}

static void assert_changed_now(const struct evbus_letter *l)
{
	int64_t at_us, age;

	cr_assert(clock_parse_exact(l->updated_at.data, &at_us));
	age = evbus_time_now() - at_us;
	cr_assert(age >= 0 && age < 60000000);
	IS(l->created_at, "2026-01-02T00:00:00.000000Z");
}

Test(letters_change, keep_who_retried_or_discarded_them_and_what_came_of_it)
{
	put_letters(2);
	cr_assert_eq(change("1", EVBUS_LETTER_SUCCEED), EVBUS_OK, "%s", err.text);
	const struct evbus_letter *l = letter("1");
	IS(l->resolved_by, "me@here");
	IS(l->result, "said so");
	assert_changed_now(l);
	cr_assert(l->attempts == 1 && l->returns == 0 && l->reason == EVBUS_REASON_RETRIES);
	cr_assert_eq(change("2", EVBUS_LETTER_DISCARD), EVBUS_OK, "%s", err.text);
	l = letter("2");
	IS(l->resolved_by, "me@here");
	IS(l->result, "said so");
	cr_assert_eq(change("2", EVBUS_LETTER_UNDO), EVBUS_OK, "%s", err.text);
	l = letter("2");
	cr_assert(!l->resolved_by.data && !l->result.data);
	cr_assert_eq(change("2", EVBUS_LETTER_QUEUE), EVBUS_OK, "%s", err.text);
	l = letter("2");
	IS(l->resolved_by, "me@here");
	cr_assert_null(l->result.data);
	IS(l->payload, "{}");
}

Test(letters_change, that_fail_again_have_one_attempt_more)
{
	static char flood[EVBUS_ERROR_MAX_BYTES + 100];

	put_letters(1);
	cr_assert_eq(change("1", EVBUS_LETTER_FAIL), EVBUS_OK, "%s", err.text);
	const struct evbus_letter *l = letter("1");
	cr_assert(l->attempts == 2 && l->returns == 1 && l->reason == EVBUS_REASON_SIGNAL);
	IS(l->error, "said so");
	assert_changed_now(l);
	cr_assert(!l->resolved_by.data && !l->result.data);
	cr_assert(!strncmp(l->history.data, "[" ATTEMPT("1", PUBLISHED) ",{\"attempt\":2,\"at\":\"", 100), "%s",
		  l->history.data);
	cr_assert(strstr(l->history.data, "\"reason\":\"signal\",\"error\":\"said so\"}]"));
	memset(flood, 'x', sizeof flood);
	flood[sizeof flood - 1] = '\xff';
	cr_assert_eq(evbus_letter_change(bus, NULL, 0, "1", EVBUS_LETTER_FAIL, EVBUS_REASON_TIMEOUT,
					 (struct evbus_slice){ flood, sizeof flood }, NULL, &err),
		     EVBUS_OK);
	l = letter("1");
	cr_assert(l->attempts == 3 && l->error.len == EVBUS_ERROR_MAX_BYTES + 2);
	cr_assert_str_eq(l->error.data + l->error.len - 4, "x\xef\xbf\xbd");
	cr_assert_eq(evbus_letter_change(bus, NULL, 0, "1", EVBUS_LETTER_FAIL, EVBUS_REASON_TIMEOUT,
					 (struct evbus_slice){ NULL, 0 }, NULL, &err),
		     EVBUS_OK);
	IS(letter("1")->error, "");
}

Test(letters_change, do_not_change_when_the_store_refuses)
{
	put_letters(1);
	stored_refuse("state.db", "UPDATE", "dlq", "1 = 1", "not this one");
	cr_assert_eq(change("1", EVBUS_LETTER_QUEUE), EVBUS_CONFLICT);
	stored_allow("state.db", "dlq");
	cr_assert_eq(letter("1")->state, EVBUS_LETTER_DEAD);
	cr_assert_eq(change("1", EVBUS_LETTER_QUEUE), EVBUS_OK, "%s", err.text);
}

Test(letters_change, of_another_store_are_not_touched)
{
	struct store *first = bus->store;

	put_letters(1);
	bus->store = open_store("sqlite:other.db");
	put_letters(1);
	cr_assert_eq(change("1", EVBUS_LETTER_DISCARD), EVBUS_OK, "%s", err.text);
	store_close(bus->store);
	bus->store = first;
	cr_assert_eq(letter("1")->state, EVBUS_LETTER_DEAD);
}

/* ---- claims ---------------------------------------------------------------------------------------------------- */

Test(letters_change, of_a_group_are_tried_by_one_at_a_time)
{
	struct evbus_claim *group, *outboxes, *other, *partition, *named;
	char expected[200];

	cr_assert_eq(evbus_letter_claim(bus, "g", &group, &err), EVBUS_OK, "%s", err.text);
	cr_assert_eq(evbus_letter_claim(bus, "g", &other, &err), EVBUS_AGAIN);
	snprintf(expected, sizeof expected, "the dead letters of 'g' are being retried by %s %d",
		 stored_on_server() ? "this process (pid" : "process", (int)getpid());
	cr_assert(!strncmp(err.text, expected, strlen(expected)), "%s", err.text);
	cr_assert_eq(evbus_letter_claim(bus, NULL, &outboxes, &err), EVBUS_OK, "%s", err.text);
	cr_assert_eq(evbus_letter_claim(bus, NULL, &other, &err), EVBUS_AGAIN);
	cr_assert_eq(evbus_letter_claim(bus, "outboxes", &named, &err), EVBUS_OK, "%s", err.text);
	cr_assert_eq(evbus_claim_take(bus, "g", "letters", 0, &partition, &err), EVBUS_OK, "%s", err.text);
	evbus_claim_release(group);
	cr_assert_eq(evbus_letter_claim(bus, "g", &group, &err), EVBUS_OK, "%s", err.text);
	evbus_claim_release(group);
	evbus_claim_release(outboxes);
	evbus_claim_release(partition);
	evbus_claim_release(named);
	cr_assert_eq(evbus_letter_claim(bus, "no group", &group, &err), EVBUS_USAGE);
}

/* ---- many at once ---------------------------------------------------------------------------------------------- */

#define MANY 600

/* Ids 1 to count, and what came of each. */
static enum evbus_code change_many(size_t count, enum evbus_letter_change what, enum evbus_code codes[MANY])
{
	static char texts[MANY][8];
	const char *ids[MANY];

	for (size_t i = 0; i < count; i++) {
		snprintf(texts[i], sizeof texts[i], "%zu", i + 1);
		ids[i] = texts[i];
	}
	return evbus_letter_change_all(bus, NULL, 0, ids, count, what, "me", codes, &err);
}

Test(letters_change, many_over_several_transactions)
{
	enum evbus_code codes[MANY];

	put_letters(MANY);
	cr_assert_eq(change_many(MANY, EVBUS_LETTER_QUEUE, codes), EVBUS_OK, "%s", err.text);
	for (size_t i = 0; i < MANY; i++)
		cr_assert_eq(codes[i], EVBUS_OK);
	struct evbus_letter_filter queued = any;
	queued.state = EVBUS_LETTER_QUEUED;
	queued.max = 0;
	cr_assert(!strncmp(list(&queued), "1 2 3 ", 6) && letter("600")->state == EVBUS_LETTER_QUEUED);
	IS(letter("600")->resolved_by, "me");
}

Test(letters_change, many_of_which_some_cannot_be_changed_leaves_those_as_they_are)
{
	enum evbus_code codes[MANY];

	put_letters(3);
	cr_assert_eq(change("2", EVBUS_LETTER_SUCCEED), EVBUS_OK, "%s", err.text);
	cr_assert_eq(change_many(4, EVBUS_LETTER_DISCARD, codes), EVBUS_OK, "%s", err.text);
	cr_assert(codes[0] == EVBUS_OK && codes[1] == EVBUS_CONFLICT && codes[2] == EVBUS_OK && codes[3] == EVBUS_NONE);
	cr_assert(letter("1")->state == EVBUS_LETTER_DISCARDED && letter("2")->state == EVBUS_LETTER_RETRIED &&
		  letter("3")->state == EVBUS_LETTER_DISCARDED);
}

Test(letters_change, many_when_one_is_damaged_changes_none_of_its_transaction)
{
	enum evbus_code codes[MANY];

	put_letters(3);
	sql("state.db", "UPDATE dlq SET state = 'LOST' WHERE id = 3");
	cr_assert_eq(change_many(3, EVBUS_LETTER_QUEUE, codes), EVBUS_IO);
	cr_assert_eq(letter("1")->state, EVBUS_LETTER_DEAD);
}

Test(letters_change, many_that_are_not_there_makes_no_store)
{
	enum evbus_code codes[MANY];

	cr_assert_eq(change_many(2, EVBUS_LETTER_QUEUE, codes), EVBUS_OK, "%s", err.text);
	cr_assert(codes[0] == EVBUS_NONE && codes[1] == EVBUS_NONE && !stored_is_there("state.db"));
	cr_assert_eq(change_many(0, EVBUS_LETTER_QUEUE, codes), EVBUS_OK);
}

static enum evbus_code codes[600];

static enum evbus_code change_all(const char *const *ids, size_t count, enum evbus_letter_change what)
{
	memset(codes, 7, sizeof codes);
	return evbus_letter_change_all(bus, given, given_count, ids, count, what, "me@here", codes, &err);
}

Test(letters_change, of_many_goes_on_behind_one_that_cannot_be_changed)
{
	static const char *const ids[] = { "1", "9", "2", "1", "3" }, *const gone[] = { "9", "8" },
				 *const bad[] = { "1", "x" };

	put_letters(3);
	set("state = 'RETRIED'", 2);
	cr_assert_eq(change_all(ids, 5, EVBUS_LETTER_QUEUE), EVBUS_OK, "%s", err.text);
	cr_assert(codes[0] == EVBUS_OK && codes[1] == EVBUS_NONE && codes[2] == EVBUS_CONFLICT &&
		  codes[3] == EVBUS_CONFLICT && codes[4] == EVBUS_OK);
	cr_assert(letter("1")->state == EVBUS_LETTER_QUEUED && letter("2")->state == EVBUS_LETTER_RETRIED &&
		  letter("3")->state == EVBUS_LETTER_QUEUED);
	IS(kept.letter.resolved_by, "me@here");
	cr_assert_eq(change_all(gone, 2, EVBUS_LETTER_QUEUE), EVBUS_OK, "%s", err.text);
	cr_assert(codes[0] == EVBUS_NONE && codes[1] == EVBUS_NONE);
	cr_assert_eq(change_all(bad, 2, EVBUS_LETTER_UNDO), EVBUS_USAGE);
	cr_assert_eq(letter("1")->state, EVBUS_LETTER_QUEUED);
}

Test(letters_change, of_many_makes_no_store)
{
	static const char *const ids[] = { "1", "2" };

	cr_assert_eq(change_all(ids, 2, EVBUS_LETTER_QUEUE), EVBUS_OK, "%s", err.text);
	cr_assert(codes[0] == EVBUS_NONE && codes[1] == EVBUS_NONE && !stored_is_there("state.db"));
}

Test(letters_change, of_more_than_a_page_is_done_a_page_a_transaction)
{
	static char texts[600][8];
	const char *ids[600];

	put_letters(600);
	for (int i = 0; i < 600; i++) {
		snprintf(texts[i], sizeof texts[i], "%d", i + 1);
		ids[i] = texts[i];
	}
	sql("state.db", "UPDATE dlq SET state = 'LOST' WHERE id = 300");
	cr_assert_eq(change_all(ids, 600, EVBUS_LETTER_DISCARD), EVBUS_IO, "a damaged one is told");
	sql("state.db", "UPDATE dlq SET state = 'DEAD' WHERE id = 300");
	cr_assert(letter("256")->state == EVBUS_LETTER_DISCARDED && letter("257")->state == EVBUS_LETTER_DEAD);
	cr_assert_eq(change_all(ids, 600, EVBUS_LETTER_DISCARD), EVBUS_OK, "%s", err.text);
	for (int i = 0; i < 600; i++)
		cr_assert_eq(codes[i], i < 256 ? EVBUS_CONFLICT : EVBUS_OK, "%d", i);
	cr_assert_eq(letter("600")->state, EVBUS_LETTER_DISCARDED);
}

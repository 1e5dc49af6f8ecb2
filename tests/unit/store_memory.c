/* sqlite.c: a store whose SQLite gets no memory. */
#include "faulty.h"
#include "store_helpers.h"

TestSuite(store_memory, .init = setup, .fini = teardown, .timeout = 120);

/* From the at-th request on there is none. false: there were not so many. */
static bool put_without_memory(struct store *store, unsigned at)
{
	faulty_begin(at, ENOMEM);
	faulty.scope = FAULTY_MEMORY_OF_SQLITE;
	faulty.from_on = true;
	enum evbus_code code = put(store, "g", "t", 0, (int)at);
	bool failed = faulty.failed != NULL;
	/* Nor has it become better. */
	enum evbus_code next = code ? put(store, "g", "t", 0, (int)at) : EVBUS_OK;
	faulty_end();
	cr_assert(code == EVBUS_OK || code == EVBUS_IO, "%d: %s", code, err.text);
	cr_assert(next == EVBUS_OK || (next == EVBUS_IO && err.sys_errno == ENOMEM), "%d: %s", next, err.text);
	return failed;
}

/* A transaction that cannot be rolled back, for want of memory, ends all the same. */
Test(store_memory, that_runs_out_at_any_request_keeps_nobody_out)
{
	unsigned requests = 0;
	bool failed = true;

	faulty_sqlite();
	struct store *store = open_store("state.db"), *other = open_store("state.db");
	cr_assert_eq(put(store, "g", "t", 0, 0), EVBUS_OK);
	for (unsigned at = 1; failed; at++) {
		failed = put_without_memory(store, at);
		cr_assert_eq(put(other, "g", "t", 1, (int)at), EVBUS_OK, "request %u: %s", at, err.text);
		cr_assert_eq(put(store, "g", "t", 0, (int)at), EVBUS_OK, "request %u: %s", at, err.text);
		cr_assert_eq(position(other, 0), (int)at);
		requests += failed;
	}
	cr_assert_gt(requests, 10u);
	store_close(other);
	store_close(store);
}

Test(store_memory, that_gets_no_memory_when_it_is_opened_says_so_and_is_opened_later)
{
	unsigned at = 0, failures = 0;
	bool hit;

	faulty_sqlite();
	cr_assert_eq(put_code("state.db"), EVBUS_OK, "%s", err.text);
	do {
		struct evbus_checkpoint c;
		struct store *store = open_store("state.db");
		faulty_begin(++at, ENOMEM);
		faulty.scope = FAULTY_MEMORY_OF_SQLITE;
		enum evbus_code code = store_checkpoint_get(store, "g", "t", 0, &c, &err);
		hit = faulty.failed != NULL;
		faulty_end();
		cr_assert(!code || (code == EVBUS_IO && err.sys_errno == ENOMEM), "call %u: %d, %s", at, code,
			  err.text);
		failures += code != EVBUS_OK;
		cr_assert_eq(put(store, "g", "t", 0, 2), EVBUS_OK, "call %u: %s", at, err.text);
		store_close(store);
	} while (hit);
	cr_assert_geq(failures, 10, "%u of %u", failures, at);
	cr_assert_eq(sqlite3_memory_used(), 0);
}

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
	faulty_end();
	cr_assert(code == EVBUS_OK || code == EVBUS_IO, "%d: %s", code, err.text);
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

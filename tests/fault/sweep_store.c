/* Any call fails, of ours or of SQLite's, while the store is written: checkpoints and claims. */
#include "faulty.h"
#include "stores.h"
#include "sweep.h"

#include <criterion/criterion.h>

#define EVENTS 8u

static struct evbus *bus;

static void setup(void)
{
	run_begin(IN_MEMORY);
	faulty_sqlite();
}

TestSuite(sweep_store, .init = setup, .fini = run_end, .timeout = 400);

static void only_open(void)
{
	bus = open_bus();
}

static void close_it(void)
{
	evbus_close(bus);
	bus = NULL;
}

static void make_log(void)
{
	make_topic(1, 0);
	sweep_publish_some(EVENTS);
}

static void make_log_and_store(void)
{
	make_log();
	sweep_others();
}

/* ---- checkpoints ----------------------------------------------------------------------------------------------- */

static enum evbus_code set_checkpoint(struct evbus_err *err)
{
	struct evbus_checkpoint before, after, *list;
	struct evbus_lag lag;
	size_t count;

	TRY(evbus_checkpoint_set(bus, "g", TOPIC, 0, "3", false, &before, &after, err));
	TRY(evbus_checkpoint_get(bus, "g", TOPIC, 0, &before, err));
	CHECK(!strcmp(before.next_offset, "3"), "it is at %s", before.next_offset);
	TRY(evbus_checkpoint_lag(bus, &before, &lag, err));
	CHECK(lag.records >= (int)EVENTS - 3, "%lld records behind", (long long)lag.records);
	TRY(evbus_checkpoint_list(bus, "g", NULL, &list, &count, err));
	evbus_free(list);
	CHECK(count == 1, "%zu checkpoints", count);
	return EVBUS_OK;
}

Test(sweep_store, of_setting_a_checkpoint)
{
	sweep(&(struct operation){ "checkpoint-set", only_open, set_checkpoint, .others = sweep_others,
				   .finish = close_it, .make = make_log_and_store, .store = true });
}

Test(sweep_store, of_setting_the_first_checkpoint_of_a_bus)
{
	sweep(&(struct operation){ "the first checkpoint of a bus", only_open, set_checkpoint, .others = sweep_others,
				   .finish = close_it, .make = make_log, .store = true });
}

static enum evbus_code restore_and_remove(struct evbus_err *err)
{
	struct evbus_checkpoint all[2], before;

	for (int i = 0; i < 2; i++) {
		TRY(evbus_checkpoint_set(bus, i ? "two" : "one", TOPIC, 0, "2", true, &before, &all[i], err));
		snprintf(all[i].group, sizeof all[i].group, "%s", i ? "two" : "one");
	}
	TRY(evbus_checkpoint_restore(bus, all, 2, err));
	return evbus_checkpoint_remove(bus, "two", TOPIC, 0, err);
}

static void check_restored(void)
{
	CHECK(ask_db(STATE_DB, "SELECT count(*) FROM checkpoints WHERE group_name IN ('one', 'two')") == 1,
	      "not one is left");
}

Test(sweep_store, of_restoring_and_removing_checkpoints)
{
	sweep(&(struct operation){ "checkpoint restore and remove", only_open, restore_and_remove,
				   .others = sweep_others, .finish = close_it, .make = make_log_and_store,
				   .check = check_restored, .store = true });
}

/* ---- claims ---------------------------------------------------------------------------------------------------- */

static enum evbus_code claim(struct evbus_err *err)
{
	struct evbus_claim *claim;

	TRY(evbus_claim_take(bus, "g", TOPIC, 0, &claim, err));
	evbus_claim_release(claim);
	TRY(evbus_letter_claim(bus, "g", &claim, err));
	evbus_claim_release(claim);
	return EVBUS_OK;
}

Test(sweep_store, of_claims)
{
	sweep(&(struct operation){ "claims", only_open, claim, .others = sweep_others, .finish = close_it,
				   .make = make_log_and_store, .store = true });
}

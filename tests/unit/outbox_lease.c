/* Draining an outbox: leases, and what they keep in order. */
#include "outbox_helpers.h"

#include "event/json.h"

#include <sys/stat.h>

TestSuite(outbox_lease, .init = setup, .fini = teardown, .timeout = 60);

/* ---- several drainers ------------------------------------------------------------------------------------------ */

Test(outbox_lease, what_another_has_leased_holds_back_its_key_until_the_lease_is_over)
{
	init(outbox);
	insert("a1", "a", "{\"n\":1}");
	insert("a2", "a", "{\"n\":2}");
	insert("b1", "b", "{\"n\":3}");
	lease("a1", 20);
	drain();
	cr_assert_str_eq(states(), "PROCESSING PENDING SENT");
	drain();
	cr_assert_eq(result.claimed, 0);
	cr_assert(result.next_due_ms > 10000 && result.next_due_ms <= 20000, "%d", (int)result.next_due_ms);
	lease("a1", -1);
	drain();
	cr_assert_str_eq(log_of("orders"), "{\"n\":3} {\"n\":1} {\"n\":2}");
}

Test(outbox_lease, a_lease_that_ends_later_than_leases_do_is_of_a_clock_that_went_back)
{
	init(outbox);
	insert("a", NULL, "{}");
	lease("a", 40);
	drain();
	cr_assert_eq(result.sent, 1);
}

Test(outbox_lease, how_long_a_lease_is_is_what_its_owner_says)
{
	init(outbox);
	insert("a", NULL, "{}");
	lease("a", 500);
	sql("UPDATE outbox SET lease_owner = 'other:1:00:600000'");
	drain();
	cr_assert_eq(result.claimed, 0);
}

Test(outbox_lease, processing_without_an_end_is_nobodys)
{
	init(outbox);
	insert("a", NULL, "{}");
	sql("UPDATE outbox SET state = 'PROCESSING'");
	drain();
	cr_assert_eq(result.sent, 1);
}

static const char *meanwhile;

/* Between claiming and marking. */
static int sync_and_be_late(int fd)
{
	if (meanwhile)
		sql(meanwhile);
	meanwhile = NULL;
	return fdatasync(fd);
}

#define THEIRS "state = 'PROCESSING', lease_owner = 'other:1:00:30000', lease_expires_at = " SOON

Test(outbox_lease, rows_are_marked_only_while_the_lease_is_ours)
{
	init(outbox);
	insert("first", NULL, "{}");
	drain();
	sql("DELETE FROM outbox");
	fill(3, 0);
	meanwhile = "UPDATE outbox SET " THEIRS " WHERE id = 'e2';"
		    "UPDATE outbox SET state = 'SENT', receipt = 'theirs', lease_owner = NULL WHERE id = 'e3'";
	os.fdatasync = sync_and_be_late;
	drain();
	cr_assert_eq(result.claimed, 3);
	cr_assert_eq(result.sent, 1);
	cr_assert_eq(result.lost, 2);
	cr_assert_str_eq(receipts, "orders/1 ");
	cr_assert_str_eq(sql("SELECT state, lease_owner, receipt = 'theirs' FROM outbox"),
			 "SENT|-|0 PROCESSING|other:1:00:30000|- SENT|-|1");
}

/* Of what this pass has taken, a row is not done after all: the next of its key has to wait for it. */
Test(outbox_lease, what_was_lost_to_another_holds_back_its_key)
{
	options.batch = 1;
	init(outbox);
	insert("first", NULL, "{}");
	drain();
	insert("a1", "a", "{\"n\":1}");
	insert("a2", "a", "{\"n\":2}");
	meanwhile = "UPDATE outbox SET " THEIRS " WHERE id = 'a1'";
	os.fdatasync = sync_and_be_late;
	drain();
	cr_assert_eq(result.lost, 1);
	drain();
	cr_assert_eq(result.claimed, 0);
	cr_assert_str_eq(states(), "SENT PROCESSING PENDING");
}

Test(outbox_lease, our_own_leases_are_taken_again_at_once)
{
	init(outbox);
	fill(1, 0);
	/* Marking fails: the application holds its database. */
	sqlite3 *db = open_app();
	struct outbox_batch batch = { .options = &options, .lease_ms = 30000, .now_us = os_now_us() };
	options.batch = 10;
	snprintf(outbox->owner, sizeof outbox->owner, "own:1:00:");
	snprintf(batch.owner, sizeof batch.owner, "own:1:00:30000");
	cr_assert_eq(outbox_look(outbox, &err), EVBUS_OK);
	cr_assert_eq(outbox_claim(outbox, &batch, &err), EVBUS_OK, "%s", err.text);
	cr_assert_eq(batch.count, 1);
	cr_assert_str_eq(states(), "PROCESSING");
	outbox_held_release(&batch.jobs[0].held);
	free(batch.jobs);
	outbox->rescan_at_us = 0;
	drain();
	cr_assert_eq(result.sent, 1);
	sqlite3_close(db);
}

Test(outbox_lease, two_drainers_keep_the_order_of_a_key)
{
	struct evbus_outbox *other = open_with(APP, NULL, false);
	int sent = 0;

	options.batch = 7;
	init(outbox);
	fill(100, 3);
	for (int i = 0; i < 40; i++) {
		cr_assert_eq(drain_by(i % 2 ? outbox : other), EVBUS_OK, "%s", err.text);
		sent += (int)result.sent;
	}
	cr_assert_eq(sent, 100);
	cr_assert_eq(
		count_of("SELECT COUNT(*) FROM outbox AS a, outbox AS b WHERE a.partition_key = b.partition_key AND "
			 "a.seq < b.seq AND CAST(json_extract(a.receipt, '$.offset') AS INTEGER) > "
			 "CAST(json_extract(b.receipt, '$.offset') AS INTEGER)"),
		0);
	evbus_outbox_close(other);
}

/* A row that was passed over when its key was blocked must not be overtaken when it no longer is. */
Test(outbox_lease, what_is_remembered_of_earlier_looks_breaks_no_order)
{
	options.batch = 2;
	init(outbox);
	insert("a1", "a", "{\"n\":1}");
	insert("a2", "a", "{\"n\":2}");
	fill(4, 0);
	lease("a1", 20);
	drain();
	cr_assert_str_eq(states(), "PROCESSING PENDING SENT SENT PENDING PENDING");
	insert("a3", "a", "{\"n\":3}");
	sql("UPDATE outbox SET state = 'PENDING', lease_owner = NULL, lease_expires_at = NULL WHERE id = 'a1'");
	options.batch = 100;
	for (int i = 0; i < 3; i++)
		drain();
	cr_assert_str_eq(states(), "SENT SENT SENT SENT SENT SENT SENT");
	cr_assert_eq(
		count_of("SELECT COUNT(*) FROM outbox AS a, outbox AS b WHERE a.partition_key = b.partition_key AND "
			 "a.seq < b.seq AND CAST(json_extract(a.receipt, '$.offset') AS INTEGER) > "
			 "CAST(json_extract(b.receipt, '$.offset') AS INTEGER)"),
		0);
}

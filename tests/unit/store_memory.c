/* sqlite.c: a store whose SQLite gets no memory. */
#include "faulty.h"
#include "store_helpers.h"

#include "store/keys.h"
#include "store/letters.h"

#define NOW "2026-01-29T12:00:00.123456Z"

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

/* ---- each statement ------------------------------------------------------------------------------------------------ */

/* Within a transaction of its own, as the library does it. */
static enum evbus_code change(struct store *store, enum evbus_code (*statements)(struct store *store))
{
	TRY(table_begin(store, &err));
	enum evbus_code code = statements(store);
	if (code) {
		table_rollback(store);
		return code;
	}
	return table_commit(store, &err);
}

/* Each request for memory of its statements is refused in turn: what is told as done is done, what is not is not. */
static void refuse_each(void (*prepare)(struct store *store), enum evbus_code (*act)(struct store *store),
			bool (*is_done)(struct store *store))
{
	unsigned at = 0, failures = 0;
	bool hit;

	faulty_sqlite();
	do {
		struct store *store = open_store("state.db");
		prepare(store);
		faulty_begin(++at, ENOMEM);
		faulty.scope = FAULTY_MEMORY_OF_SQLITE;
		enum evbus_code code = act(store);
		hit = faulty.failed != NULL;
		faulty_end();
		cr_assert(!code || (code == EVBUS_IO && err.sys_errno == ENOMEM), "request %u: %d, %s", at, code,
			  err.text);
		cr_assert_eq(is_done(store), !code, "request %u: %d", at, code);
		if (code)
			cr_assert_eq(act(store), EVBUS_OK, "request %u: %s", at, err.text);
		cr_assert(is_done(store), "request %u", at);
		store_close(store);
		failures += code != EVBUS_OK;
	} while (hit);
	cr_assert_geq(failures, 5, "%u of %u", failures, at);
}

static void put_checkpoint(struct store *store)
{
	cr_assert_eq(put(store, "g", "t", 0, 1), EVBUS_OK, "%s", err.text);
}

static enum evbus_code remove_checkpoint(struct store *store)
{
	return store_checkpoint_remove(store, "g", "t", 0, &err);
}

static bool checkpoint_is_gone(struct store *store)
{
	return position(store, 0) < 0;
}

Test(store_memory, that_is_refused_to_any_statement_leaves_a_checkpoint_or_removes_it)
{
	refuse_each(put_checkpoint, remove_checkpoint, checkpoint_is_gone);
}

static enum evbus_code take_number(void *to, const struct value *columns, size_t count, struct evbus_err *e)
{
	(void)e;
	cr_assert(count == 1 && columns[0].kind == VALUE_INTEGER);
	*(int64_t *)to = columns[0].integer;
	return EVBUS_OK;
}

static int64_t ask(struct store *store, const char *sql)
{
	int64_t number = 0;
	struct query query = { .sql = sql, .row = take_number, .context = &number };

	cr_assert_eq(table_read(store, &query, &err), EVBUS_OK, "%s", err.text);
	return number;
}

#define LETTERS "SELECT count(*) FROM dlq"
#define KEYS "SELECT count(*) FROM event_keys"

static int64_t before;

static void count_letters(struct store *store)
{
	before = ask(store, LETTERS);
}

static enum evbus_code put_letter_now(struct store *store)
{
	char offset[24];
	int64_t id = -1;

	snprintf(offset, sizeof offset, "%d", (int)before);
	struct letter_row row = { .group = SLICE("g"),
				  .topic = SLICE("t"),
				  .offset = { offset, strlen(offset) },
				  .offset_kind = SLICE("file_line"),
				  .log_id = SLICE("0123456789abcdef0123456789abcdef"),
				  .published_at = SLICE(NOW),
				  .payload = SLICE("{}"),
				  .reason = SLICE("retries"),
				  .error = SLICE("no"),
				  .attempts = 1,
				  .history = SLICE("[]"),
				  .updated_at = SLICE(NOW) };
	TRY(letters_put(store, &row, &id, &err));
	cr_assert_eq(id, before + 1);
	return EVBUS_OK;
}

static enum evbus_code put_letter(struct store *store)
{
	return change(store, put_letter_now);
}

static bool letter_is_put(struct store *store)
{
	return ask(store, LETTERS) == before + 1;
}

Test(store_memory, that_is_refused_to_any_statement_leaves_no_letter_or_a_new_one)
{
	refuse_each(count_letters, put_letter, letter_is_put);
}

static enum evbus_code queue_now(struct store *store)
{
	struct query query = { .sql = "UPDATE dlq SET state = 'QUEUED'" };

	return table_write(store, &query, &err);
}

static void queue_letter(struct store *store)
{
	before = 0;
	if (ask(store, LETTERS) == 0)
		cr_assert_eq(put_letter(store), EVBUS_OK, "%s", err.text);
	cr_assert_eq(change(store, queue_now), EVBUS_OK, "%s", err.text);
}

static enum evbus_code succeed_now(struct store *store)
{
	bool changed = false;

	TRY(letters_succeeded(store, 1, "me", "done", NOW, &changed, &err));
	cr_assert(changed);
	return EVBUS_OK;
}

static enum evbus_code succeed(struct store *store)
{
	return change(store, succeed_now);
}

static bool letter_is_retried(struct store *store)
{
	return ask(store, LETTERS " WHERE state = 'RETRIED'") == 1;
}

Test(store_memory, that_is_refused_to_any_statement_leaves_a_letter_queued_or_retried)
{
	refuse_each(queue_letter, succeed, letter_is_retried);
}

static void count_keys(struct store *store)
{
	before = ask(store, KEYS);
}

static enum evbus_code add_keys_now(struct store *store)
{
	struct key_name names[KEYS_FIND_MAX];
	struct key_place places[KEYS_FIND_MAX] = { 0 };
	char topic[24], keys[KEYS_FIND_MAX][8];
	bool all = false;

	snprintf(topic, sizeof topic, "t%d", (int)before);
	for (size_t i = 0; i < KEYS_FIND_MAX; i++) {
		int len = snprintf(keys[i], sizeof keys[i], "k%zu", i);
		names[i] = (struct key_name){ SLICE(""), { keys[i], (size_t)len } };
	}
	TRY(store_keys_add_many(store, topic, names, places, &all, &err));
	cr_assert(all);
	return EVBUS_OK;
}

static enum evbus_code add_keys(struct store *store)
{
	return change(store, add_keys_now);
}

static bool keys_are_added(struct store *store)
{
	return ask(store, KEYS) == before + KEYS_FIND_MAX;
}

Test(store_memory, that_is_refused_to_any_statement_leaves_no_key_or_all_of_them)
{
	refuse_each(count_keys, add_keys, keys_are_added);
}

/* letters_change.c: what is done with one dead letter. */
#include "letters.h"

#include "base/clock.h"
#include "event/history.h"
#include "store/decisions.h"
#include "store/table.h"

/* From which states a change is allowed, and which one follows. */
static const struct rule {
	unsigned from, from_outbox; /* bits */
	enum evbus_letter_state to;
	const char *allowed;
} rules[] = {
#define BIT(state) (1u << EVBUS_LETTER_##state)
	[EVBUS_LETTER_QUEUE] = { BIT(DEAD), BIT(DEAD), EVBUS_LETTER_QUEUED, "only one that is DEAD can be queued" },
	[EVBUS_LETTER_DISCARD] = { BIT(DEAD) | BIT(QUEUED), BIT(DEAD), EVBUS_LETTER_DISCARDED,
				   "only one that is DEAD or QUEUED can be discarded" },
	[EVBUS_LETTER_UNDO] = { BIT(DISCARDED) | BIT(QUEUED), BIT(DISCARDED), EVBUS_LETTER_DEAD,
				"only one that is DISCARDED or QUEUED can be taken back" },
	[EVBUS_LETTER_SUCCEED] = { BIT(DEAD), BIT(DEAD), EVBUS_LETTER_RETRIED, "only one that is DEAD can be retried" },
	[EVBUS_LETTER_FAIL] = { BIT(DEAD), BIT(DEAD), EVBUS_LETTER_DEAD, "only one that is DEAD can be retried" },
#undef BIT
};

struct changing {
	struct letter_sources from;
	struct letter_id id;
	enum evbus_letter_change change;
	const struct rule *rule;
	enum evbus_reason reason;
	struct evbus_slice result;
	const char *by;
};

static enum evbus_code refuse(const struct changing *changing, const char *id, const char *state, struct evbus_err *err)
{
	return err_set(err, EVBUS_CONFLICT, 0, "the dead letter '%s' is %s: %s", id, state, changing->rule->allowed);
}

static enum evbus_code check_state(const struct changing *changing, const struct evbus_letter *letter,
				   struct evbus_err *err)
{
	unsigned from = changing->id.source == SOURCE_STORE ? changing->rule->from : changing->rule->from_outbox;

	if (from & 1u << letter->state)
		return EVBUS_OK;
	return refuse(changing, letter->id, evbus_letter_state_name(letter->state), err);
}

/* ---- in the store ---------------------------------------------------------------------------------------------- */

static struct evbus_slice slice_of(const char *text)
{
	return (struct evbus_slice){ text, text ? strlen(text) : 0 };
}

/* One more attempt that failed. */
static enum evbus_code add_attempt(const struct changing *changing, int64_t now_us, struct letter_row *row,
				   struct buf *history, struct buf *error, struct evbus_err *err)
{
	row->attempts++;
	row->returns++;
	TRY(history_add(history, row->history, row->attempts, now_us, changing->reason, changing->result, err));
	TRY(history_error(error, changing->result, EVBUS_ERROR_MAX_BYTES, err));
	row->history = (struct evbus_slice){ history->data, history->len };
	row->error = (struct evbus_slice){ error->data, error->len };
	row->reason = slice_of(evbus_reason_name(changing->reason));
	return EVBUS_OK;
}

static enum evbus_code change_row(const struct changing *changing, struct letter_row *row, struct evbus_err *err)
{
	CLEANUP(buf_release) struct buf history = { 0 }, error = { 0 };
	int64_t now_us = os_now_us();
	char now[28];

	evbus_time_format(now_us, now);
	row->updated_at = slice_of(now);
	row->state = slice_of(evbus_letter_state_name(changing->rule->to));
	row->resolved_by = row->result = (struct evbus_slice){ NULL, 0 };
	if (changing->change == EVBUS_LETTER_FAIL)
		TRY(add_attempt(changing, now_us, row, &history, &error, err));
	if (changing->rule->to != EVBUS_LETTER_DEAD)
		row->resolved_by = slice_of(changing->by);
	if (changing->rule->to == EVBUS_LETTER_RETRIED || changing->rule->to == EVBUS_LETTER_DISCARDED)
		row->result = changing->result;
	return letters_change(changing->from.bus->store, row, err);
}

/* The letter as it is now. */
static enum evbus_code find(const struct changing *changing, struct page *page, struct letter_row *row,
			    struct evbus_err *err)
{
	struct evbus_letter letter;

	TRY(letters_find(changing->from.bus->store, changing->id.number, page, err));
	if (!page->count)
		return letter_none(&changing->from, changing->id, err);
	TRY(letter_of(page->rows[0], page->columns, row, err));
	TRY(letter_of_store(row, &letter, err));
	return check_state(changing, &letter, err);
}

static enum evbus_code change_within(const struct changing *changing, struct evbus_err *err)
{
	CLEANUP(page_release) struct page page = { 0 };
	struct letter_row row;

	TRY(find(changing, &page, &row, err));
	return change_row(changing, &row, err);
}

static enum evbus_code change_in_store(const struct changing *changing, struct evbus_err *err)
{
	struct store *store = changing->from.bus->store;
	bool there;

	/* Asked first, as writing makes a store. */
	TRY(letters_exist(store, changing->id.number, &there, err));
	if (!there)
		return letter_none(&changing->from, changing->id, err);
	TRY(table_begin(store, err));
	enum evbus_code code = change_within(changing, err);
	if (code) {
		table_rollback(store);
		return code;
	}
	return table_commit(store, err);
}

/* ---- in an outbox ---------------------------------------------------------------------------------------------- */

struct failed_row {
	const struct changing *changing;
	struct evbus_outbox *outbox;
	int64_t updated_us;
};

static enum evbus_code take_row(void *context, const struct evbus_outbox_row *row, struct evbus_err *err)
{
	CLEANUP(outbox_letter_release) struct outbox_letter letter = { 0 };
	struct failed_row *failed = context;

	TRY(letter_of_outbox(failed->changing->from.bus, failed->outbox, row, &letter, err));
	failed->updated_us = letter.updated_us;
	if (row->state != EVBUS_OUTBOX_FAILED)
		return refuse(failed->changing, letter.letter.id, evbus_outbox_state_name(row->state), err);
	return check_state(failed->changing, &letter.letter, err);
}

/* Not before the death that it is about, also where the clock went back since. */
static enum evbus_code put_decision(const struct changing *changing, const char *place, int64_t died_us,
				    struct evbus_err *err)
{
	int64_t now_us = os_now_us();
	char at[28];

	evbus_time_format(now_us > died_us ? now_us : died_us, at);
	return decisions_put(changing->from.bus->store, place, changing->id.number, changing->by ? changing->by : "",
			     at, err);
}

static enum evbus_code decide(const struct changing *changing, const struct failed_row *row, bool *changed,
			      struct evbus_err *err)
{
	struct store *store = changing->from.bus->store;
	const char *place;
	enum evbus_code code;

	TRY(outbox_place(row->outbox, &place, err));
	TRY(table_begin(store, err));
	*changed = true;
	if (changing->change == EVBUS_LETTER_DISCARD)
		code = put_decision(changing, place, row->updated_us, err);
	else
		code = decisions_remove(store, place, changing->id.number, changed, err);
	if (code) {
		table_rollback(store);
		return code;
	}
	return table_commit(store, err);
}

static enum evbus_code do_change(const struct changing *changing, const struct failed_row *row, bool *changed,
				 struct evbus_err *err)
{
	int64_t seq = changing->id.number;

	switch (changing->change) {
	case EVBUS_LETTER_QUEUE:
		return outbox_requeue(row->outbox, seq, changed, err);
	case EVBUS_LETTER_SUCCEED:
		return outbox_settle(row->outbox, seq, changing->result, changed, err);
	case EVBUS_LETTER_FAIL:
		return outbox_fail_again(row->outbox, seq, changing->reason, changing->result, changed, err);
	case EVBUS_LETTER_DISCARD:
	case EVBUS_LETTER_UNDO:
		break;
	}
	return decide(changing, row, changed, err);
}

static enum evbus_code change_in_outbox(const struct changing *changing, struct evbus_err *err)
{
	struct failed_row row = { .changing = changing, .outbox = changing->from.outboxes[changing->id.source - 1] };
	bool there, changed;

	TRY(outbox_row(row.outbox, changing->id.number, take_row, &row, &there, err));
	if (!there)
		return letter_none(&changing->from, changing->id, err);
	TRY(do_change(changing, &row, &changed, err));
	if (changed)
		return EVBUS_OK;
	return err_set(err, EVBUS_CONFLICT, 0, "the dead letter '%s:%lld' was changed by somebody else just now",
		       evbus_outbox_name(row.outbox), (long long)changing->id.number);
}

/* ---- one, and many --------------------------------------------------------------------------------------------- */

static enum evbus_code begin(struct changing *changing, enum evbus_letter_change change, struct evbus_err *err)
{
	if ((size_t)change >= sizeof rules / sizeof *rules)
		return err_set(err, EVBUS_USAGE, 0, "there is no change %d of a dead letter", (int)change);
	changing->change = change;
	changing->rule = &rules[change];
	return letter_sources_open(&changing->from, err);
}

enum evbus_code evbus_letter_change(struct evbus *bus, struct evbus_outbox *const *outboxes, size_t outbox_count,
				    const char *id, enum evbus_letter_change change, enum evbus_reason reason,
				    struct evbus_slice result, const char *by, struct evbus_err *err)
{
	struct changing changing = {
		.from = { bus, outboxes, outbox_count }, .reason = reason, .result = result, .by = by
	};

	TRY(begin(&changing, change, err));
	TRY(letter_id_parse(&changing.from, id, &changing.id, err));
	return changing.id.source == SOURCE_STORE ? change_in_store(&changing, err) : change_in_outbox(&changing, err);
}

#define CHANGES_MAX 256u             /* in a transaction: others write in between */

/* In the store, within a transaction. One that cannot be changed leaves the others as they are. */
static enum evbus_code change_each(struct changing *changing, const char *const *ids, size_t count,
				   enum evbus_code *codes, struct evbus_err *err)
{
	for (size_t i = 0; i < count; i++) {
		TRY(letter_id_parse(&changing->from, ids[i], &changing->id, err));
		codes[i] = change_within(changing, err);
		if (codes[i] && codes[i] != EVBUS_CONFLICT && codes[i] != EVBUS_NONE)
			return codes[i];
	}
	return EVBUS_OK;
}

static enum evbus_code change_page(struct changing *changing, const char *const *ids, size_t count,
				   enum evbus_code *codes, struct evbus_err *err)
{
	struct store *store = changing->from.bus->store;

	TRY(table_begin(store, err));
	enum evbus_code code = change_each(changing, ids, count, codes, err);
	if (code) {
		table_rollback(store);
		return code;
	}
	return table_commit(store, err);
}

/* How many of them go into one transaction: those in the store, CHANGES_MAX at most. None where the first is not there,
 * as writing makes a store. */
static enum evbus_code count_of_page(struct changing *changing, const char *const *ids, size_t count, size_t *n,
				     struct evbus_err *err)
{
	bool there;

	for (*n = 0; *n < count && *n < CHANGES_MAX; ++*n) {
		TRY(letter_id_parse(&changing->from, ids[*n], &changing->id, err));
		if (changing->id.source != SOURCE_STORE)
			return EVBUS_OK;
		if (*n)
			continue;
		TRY(letters_exist(changing->from.bus->store, changing->id.number, &there, err));
		if (!there)
			return EVBUS_OK;
	}
	return EVBUS_OK;
}

enum evbus_code evbus_letter_change_all(struct evbus *bus, struct evbus_outbox *const *outboxes, size_t outbox_count,
					const char *const *ids, size_t id_count, enum evbus_letter_change change,
					const char *by, enum evbus_code *codes, struct evbus_err *err)
{
	struct changing changing = { .from = { bus, outboxes, outbox_count }, .by = by };
	size_t n;

	TRY(begin(&changing, change, err));
	for (size_t at = 0; at < id_count; at += n) {
		TRY(count_of_page(&changing, ids + at, id_count - at, &n, err));
		if (n) {
			TRY(change_page(&changing, ids + at, n, codes + at, err));
			continue;
		}
		n = 1;
		codes[at] = evbus_letter_change(bus, outboxes, outbox_count, ids[at], change, EVBUS_REASON_REFUSED,
						(struct evbus_slice){ 0 }, by, err);
		if (codes[at] && codes[at] != EVBUS_CONFLICT && codes[at] != EVBUS_NONE)
			return codes[at];
	}
	return EVBUS_OK;
}

/* ---- trying them ----------------------------------------------------------------------------------------------- */

enum evbus_code evbus_letter_claim(struct evbus *bus, const char *group, struct evbus_claim **claim,
				   struct evbus_err *err)
{
	/* Claims of a partition have its number: none of them is in the way of one that is not of a partition. */
	return evbus_claim_take(bus, group ? group : "outboxes", group ? "letters" : "outboxes", -1, claim, err);
}

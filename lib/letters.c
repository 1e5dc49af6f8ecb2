/* letters.c: finding dead letters.
 *
 * Exactly the letters that were there at the start are given out, as they were then: up to the highest number of each
 * source, and without those that were changed since. That takes no list of them, so a million need no more memory than
 * one; and no transaction that would keep others waiting, so whoever gets a letter may take his time, and may change it. */
#include "letters.h"

#include "base/clock.h"
#include "event/history.h"
#include "event/subject.h"

#include <errno.h>
#include <string.h>

static const char *const state_names[EVBUS_LETTER_STATES] = {
	[EVBUS_LETTER_DEAD] = "DEAD",
	[EVBUS_LETTER_QUEUED] = "QUEUED",
	[EVBUS_LETTER_RETRIED] = "RETRIED",
	[EVBUS_LETTER_DISCARDED] = "DISCARDED",
};

const char *evbus_letter_state_name(enum evbus_letter_state state)
{
	return (unsigned)state < EVBUS_LETTER_STATES ? state_names[state] : "unknown";
}

bool letter_state_parse(struct evbus_slice name, enum evbus_letter_state *state)
{
	for (unsigned i = 0; i < EVBUS_LETTER_STATES; i++)
		if (name.len == strlen(state_names[i]) && !memcmp(name.data, state_names[i], name.len)) {
			*state = (enum evbus_letter_state)i;
			return true;
		}
	return false;
}

/* ---- sources and ids ------------------------------------------------------------------------------------------- */

enum evbus_code letter_sources_open(const struct letter_sources *sources, struct evbus_err *err)
{
	for (size_t i = 0; i < sources->count; i++) {
		const char *name = evbus_outbox_name(sources->outboxes[i]);
		if (strlen(name) > EVBUS_LETTER_ID_MAX_BYTES - sizeof ":9223372036854775807")
			return err_set(err, EVBUS_USAGE, 0,
				       "the name of the outbox '%s' is too long for the ids of its dead letters", name);
		for (size_t j = 0; j < i; j++)
			if (!strcmp(name, evbus_outbox_name(sources->outboxes[j])))
				return err_set(err, EVBUS_USAGE, 0,
					       "two outboxes have the name '%s': give one of them another", name);
	}
	return bus_store(sources->bus, err);
}

/* The digits that an id ends with; 0: it does not. */
static int64_t number_of(const char *digits)
{
	int64_t number = 0;

	if (*digits == '0')
		return 0;
	for (; *digits >= '0' && *digits <= '9'; digits++)
		if (__builtin_mul_overflow(number, 10, &number) ||
		    __builtin_add_overflow(number, *digits - '0', &number))
			return 0;
	return *digits ? 0 : number;
}

enum evbus_code letter_id_parse(const struct letter_sources *sources, const char *text, struct letter_id *id,
				struct evbus_err *err)
{
	const char *colon = strrchr(text, ':');
	int64_t number = number_of(colon ? colon + 1 : text);

	if (!number || colon == text)
		return err_set(err, EVBUS_USAGE, 0,
			       "'%s' is not the id of a dead letter: they look like 17, or app.db:17 in an outbox",
			       text);
	*id = (struct letter_id){ SOURCE_STORE, number };
	if (!colon)
		return EVBUS_OK;
	for (size_t i = 0; i < sources->count; i++) {
		const char *name = evbus_outbox_name(sources->outboxes[i]);
		if (strlen(name) == (size_t)(colon - text) && !memcmp(name, text, strlen(name))) {
			id->source = i + 1;
			return EVBUS_OK;
		}
	}
	return err_set(err, EVBUS_NONE, 0,
		       "the dead letter '%s' is in the outbox '%.*s', which is not among those given: name it with "
		       "--outbox",
		       text, (int)(colon - text), text);
}

enum evbus_code letter_none(const struct letter_sources *sources, struct letter_id id, struct evbus_err *err)
{
	if (id.source == SOURCE_STORE)
		return err_set(err, EVBUS_NONE, 0, "there is no dead letter '%lld' in the store", (long long)id.number);
	return err_set(err, EVBUS_NONE, 0, "there is no dead letter '%s:%lld': the outbox has no such row",
		       evbus_outbox_name(sources->outboxes[id.source - 1]), (long long)id.number);
}

/* ---- a letter -------------------------------------------------------------------------------------------------- */

enum evbus_code letter_of_store(const struct letter_row *row, struct evbus_letter *letter, struct evbus_err *err)
{
	*letter = (struct evbus_letter){
		.source = SLICE("store"),
		.group = row->group,
		.tenant_id = row->tenant_id,
		.topic = row->topic,
		.event_id = row->event_id,
		.event_type = row->event_type,
		.correlation_id = row->correlation_id,
		.partition_key = row->partition_key,
		.partition_id = row->partition_id,
		.offset = row->offset,
		.offset_kind = row->offset_kind,
		.published_at_utc = row->published_at,
		.payload = row->payload,
		.error = row->error,
		.attempts = row->attempts,
		.history = row->history,
		.returns = row->returns,
		.created_at = row->created_at,
		.updated_at = row->updated_at,
		.resolved_by = row->resolved_by,
		.result = row->result,
	};
	snprintf(letter->id, sizeof letter->id, "%lld", (long long)row->id);
	if (letter_state_parse(row->state, &letter->state) && reason_parse(row->reason, &letter->reason))
		return EVBUS_OK;
	return err_set(err, EVBUS_IO, 0, "the dead letter '%s' is damaged: evbus did not write it so", letter->id);
}

static bool equals(struct evbus_slice value, const char *wanted)
{
	return !wanted || (value.data && value.len == strlen(wanted) && !memcmp(value.data, wanted, value.len));
}

static bool is_like(struct evbus_slice value, const char *pattern)
{
	return !pattern || (value.data && subject_matches(pattern, value));
}

/* What has no time that is known is neither older nor newer than another. */
static bool is_of_age(const struct evbus_letter_filter *filter, struct evbus_slice created_at)
{
	int64_t at_us;

	if (!filter->older_than_us && !filter->newer_than_us)
		return true;
	if (created_at.len != TIME_TEXT_LEN || !clock_parse_exact(created_at.data, &at_us))
		return false;
	return (!filter->older_than_us || at_us < filter->older_than_us) &&
	       (!filter->newer_than_us || at_us > filter->newer_than_us);
}

static bool matches(const struct evbus_letter_filter *filter, const struct evbus_letter *letter)
{
	return (filter->state < 0 || (int)letter->state == filter->state) &&
	       (filter->reason < 0 || (int)letter->reason == filter->reason) && equals(letter->group, filter->group) &&
	       equals(letter->tenant_id, filter->tenant) && is_like(letter->topic, filter->topic) &&
	       is_like(letter->event_type, filter->type) && is_of_age(filter, letter->created_at);
}

/* ---- listing --------------------------------------------------------------------------------------------------- */

struct listing {
	struct letter_sources from;
	const struct evbus_letter_filter *filter;
	enum evbus_code (*letter)(void *context, const struct evbus_letter *letter, struct evbus_err *err);
	void *context;
	int64_t started_us;
	struct letters_bound bound; /* of the store */
	int64_t *last_seqs; /* of each outbox */
	struct letter_id *ids; /* in the order in which they are given out */
	size_t id_count;
	int64_t given;
};

static void listing_release(struct listing *listing)
{
	free(listing->last_seqs);
	free(listing->ids);
}

static bool is_enough(const struct listing *listing)
{
	return listing->filter->max && listing->given >= listing->filter->max;
}

static enum evbus_code give(struct listing *listing, const struct evbus_letter *letter, struct evbus_err *err)
{
	if (!matches(listing->filter, letter))
		return EVBUS_OK;
	listing->given++;
	return listing->letter(listing->context, letter, err);
}

/* ---- from the store ---- */

static enum evbus_code give_row(struct listing *listing, const struct value *columns, size_t count, int64_t *id,
				struct evbus_err *err)
{
	const char *latest = listing->bound.updated_at;
	struct evbus_letter letter;
	struct letter_row row;

	TRY(letter_of(columns, count, &row, err));
	TRY(letter_of_store(&row, &letter, err));
	*id = row.id;
	/* Times of one form and length are in the order of their bytes. */
	if (row.updated_at.len != strlen(latest) || memcmp(row.updated_at.data, latest, row.updated_at.len) > 0)
		return EVBUS_OK;
	return give(listing, &letter, err);
}

static enum evbus_code give_page(struct listing *listing, const struct page *page, int64_t *last, struct evbus_err *err)
{
	for (size_t i = 0; i < page->count && !is_enough(listing); i++)
		TRY(give_row(listing, page->rows[i], page->columns, last, err));
	return EVBUS_OK;
}

static enum evbus_code list_store(struct listing *listing, struct evbus_err *err)
{
	CLEANUP(page_release) struct page page = { 0 };
	int state = listing->filter->state;
	int64_t last = 0;

	do {
		TRY(letters_page(listing->from.bus->store, state < 0 ? NULL : state_names[state], last,
				 listing->bound.id, &page, err));
		TRY(give_page(listing, &page, &last, err));
	} while (page.count && !is_enough(listing));
	return EVBUS_OK;
}

/* ---- from an outbox ---- */

struct outbox_listing {
	struct listing *listing;
	struct evbus_outbox *outbox;
	int64_t last_seq;
	bool over; /* there is nothing more to come */
};

/* A time that has not come yet is one of a clock that went back, and not of a change since. */
static bool is_new(const struct listing *listing, int64_t updated_us)
{
	return updated_us > listing->started_us && updated_us <= os_now_us();
}

#define OVER EVBUS_NO /* what ends a list whose rest is not wanted */

static enum evbus_code give_outbox_row(void *context, const struct evbus_outbox_row *row, struct evbus_err *err)
{
	CLEANUP(outbox_letter_release) struct outbox_letter letter = { 0 };
	struct outbox_listing *list = context;

	if (row->seq > list->last_seq || is_enough(list->listing)) {
		list->over = true;
		return OVER;
	}
	if (row->state != EVBUS_OUTBOX_FAILED)
		return EVBUS_OK;
	TRY(letter_of_outbox(list->listing->from.bus, list->outbox, row, &letter, err));
	return is_new(list->listing, letter.updated_us) ? EVBUS_OK : give(list->listing, &letter.letter, err);
}

static enum evbus_code list_outbox(struct listing *listing, size_t index, int64_t seq, struct evbus_err *err)
{
	struct outbox_listing list = { listing, listing->from.outboxes[index], listing->last_seqs[index], false };
	struct evbus_outbox_filter filter = { .state = EVBUS_OUTBOX_FAILED, .seq = seq };

	enum evbus_code code = evbus_outbox_list(list.outbox, &filter, give_outbox_row, &list, err);
	return code == OVER && list.over ? EVBUS_OK : code;
}

/* ---- by id ---- */

static int compare_ids(const void *a, const void *b)
{
	const struct letter_id *one = a, *other = b;

	if (one->source != other->source)
		return one->source < other->source ? -1 : 1;
	return (one->number > other->number) - (one->number < other->number);
}

static enum evbus_code ignore_row(void *context, const struct evbus_outbox_row *row, struct evbus_err *err)
{
	(void)context;
	(void)row;
	(void)err;
	return EVBUS_OK;
}

static enum evbus_code check_id(const struct listing *listing, struct letter_id id, struct evbus_err *err)
{
	bool there;

	if (id.source == SOURCE_STORE)
		TRY(letters_exist(listing->from.bus->store, id.number, &there, err));
	else
		TRY(outbox_row(listing->from.outboxes[id.source - 1], id.number, ignore_row, NULL, &there, err));
	return there ? EVBUS_OK : letter_none(&listing->from, id, err);
}

/* Sorted, each of them once, and all there. */
static enum evbus_code take_ids(struct listing *listing, struct evbus_err *err)
{
	const struct evbus_letter_filter *filter = listing->filter;
	size_t kept = 0;

	listing->ids = os.realloc(NULL, (filter->id_count + 1) * sizeof *listing->ids);
	if (!listing->ids)
		return err_set(err, EVBUS_IO, ENOMEM, "cannot look %zu dead letters up", filter->id_count);
	for (size_t i = 0; i < filter->id_count; i++)
		TRY(letter_id_parse(&listing->from, filter->ids[i], &listing->ids[i], err));
	qsort(listing->ids, filter->id_count, sizeof *listing->ids, compare_ids);
	for (size_t i = 0; i < filter->id_count; i++)
		if (!kept || compare_ids(&listing->ids[kept - 1], &listing->ids[i]))
			listing->ids[kept++] = listing->ids[i];
	listing->id_count = kept;
	for (size_t i = 0; i < kept; i++)
		TRY(check_id(listing, listing->ids[i], err));
	return EVBUS_OK;
}

static enum evbus_code list_id(struct listing *listing, struct letter_id id, struct evbus_err *err)
{
	CLEANUP(page_release) struct page page = { 0 };
	int64_t last;

	if (id.source != SOURCE_STORE)
		return list_outbox(listing, id.source - 1, id.number, err);
	TRY(letters_find(listing->from.bus->store, id.number, &page, err));
	return give_page(listing, &page, &last, err);
}

/* ---- all of it ---- */

static bool is_wanted(const struct listing *listing, size_t source)
{
	const struct evbus_letter_filter *filter = listing->filter;

	if (source == SOURCE_STORE)
		return !filter->outbox;
	return !filter->group &&
	       (!filter->outbox || !strcmp(filter->outbox, evbus_outbox_name(listing->from.outboxes[source - 1]))) &&
	       filter->state != EVBUS_LETTER_QUEUED && filter->state != EVBUS_LETTER_RETRIED;
}

static enum evbus_code check_filter(const struct listing *listing, struct evbus_err *err)
{
	const struct evbus_letter_filter *filter = listing->filter;
	bool known = !filter->outbox;

	for (size_t i = 0; i < listing->from.count && !known; i++)
		known = !strcmp(filter->outbox, evbus_outbox_name(listing->from.outboxes[i]));
	if (!known)
		return err_set(err, EVBUS_NONE, 0, "the outbox '%s' is not among those given: name it with --outbox",
			       filter->outbox);
	if (filter->state >= EVBUS_LETTER_STATES || filter->reason >= EVBUS_REASONS)
		return err_set(err, EVBUS_USAGE, 0, "there is no state %d or no reason %d of a dead letter",
			       filter->state, filter->reason);
	return filter->topic ? evbus_topic_check(filter->topic, true, err) : EVBUS_OK;
}

/* How far it goes, everywhere, before anything is given out. */
static enum evbus_code take_bounds(struct listing *listing, struct evbus_err *err)
{
	size_t count = listing->from.count;

	listing->started_us = os_now_us();
	TRY(letters_bound(listing->from.bus->store, &listing->bound, err));
	listing->last_seqs = os.realloc(NULL, (count + 1) * sizeof *listing->last_seqs);
	if (!listing->last_seqs)
		return err_set(err, EVBUS_IO, ENOMEM, "cannot list the dead letters of %zu outboxes", count);
	for (size_t i = 0; i < count; i++)
		TRY(evbus_outbox_last_seq(listing->from.outboxes[i], &listing->last_seqs[i], err));
	return listing->filter->ids ? take_ids(listing, err) : EVBUS_OK;
}

static enum evbus_code list_all(struct listing *listing, struct evbus_err *err)
{
	if (is_wanted(listing, SOURCE_STORE))
		TRY(list_store(listing, err));
	for (size_t i = 0; i < listing->from.count && !is_enough(listing); i++)
		if (is_wanted(listing, i + 1))
			TRY(list_outbox(listing, i, 0, err));
	return EVBUS_OK;
}

static enum evbus_code list_ids(struct listing *listing, struct evbus_err *err)
{
	for (size_t i = 0; i < listing->id_count && !is_enough(listing); i++)
		if (is_wanted(listing, listing->ids[i].source))
			TRY(list_id(listing, listing->ids[i], err));
	return EVBUS_OK;
}

enum evbus_code evbus_letter_list(struct evbus *bus, struct evbus_outbox *const *outboxes, size_t outbox_count,
				  const struct evbus_letter_filter *filter,
				  enum evbus_code (*letter)(void *context, const struct evbus_letter *letter,
							    struct evbus_err *err),
				  void *context, struct evbus_err *err)
{
	CLEANUP(listing_release)
	struct listing listing = {
		.from = { bus, outboxes, outbox_count }, .filter = filter, .letter = letter, .context = context
	};

	TRY(letter_sources_open(&listing.from, err));
	TRY(check_filter(&listing, err));
	TRY(take_bounds(&listing, err));
	return filter->ids ? list_ids(&listing, err) : list_all(&listing, err);
}

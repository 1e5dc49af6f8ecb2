/* kinesis_place.c: the places of a shard: their numbers, and beginning to read at one.
 *
 * The service says nothing to who asks for what is older than the stream keeps: he gets the oldest that is left. So reading
 * begins with the record before the place, the last one that was done, and where it does not come, and no older one is
 * there, it has expired. Whether others came behind it that have expired as well nobody can tell. */
#include "backend/kinesis.h"

#include <assert.h>
#include <errno.h>

#define LIMIT 1000u /* records at once */

static struct kinesis_reader *reading(const struct partition_reader *reader)
{
	return (struct kinesis_reader *)(uintptr_t)reader;
}

/* ---- positions ------------------------------------------------------------------------------------------------- */

/* Takes what the last answer has of those that are folded behind `first`. true: that was all of them. */
static bool take_folded(struct fetch *probe, const struct numbered *first, const struct numbered *next, bool *whole,
			struct buf *numbers, enum evbus_code *code, struct evbus_err *err)
{
	struct fetched fetched;

	while (*code == EVBUS_OK && fetch_next(probe, &fetched)) {
		int behind = number_compare(&fetched.sequence, &first->number);
		if (number_compare(&fetched.sequence, &next->number) >= 0)
			return true;
		*whole = *whole || behind == 0;
		if (behind > 0)
			*code = buf_add(numbers, &fetched.sequence, sizeof fetched.sequence, err);
		if (*whole && numbers->len == first->folded * sizeof fetched.sequence)
			return true;
	}
	return *code != EVBUS_OK;
}

/* Reads them. Where the first of them have expired it is known of the others which they are if nothing lies between them
 * and the next place. */
static enum evbus_code read_folded(const struct kinesis_reader *reader, const struct numbered *first,
				   const struct numbered *next, struct buf *numbers, struct evbus_err *err)
{
	CLEANUP(fetch_release)
	struct fetch probe = { .topic = reader->fetch.topic, .shard = reader->fetch.shard, .limit = LIMIT };
	enum evbus_code code = EVBUS_OK;
	bool whole = false, all = false;

	TRY(link_open(probe.topic->kinesis, &probe.link, err));
	TRY(fetch_begin(&probe, FROM_AT, &first->number, 0, err));
	while (!all && !probe.caught_up) {
		TRY(fetch_more(&probe, err));
		all = take_folded(&probe, first, next, &whole, numbers, &code, err);
	}
	if (!whole && !next->follows)
		numbers->len = 0;
	return code;
}

static enum evbus_code unfold(const struct kinesis_reader *reader, const struct number *number, struct evbus_err *err)
{
	struct kinesis_topic *topic = reader->fetch.topic;
	CLEANUP(buf_release) struct buf numbers = { 0 };
	struct numbered first, next, now;
	enum evbus_code code = EVBUS_OK;

	pthread_mutex_lock(&topic->mutex);
	bool folded = numbering_fold_of(reader->numbering, number, &first, &next);
	pthread_mutex_unlock(&topic->mutex);
	if (!folded)
		return EVBUS_OK;
	TRY(read_folded(reader, &first, &next, &numbers, err));
	size_t count = numbers.len / sizeof(struct number);
	pthread_mutex_lock(&topic->mutex);
	if (numbering_fold_of(reader->numbering, number, &now, &next) && now.folded == first.folded &&
	    count <= first.folded)
		code = numbering_unfold(reader->numbering, &first, (const struct number *)(void *)numbers.data, count,
					err);
	pthread_mutex_unlock(&topic->mutex);
	return code;
}

enum evbus_code kinesis_position(struct kinesis_reader *reader, const struct number *number, enum number_kind kind,
				 uint64_t *position, struct evbus_err *err)
{
	struct kinesis_topic *topic = reader->fetch.topic;

	for (;;) {
		pthread_mutex_lock(&topic->mutex);
		enum evbus_code code = numbering_find(reader->numbering, number, kind, position, err);
		pthread_mutex_unlock(&topic->mutex);
		if (code != EVBUS_AGAIN)
			return code;
		TRY(unfold(reader, number, err));
	}
}

/* The last place that is not behind a position. */
static enum evbus_code place_at(const struct kinesis_reader *reader, uint64_t position, struct numbered *place,
				struct evbus_err *err)
{
	struct kinesis_topic *topic = reader->fetch.topic;
	bool folded = false;

	do {
		if (folded)
			TRY(unfold(reader, &place->number, err));
		pthread_mutex_lock(&topic->mutex);
		const struct numbered *found = numbering_at(reader->numbering, position, &folded);
		if (found)
			*place = *found;
		pthread_mutex_unlock(&topic->mutex);
		assert(found);
	} while (folded);
	return EVBUS_OK;
}

enum evbus_code kinesis_offset_text(const struct partition_reader *base, uint64_t position,
				    char text[EVBUS_OFFSET_MAX_BYTES + 1], struct evbus_err *err)
{
	const struct kinesis_reader *reader = reading(base);
	struct numbered place = { .position = position, .number = reader->held.sequence };

	if (!reader->holds || reader->held_at != position)
		TRY(place_at(reader, position, &place, err));
	number_add(&place.number, position - place.position);
	number_format(&place.number, text);
	return EVBUS_OK;
}

enum evbus_code kinesis_offset_find(struct partition_reader *base, struct evbus_slice text, uint64_t *position,
				    struct evbus_err *err)
{
	struct number number;

	if (!number_parse(text, &number))
		return err_set(err, EVBUS_DATA, 0, "'%.*s' is not a sequence number", (int)text.len, text.data);
	TRY(kinesis_position(reading(base), &number, NUMBER_ASKED, position, err));
	/* Where nothing is left, it may have ended anywhere. */
	if (!reading(base)->last_us && !base->closed && *position > base->end)
		base->end = *position;
	return EVBUS_OK;
}

enum evbus_code kinesis_numbering(struct kinesis_reader *reader, struct evbus_err *err)
{
	struct kinesis_topic *topic = reader->fetch.topic;
	int32_t shard = reader->base.partition;
	enum evbus_code code = EVBUS_OK;

	pthread_mutex_lock(&topic->mutex);
	struct numbering *found = topic->numberings;
	while (found && found->shard != shard)
		found = found->following;
	if (!found) {
		found = os.realloc(NULL, sizeof *found);
		if (found) {
			*found = (struct numbering){ .following = topic->numberings, .shard = shard };
			topic->numberings = found;
		} else
			code = err_set(err, EVBUS_IO, ENOMEM, "cannot read topic '%s'", topic->base.name);
	}
	pthread_mutex_unlock(&topic->mutex);
	reader->numbering = found;
	return code;
}

/* ---- where reading begins -------------------------------------------------------------------------------------- */

/* What was asked for may be the number of a record, or come right behind one. */
static enum evbus_code begin_before(struct kinesis_reader *reader, struct evbus_err *err)
{
	struct number before = reader->expected;

	number_before(&before);
	enum evbus_code code = fetch_begin(&reader->fetch, FROM_AT, &before, 0, err);
	return code == EVBUS_DATA ? fetch_begin(&reader->fetch, FROM_AT, &reader->expected, 0, err) : code;
}

enum evbus_code kinesis_begin(struct kinesis_reader *reader, struct evbus_err *err)
{
	struct fetch *fetch = &reader->fetch;
	struct numbered place = { 0 };

	TRY(place_at(reader, reader->base.next, &place, err));
	reader->holds = reader->jumped = false;
	reader->held_at = 0;
	reader->expected = place.number;
	if (!place.is_record)
		number_add(&reader->expected, reader->base.next - place.position);
	reader->unsure = number_compare(&place.number, &fetch->shard.begins) > 0;
	reader->begun = true;
	if (!reader->unsure)
		return fetch_begin(fetch, FROM_FIRST, NULL, 0, err);
	return place.is_record ? fetch_begin(fetch, FROM_AT, &place.number, 0, err) : begin_before(reader, err);
}

/* *any false: nothing is left. */
static enum evbus_code find_oldest(const struct kinesis_reader *reader, struct number *oldest, bool *any,
				   struct evbus_err *err)
{
	CLEANUP(fetch_release)
	struct fetch probe = { .topic = reader->fetch.topic, .shard = reader->fetch.shard, .limit = 1 };
	struct fetched fetched;

	TRY(link_open(probe.topic->kinesis, &probe.link, err));
	TRY(fetch_begin(&probe, FROM_FIRST, NULL, 0, err));
	do {
		TRY(fetch_more(&probe, err));
		*any = fetch_next(&probe, &fetched);
	} while (!*any && !probe.caught_up);
	if (*any)
		*oldest = fetched.sequence;
	return EVBUS_OK;
}

static void tell(const struct kinesis_reader *reader, const char *text)
{
	const struct kinesis *kinesis = reader->fetch.topic->kinesis;

	if (kinesis->notice)
		kinesis->notice(kinesis->notice_context, text);
}

static enum evbus_code has_expired(struct kinesis_reader *reader, const struct number *oldest, struct evbus_err *err)
{
	char expected[EVBUS_OFFSET_MAX_BYTES + 1], first[EVBUS_OFFSET_MAX_BYTES + 1];
	struct evbus_err why;

	TRY(kinesis_position(reader, oldest, NUMBER_MET, &reader->base.first, err));
	number_format(&reader->expected, expected);
	number_format(oldest, first);
	enum evbus_code code =
		err_set(&why, EVBUS_NONE, 0,
			"what stood before offset %s of topic '%s', partition %d has expired, and what came behind it "
			"may have: "
			"the oldest that the stream keeps is %s%s",
			expected, reader->base.topic->name, reader->base.partition, first,
			reader->fetch.topic->kinesis->pass_expired ? "" : " (go on there with -X expired=pass)");
	if (!reader->fetch.topic->kinesis->pass_expired) {
		reader->begun = reader->holds = false;
		if (err)
			*err = why;
		return code;
	}
	tell(reader, why.text);
	return EVBUS_OK;
}

enum evbus_code kinesis_check_begun(struct kinesis_reader *reader, const struct fetched *first, struct evbus_err *err)
{
	struct number oldest;
	struct evbus_err why;
	bool any = false;

	reader->unsure = false;
	if (first && number_compare(&first->sequence, &reader->expected) <= 0)
		return EVBUS_OK;
	TRY(find_oldest(reader, &oldest, &any, err));
	if (any && number_compare(&oldest, &reader->expected) < 0)
		return EVBUS_OK;
	if (any)
		return has_expired(reader, &oldest, err);
	(void)!err_set(
		&why, EVBUS_NONE, 0,
		"all that stood in topic '%s', partition %d has expired; if anything came behind what was read, it "
		"is lost",
		reader->base.topic->name, reader->base.partition);
	tell(reader, why.text);
	return EVBUS_OK;
}

/* kinesis_number.c: sequence numbers, and the positions that stand for them.
 *
 * A position is handed out when a number is met or asked for, and lies between those of its neighbours: a STEP behind the
 * one before, which is the last that was read, or a JUMP, where much may stand between the two. A number that is little
 * more than a known one has the position that is so much more: behind a record at 7 comes 8, whatever stands there.
 *
 * Of records that were read one behind the other the first can stand for all of them: they lie a STEP apart, and reading
 * them again tells their numbers. So what is known of a shard is folded as it grows, and little of it is kept. */
#include "backend/kinesis.h"

#include <assert.h>
#include <errno.h>

#define DIGITS_AT_ONCE 9u
#define BILLION 1000000000u
#define STEP 64u /* between records that follow each other */
#define JUMP ((uint64_t)1 << 38)
#define ORIGIN ((uint64_t)1 << 61) /* of the first: before it there is as much room as there ever will be */
#define PARTS 1024u /* of the room between two that are known */
#define PLACES_MAX 4096u /* 300 KB for each shard; then all is folded but */
#define PLACES_NEW 1024u /* the newest */

/* ---- numbers --------------------------------------------------------------------------------------------------- */

static void multiply_add(struct number *number, uint32_t factor, uint32_t more)
{
	uint64_t carry = more;

	for (size_t i = 0; i < NUMBER_WORDS; i++) {
		carry += (uint64_t)number->words[i] * factor;
		number->words[i] = (uint32_t)carry;
		carry >>= 32;
	}
}

bool number_parse(struct evbus_slice text, struct number *number)
{
	*number = (struct number){ { 0 } };
	if (!text.len || text.len > EVBUS_OFFSET_MAX_BYTES)
		return false;
	for (size_t i = 0; i < text.len; i++) {
		if (text.data[i] < '0' || text.data[i] > '9')
			return false;
		multiply_add(number, 10, (uint32_t)(text.data[i] - '0'));
	}
	return true;
}

/* Returns the rest. */
static uint32_t divide(struct number *number, uint32_t by)
{
	uint64_t rest = 0;

	for (size_t i = NUMBER_WORDS; i-- > 0;) {
		rest = rest << 32 | number->words[i];
		number->words[i] = (uint32_t)(rest / by);
		rest %= by;
	}
	return (uint32_t)rest;
}

void number_format(const struct number *number, char text[EVBUS_OFFSET_MAX_BYTES + 1])
{
	char digits[(NUMBER_WORDS + 2) * DIGITS_AT_ONCE];
	struct number left = *number;
	size_t at = sizeof digits;

	for (size_t i = 0; i < EVBUS_OFFSET_MAX_BYTES / DIGITS_AT_ONCE + 1; i++) {
		uint32_t part = divide(&left, BILLION);
		for (size_t digit = 0; digit < DIGITS_AT_ONCE; digit++, part /= 10)
			digits[--at] = (char)('0' + part % 10);
	}
	while (at < sizeof digits - 1 && digits[at] == '0')
		at++;
	size_t len = sizeof digits - at;
	len = len < EVBUS_OFFSET_MAX_BYTES ? len : EVBUS_OFFSET_MAX_BYTES;
	memcpy(text, digits + at, len);
	text[len] = '\0';
}

int number_compare(const struct number *a, const struct number *b)
{
	for (size_t i = NUMBER_WORDS; i-- > 0;)
		if (a->words[i] != b->words[i])
			return a->words[i] < b->words[i] ? -1 : 1;
	return 0;
}

void number_add(struct number *number, uint64_t more)
{
	for (size_t i = 0; i < NUMBER_WORDS && more; i++) {
		uint64_t sum = (more & UINT32_MAX) + number->words[i];
		number->words[i] = (uint32_t)sum;
		more = (more >> 32) + (sum >> 32);
	}
}

void number_before(struct number *number)
{
	for (size_t i = 0; i < NUMBER_WORDS && number->words[i]-- == 0; i++)
		continue;
}

uint64_t number_minus(const struct number *a, const struct number *b)
{
	uint64_t low = 0, borrow = 0;

	for (size_t i = 0; i < NUMBER_WORDS; i++) {
		uint64_t word = (uint64_t)a->words[i] - b->words[i] - borrow;
		borrow = word >> 63;
		word &= UINT32_MAX;
		if (i < 2)
			low |= word << 32 * i;
		else if (word)
			return UINT64_MAX;
	}
	return low;
}

/* ---- positions ------------------------------------------------------------------------------------------------- */

static struct numbered *places_of(const struct numbering *numbering)
{
	return (struct numbered *)(void *)numbering->places.data;
}

static size_t count_of(const struct numbering *numbering)
{
	return numbering->places.len / sizeof(struct numbered);
}

/* How many have no greater number. */
static size_t search(const struct numbering *numbering, const struct number *number)
{
	const struct numbered *places = places_of(numbering);
	size_t low = 0, high = count_of(numbering);

	/* Mostly it comes behind all of them. */
	if (high && number_compare(&places[high - 1].number, number) <= 0)
		return high;
	while (low < high) {
		size_t middle = low + (high - low) / 2;
		if (number_compare(&places[middle].number, number) <= 0)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

/* The position of the last record that stands for. */
static uint64_t end_of(const struct numbered *place)
{
	return place->position + (uint64_t)place->folded * STEP;
}

const struct numbered *numbering_at(const struct numbering *numbering, uint64_t position, bool *folded)
{
	const struct numbered *places = places_of(numbering);
	size_t low = 0, high = count_of(numbering);

	while (low < high) {
		size_t middle = low + (high - low) / 2;
		if (places[middle].position <= position)
			low = middle + 1;
		else
			high = middle;
	}
	*folded = low && places[low - 1].folded && position - places[low - 1].position >= STEP;
	return low ? &places[low - 1] : NULL;
}

/* ---- folding --------------------------------------------------------------------------------------------------- */

static bool can_fold(const struct numbered *first, const struct numbered *next)
{
	return first->is_record && next->follows && !next->folded && first->folded < NUMBERING_FOLDED_MAX &&
	       next->position == end_of(first) + STEP;
}

static void fold(struct numbering *numbering)
{
	struct numbered *places = places_of(numbering);
	size_t count = count_of(numbering), kept = 0;

	if (count < PLACES_MAX || count < numbering->fold_at)
		return;
	for (size_t i = 0; i < count; i++)
		if (kept && i < count - PLACES_NEW && can_fold(&places[kept - 1], &places[i]))
			places[kept - 1].folded++;
		else
			places[kept++] = places[i];
	numbering->places.len = kept * sizeof *places;
	numbering->fold_at = 2 * kept;
}

bool numbering_fold_of(const struct numbering *numbering, const struct number *number, struct numbered *first,
		       struct numbered *next)
{
	size_t before = search(numbering, number);

	if (!before || !places_of(numbering)[before - 1].folded)
		return false;
	/* The newest are never folded. */
	assert(before < count_of(numbering));
	*first = places_of(numbering)[before - 1];
	*next = places_of(numbering)[before];
	return true;
}

enum evbus_code numbering_unfold(struct numbering *numbering, const struct numbered *first,
				 const struct number *numbers, size_t count, struct evbus_err *err)
{
	uint64_t position = first->position + (first->folded - count + 1) * (uint64_t)STEP;

	fold(numbering);
	size_t at = search(numbering, &first->number);
	TRY(buf_reserve(&numbering->places, count * sizeof *first, err));
	struct numbered *places = places_of(numbering);
	memmove(places + at + count, places + at, (count_of(numbering) - at) * sizeof *places);
	for (size_t i = 0; i < count; i++, position += STEP)
		places[at + i] = (struct numbered){ position, 0, true, true, numbers[i] };
	numbering->places.len += count * sizeof *places;
	places[at - 1].folded = 0;
	return EVBUS_OK;
}

/* ---- a place --------------------------------------------------------------------------------------------------- */

/* Between its neighbours: `before` of them have lower numbers. 0: there is no room. */
static uint64_t choose(const struct numbering *numbering, size_t before, bool jumps)
{
	const struct numbered *places = places_of(numbering);
	size_t count = count_of(numbering);

	if (!count)
		return ORIGIN;
	uint64_t low = before ? end_of(&places[before - 1]) : 0;
	if (before == count)
		return low < UINT64_MAX / 2 - JUMP ? low + (jumps ? JUMP : STEP) : 0;
	uint64_t room = places[before].position - low, step = room / PARTS;
	if (!before || jumps)
		return room > 1 ? low + room / 2 : 0;
	step = step < 2 ? 2 : step;
	step = step < STEP ? step : STEP;
	return step < room ? low + step : 0;
}

static enum evbus_code insert(struct numbering *numbering, size_t before, const struct numbered *place,
			      struct evbus_err *err)
{
	TRY(buf_reserve(&numbering->places, sizeof *place, err));
	struct numbered *places = places_of(numbering);
	memmove(places + before + 1, places + before, (count_of(numbering) - before) * sizeof *places);
	places[before] = *place;
	numbering->places.len += sizeof *place;
	return EVBUS_OK;
}

/* EVBUS_AGAIN: one that is folded may be it, and nobody knows which. */
static enum evbus_code find_folded(const struct numbered *place, enum number_kind kind, uint64_t *position, bool *found)
{
	uint64_t behind = *position;

	*found = false;
	if (kind != NUMBER_READ || behind < place->position || behind > end_of(place))
		return EVBUS_AGAIN;
	*found = behind < end_of(place);
	if (*found)
		*position = behind + STEP;
	return EVBUS_OK;
}

enum evbus_code numbering_find(struct numbering *numbering, const struct number *number, enum number_kind kind,
			       uint64_t *position, struct evbus_err *err)
{
	size_t before = search(numbering, number);
	struct numbered *places = places_of(numbering);
	uint64_t limit = before < count_of(numbering) ? places[before].position : UINT64_MAX;
	uint64_t more = before ? number_minus(number, &places[before - 1].number) : UINT64_MAX;
	struct numbered made = { .is_record = kind != NUMBER_ASKED, .number = *number };
	bool folded = before && more && places[before - 1].folded, found = false;

	if (!more) {
		*position = places[before - 1].position;
		places[before - 1].is_record = places[before - 1].is_record || made.is_record;
		return EVBUS_OK;
	}
	if (folded)
		TRY(find_folded(&places[before - 1], kind, position, &found));
	if (found)
		return EVBUS_OK;
	if (!folded && more < STEP && places[before - 1].position + more < limit)
		made.position = places[before - 1].position + more;
	else
		made.position = choose(numbering, before, kind != NUMBER_READ);
	if (!made.position)
		return err_set(
			err, EVBUS_IO, 0,
			"so many places of the stream were looked at that they cannot be told from each other any "
			"more: open the bus anew");
	made.follows = kind == NUMBER_READ && before && made.position == end_of(&places[before - 1]) + STEP;
	*position = made.position;
	TRY(insert(numbering, before, &made, err));
	fold(numbering);
	return EVBUS_OK;
}

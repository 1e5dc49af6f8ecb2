/* id_set.c: event ids that stand twice, by sorting hashes in passes. */
#include "id_set.h"

#include "base/os.h"

#include <errno.h>

enum evbus_code id_set_init(struct id_set *set, size_t size, struct evbus_err *err)
{
	set->places = os.realloc(NULL, size * sizeof *set->places);
	set->size = size;
	set->count = 0;
	set->shift = 0;
	set->pass = 0;
	return set->places ? EVBUS_OK : err_set(err, EVBUS_IO, ENOMEM, "cannot look for event ids that stand twice");
}

void id_set_release(struct id_set *set)
{
	free(set->places);
	set->places = NULL;
}

static int by_hash_and_place(const void *a, const void *b)
{
	const struct id_place *x = a, *y = b;

	if (x->hash != y->hash)
		return x->hash < y->hash ? -1 : 1;
	if (x->partition != y->partition)
		return x->partition < y->partition ? -1 : 1;
	return x->offset < y->offset ? -1 : x->offset > y->offset;
}

/* Tells what stands twice, and keeps one place of each. */
static enum evbus_code settle(struct id_set *set, struct evbus_err *err)
{
	size_t kept = 0;

	if (set->count == 0)
		return EVBUS_OK;
	qsort(set->places, set->count, sizeof *set->places, by_hash_and_place);
	for (size_t i = 1; i < set->count; i++) {
		if (set->places[i].hash == set->places[kept].hash)
			TRY(set->twice(set, &set->places[kept], &set->places[i], err));
		else
			set->places[++kept] = set->places[i];
	}
	set->count = kept + 1;
	return EVBUS_OK;
}

static bool is_of_pass(const struct id_set *set, uint64_t hash)
{
	return set->shift == 0 || hash >> (64 - set->shift) == set->pass;
}

static void halve(struct id_set *set)
{
	size_t kept = 0;

	set->shift++;
	set->pass *= 2;
	for (size_t i = 0; i < set->count; i++)
		if (is_of_pass(set, set->places[i].hash))
			set->places[kept++] = set->places[i];
	set->count = kept;
}

enum evbus_code id_set_add(struct id_set *set, const struct id_place *place, struct evbus_err *err)
{
	if (!is_of_pass(set, place->hash))
		return EVBUS_OK;
	if (set->count == set->size) {
		TRY(settle(set, err));
		while (set->count > set->size / 2)
			halve(set);
		if (!is_of_pass(set, place->hash))
			return EVBUS_OK;
	}
	set->places[set->count++] = *place;
	return EVBUS_OK;
}

enum evbus_code id_set_finish(struct id_set *set, bool *again, struct evbus_err *err)
{
	TRY(settle(set, err));
	set->count = 0;
	set->pass++;
	*again = set->shift && set->pass < (uint64_t)1 << set->shift;
	return EVBUS_OK;
}

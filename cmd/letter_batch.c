/* letter_batch.c: changing many letters in few transactions, and printing what came of each. */
#include "letter_batch.h"

#include <stdlib.h>
#include <string.h>

static void copy(struct evbus_slice *slice, char **to)
{
	if (!slice->data)
		return;
	memcpy(*to, slice->data, slice->len);
	slice->data = *to;
	*to += slice->len;
}

enum evbus_code batch_add(struct batch *batch, const struct evbus_letter *letter, bool to_change,
			  struct evbus_slice result)
{
	struct batch_row *row = &batch->rows[batch->count];

	*row = (struct batch_row){ .letter = *letter, .result = result, .to_change = to_change };
	row->memory = malloc(letter->group.len + letter->topic.len + letter->offset.len + letter->event_id.len +
			     result.len + 1);
	if (!row->memory)
		return fail(batch->letters->call, EVBUS_IO, "cannot keep letters that are to be changed: out of memory");
	char *to = row->memory;
	copy(&row->letter.group, &to);
	copy(&row->letter.topic, &to);
	copy(&row->letter.offset, &to);
	copy(&row->letter.event_id, &to);
	copy(&row->result, &to);
	batch->count++;
	return batch->count == BATCH_MAX ? batch_flush(batch) : EVBUS_OK;
}

static enum evbus_code change_rows(struct batch *batch, enum evbus_code codes[BATCH_MAX])
{
	const char *ids[BATCH_MAX];
	size_t n = 0;

	for (size_t i = 0; i < batch->count; i++)
		if (batch->rows[i].to_change)
			ids[n++] = batch->rows[i].letter.id;
	if (!batch->dry_run && n)
		return letters_change_all(batch->letters, ids, n, batch->change, codes);
	memset(codes, 0, n * sizeof *codes);
	return EVBUS_OK;
}

static void print(struct batch *batch, const struct batch_row *row, enum evbus_code code)
{
	const struct evbus_letter *letter = &row->letter;
	bool changed = row->to_change && !code;

	if (code)
		talk(batch->letters->call, WARNING, "the letter '%s' is left alone: somebody else changed it just now",
		     letter->id);
	batch->refused += code != EVBUS_OK;
	batch->changed += changed;
	change_row(batch->table, &(struct change){ .letter = letter, .after = changed ? batch->after : letter->state,
						   .returns = letter->returns, .result = row->result });
}

enum evbus_code batch_flush(struct batch *batch)
{
	enum evbus_code codes[BATCH_MAX], code = change_rows(batch, codes);
	size_t n = 0;

	for (size_t i = 0; i < batch->count && !code; i++)
		print(batch, &batch->rows[i], batch->rows[i].to_change ? codes[n++] : EVBUS_OK);
	batch_release(batch);
	return code;
}

void batch_release(struct batch *batch)
{
	for (size_t i = 0; i < batch->count; i++)
		free(batch->rows[i].memory);
	batch->count = 0;
}

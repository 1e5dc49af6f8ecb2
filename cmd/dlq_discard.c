/* dlq_discard.c: evbus dlq-discard
 *
 * Nothing is removed: a letter that was discarded is kept with who did it and when, until `sweep`. */
#include "letter_batch.h"

struct args {
	struct common common;
	struct letter_args letters;
	struct source_args sources;
	const char *ids_from;
	const char *format;
	bool all;
	bool undo;
	bool dry_run;
};

COMMAND(dlq_discard,
	.summary = "put dead letters aside, and keep them",
	.takes = "[ID...]",
	.must_print = true,
	.opts = OPTS(LETTER_OPTS,
		IDS_FROM_OPT,
		OPT(0, all, "", "all of them, where nothing else says which"),
		OPT(0, undo, "", "what was discarded, or queued, is a dead letter again"),
		OPT(0, dry_run, "", "change nothing, print the same"),
		LIST_FORMAT_OPT, SOURCE_OPTS, COMMON_OPTS),
	.statuses = STATUSES(
		{ EVBUS_NO, "some are in a state in which that cannot be done" },
		{ EVBUS_DATA, "a line of the file has no id" },
		{ EVBUS_NONE, "there is no letter with an id that was given" }),
	.examples = EXAMPLES(
		{ "echo '{\"id\":\"1\"}' | evbus publish -q -t orders; evbus dlq-discard -q -t orders --format tsv",
		  "" }));

struct discarding {
	struct letters letters;
	struct table table;
	struct batch batch;
	size_t refused;
};

static void discarding_release(struct discarding *discard)
{
	batch_release(&discard->batch);
	letters_close(&discard->letters);
	table_cleanup(&discard->table);
}

/* Those that it is done to where nothing names them. */
static unsigned states_of(const struct args *args)
{
	return args->undo ? STATE_BIT(EVBUS_LETTER_DISCARDED) :
			    STATE_BIT(EVBUS_LETTER_DEAD) | STATE_BIT(EVBUS_LETTER_QUEUED);
}

/* What is done already need not be. */
static enum evbus_code discard_one(void *context, const struct evbus_letter *letter, struct evbus_err *err)
{
	struct discarding *discard = context;
	bool retried = letter->state == EVBUS_LETTER_RETRIED;

	(void)err;
	if (retried)
		talk(discard->letters.call, WARNING, "the letter '%s' is left alone: it was retried", letter->id);
	discard->refused += retried;
	return batch_add(&discard->batch, letter, !retried && letter->state != discard->batch.after,
			 (struct evbus_slice){ NULL, 0 });
}

static enum evbus_code discard_all(struct discarding *discard, const struct args *args)
{
	struct letters *letters = &discard->letters;
	unsigned states = states_of(args);

	TRY(letters_check_choice(letters, states, args->all));
	TRY(letters_each(letters, letters->by_id ? ANY_STATE : states, discard_one, discard));
	return batch_flush(&discard->batch);
}

static enum evbus_code dlq_discard_run(struct args *args, struct call *call)
{
	CLEANUP(discarding_release) struct discarding discard = { .refused = 0 };

	discard.batch = (struct batch){
		.letters = &discard.letters,
		.table = &discard.table,
		.change = args->undo ? EVBUS_LETTER_UNDO : EVBUS_LETTER_DISCARD,
		.after = args->undo ? EVBUS_LETTER_DEAD : EVBUS_LETTER_DISCARDED,
		.dry_run = args->dry_run,
	};
	change_table(&discard.table, args->format);
	TRY(letters_open(&discard.letters, call, &args->letters, &args->sources, args->ids_from));
	enum evbus_code code = discard_all(&discard, args);
	return changes_end(&discard.letters, &discard.table, code, discard.refused + discard.batch.refused,
			   args->dry_run);
}

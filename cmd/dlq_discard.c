/* dlq_discard.c: evbus dlq-discard
 *
 * Nothing is removed: a letter that was discarded is kept with who did it and when, until `sweep`. */
#include "letters.h"

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
		OPT(0, all, NULL, "all of them, where nothing else says which"),
		OPT(0, undo, NULL, "what was discarded, or queued, is a dead letter again"),
		OPT(0, dry_run, NULL, "change nothing, print the same"),
		LIST_FORMAT_OPT, SOURCE_OPTS, COMMON_OPTS),
	.statuses = STATUSES(
		{ EVBUS_NO, "some are in a state in which that cannot be done" },
		{ EVBUS_DATA, "a line of the file has no id" },
		{ EVBUS_NONE, "there is no letter with an id that was given" }),
	.examples = EXAMPLES(
		{ "echo '{\"id\":\"1\"}' | evbus publish -q -t orders; evbus dlq-discard -q -t orders --format tsv",
		  "" }));

struct discarding {
	const struct args *args;
	struct letters letters;
	struct table table;
	size_t refused;
};

static void discarding_release(struct discarding *discard)
{
	letters_close(&discard->letters);
	table_cleanup(&discard->table);
}

/* Those that it is done to where nothing names them. */
static unsigned states_of(const struct args *args)
{
	return args->undo ? STATE_BIT(EVBUS_LETTER_DISCARDED) :
			    STATE_BIT(EVBUS_LETTER_DEAD) | STATE_BIT(EVBUS_LETTER_QUEUED);
}

static void refuse(struct discarding *discard, const struct evbus_letter *letter, const char *why)
{
	talk(discard->letters.call, WARNING, "the letter '%s' is left alone: %s", letter->id, why);
	discard->refused++;
}

/* What is done already need not be. */
static enum evbus_code change_one(struct discarding *discard, struct change *change)
{
	const struct args *args = discard->args;
	const struct evbus_letter *letter = change->letter;
	enum evbus_letter_state wanted = args->undo ? EVBUS_LETTER_DEAD : EVBUS_LETTER_DISCARDED;
	enum evbus_code code = EVBUS_OK;

	if (letter->state == EVBUS_LETTER_RETRIED)
		refuse(discard, letter, "it was retried");
	if (letter->state == wanted || letter->state == EVBUS_LETTER_RETRIED)
		return EVBUS_OK;
	if (!args->dry_run)
		code = letters_change(&discard->letters, letter->id,
				      args->undo ? EVBUS_LETTER_UNDO : EVBUS_LETTER_DISCARD, EVBUS_REASON_REFUSED,
				      (struct evbus_slice){ NULL, 0 });
	if (!code)
		change->after = wanted;
	if (code != EVBUS_CONFLICT && code != EVBUS_NONE)
		return code;
	refuse(discard, letter, discard->letters.call->err.text); /* somebody else was first */
	return EVBUS_OK;
}

static enum evbus_code discard_one(void *context, const struct evbus_letter *letter, struct evbus_err *err)
{
	struct discarding *discard = context;
	struct change change = { .letter = letter, .after = letter->state, .returns = letter->returns };

	(void)err;
	TRY(change_one(discard, &change));
	change_row(&discard->table, &change);
	return EVBUS_OK;
}

static enum evbus_code dlq_discard_run(struct args *args, struct call *call)
{
	CLEANUP(discarding_release) struct discarding discard = { .args = args };
	struct letters *letters = &discard.letters;
	unsigned states = states_of(args);

	change_table(&discard.table, args->format);
	TRY(letters_open(letters, call, &args->letters, &args->sources, args->ids_from));
	TRY(letters_check_choice(letters, states, args->all));
	enum evbus_code code = letters_each(letters, letters->by_id ? ANY_STATE : states, discard_one, &discard);
	return changes_end(letters, &discard.table, code, discard.refused, args->dry_run);
}

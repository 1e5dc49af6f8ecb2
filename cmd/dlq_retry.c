/* dlq_retry.c: evbus dlq-retry
 *
 * The set is fixed when it begins, but a letter is looked at once more right before it is tried, under the claim of its
 * group: a run over a thousand of them takes its time, and meanwhile somebody may have discarded one, or have retried
 * it. What was tried is recorded before the next begins; a kill between the two tries that one letter again. */
#include "letter_batch.h"
#include "letter_claims.h"
#include "handler.h"
#include "pace.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define RECEIPT_BYTES 512u
#define ORIGIN_BYTES (EVBUS_TOPIC_MAX_BYTES + 64u)

struct args {
	struct common common;
	struct letter_args letters;
	struct source_args sources;
	const char *ids_from;
	const char *format;
	int64_t max, max_returns;
	struct rate rate;
	struct duration handler_timeout;
	bool all;
	bool republish;
	bool dry_run;
};

COMMAND(dlq_retry,
	.summary = "try dead letters again: by their group, by a command, or by publishing them once more",
	.takes = "[ID...] [-- COMMAND [ARG...]]",
	.must_print = true,
	.opts = OPTS(LETTER_OPTS,
		IDS_FROM_OPT,
		OPT(0, all, "", "all of them, where nothing else says which"),
		OPT(0, max, "N", "try so many at most", .unset = -1),
		OPT(0, max_returns, "N", "leave alone what came back more often than this", .preset = "5"),
		OPT(0, rate, "RATE", "at most so many a second, evenly: 100, 100/s, 30/m, 1000/h"),
		OPT(0, republish, "", "append them to their topics once more"),
		OPT(0, handler_timeout, "DURATION", "kill the command after this time; the letter has failed then",
		    .unset = -1),
		OPT(0, dry_run, "", "change nothing, print the same"),
		LIST_FORMAT_OPT, SOURCE_OPTS, COMMON_OPTS),
	.statuses = STATUSES(
		{ EVBUS_NO, "some failed again, or were left alone" },
		{ EVBUS_DATA, "a line of the file has no id" },
		{ EVBUS_NONE, "there is no letter with an id that was given" },
		{ EVBUS_AGAIN, "another process tries letters of the group" },
		{ EVBUS_CONFIG, "the command cannot be run, or ended with 64, 78, 126 or 127; or a bad configuration, "
				"variable or URL" }),
	.examples = EXAMPLES(
		{ "echo '{\"id\":\"1\"}' | evbus publish -q -t orders; evbus dlq-retry -q -t orders --format tsv", "" },
		{ "evbus dlq-retry -q -g billing --reason timeout --rate 10 --format tsv -- true", "" }));

struct retrying {
	const struct args *args;
	struct call *call;
	struct letters letters;
	struct table table;
	struct pace pace;
	struct claims claims;
	struct handler *handler;     /* of one group, as that is in its environment */
	const char *handler_group;   /* NULL: of none, or of outboxes */
	struct evbus_publisher *publisher;
	bool queues;                 /* nothing is tried here */
	struct {
		char topic[EVBUS_TOPIC_MAX_BYTES + 1];
		int32_t partition_id;
		bool gone;
		bool unknown;        /* nobody answers: it is not asked again */
	} looked;                    /* at what the letter before is of */
	struct batch batch;          /* where it queues, or does nothing */
	int64_t tried;
	size_t succeeded, failed, returned, refused;
};

static void retrying_release(struct retrying *retry)
{
	batch_release(&retry->batch);
	handler_cleanup(&retry->handler);
	evbus_publisher_close(retry->publisher);
	claims_release(&retry->claims);
	table_cleanup(&retry->table);
	letters_close(&retry->letters);
}

/* ---- by a command ---------------------------------------------------------------------------------------------- */

static enum evbus_code open_handler(struct retrying *retry, const char *group)
{
	const struct handler_options options = { .argv = retry->call->argv, .group = group,
						 .timeout_ms = retry->args->handler_timeout.ms };

	if (retry->handler && retry->handler_group == group)
		return EVBUS_OK;
	handler_cleanup(&retry->handler);
	retry->handler = NULL;
	retry->handler_group = group;
	return handler_open(retry->call, &options, &retry->handler);
}

static void free_text(char **text)
{
	free(*text);
}

static enum evbus_code run_command(struct retrying *retry, const struct evbus_letter *letter, struct outcome *outcome)
{
	CLEANUP(free_text) char *key = NULL;
	CLEANUP(free_text) char *tenant = NULL;
	char kind[64];
	struct evbus_record record = { .topic = letter->topic, .partition_id = letter->partition_id,
				       .offset = letter->offset, .published_at_utc = letter->published_at_utc,
				       .payload = letter->payload };
	int64_t attempt = letter->attempts < UINT32_MAX ? letter->attempts + 1 : UINT32_MAX;
	const struct job job = { .record = &record, .attempt = (uint32_t)attempt };

	snprintf(kind, sizeof kind, "%.*s", (int)letter->offset_kind.len, letter->offset_kind.data);
	record.offset_kind = letter->offset_kind.data ? kind : NULL;
	TRY(letters_quote(retry->call, letter->partition_key, &key, &record.partition_key));
	TRY(letters_quote(retry->call, letter->tenant_id, &tenant, &record.tenant_id));
	TRY(out_flush(retry->call)); /* its stdout is ours */
	return handler_run(retry->handler, &job, outcome);
}

/* ---- by publishing it once more -------------------------------------------------------------------------------- */

static enum evbus_code publish(struct retrying *retry, const struct evbus_letter *letter, char text[RECEIPT_BYTES])
{
	char topic[EVBUS_TOPIC_MAX_BYTES + 1], origin[ORIGIN_BYTES];
	struct evbus_err *err = &retry->call->err;
	struct evbus *bus = retry->letters.sources.bus;
	struct evbus_event event = { .topic = topic, .payload = letter->payload, .key = letter->partition_key,
				     .partition_id = evbus_is_target(bus) ? EVBUS_PARTITION_ANY : letter->partition_id };
	const struct evbus_publisher_options one_by_one = { .go_on = not_stopped };
	struct evbus_partition_info info;

	snprintf(topic, sizeof topic, "%.*s", (int)letter->topic.len, letter->topic.data);
	int n = snprintf(origin, sizeof origin, "%s/%d/%.*s", topic, letter->partition_id, (int)letter->offset.len,
			 letter->offset.data);
	event.origin = (struct evbus_slice){ origin, (size_t)n };
	event.returns = letter->returns < UINT32_MAX ? (uint32_t)letter->returns + 1 : UINT32_MAX;
	/* A topic that is gone would be made anew, with one partition. */
	if (!evbus_is_target(bus))
		TRY(evbus_topic_describe(bus, topic, EVBUS_PARTITION_ALL, &info, err));
	if (!retry->publisher)
		TRY(evbus_publisher_open(bus, &one_by_one, &retry->publisher, err));
	enum evbus_code code = evbus_publisher_add(retry->publisher, &event, err);
	/* A partition that takes nothing any more: its key says which ones went on with it. */
	if (code == EVBUS_NONE && event.key.data) {
		event.partition_id = EVBUS_PARTITION_ANY;
		code = evbus_publisher_add(retry->publisher, &event, err);
	}
	TRY(code);
	TRY(evbus_publisher_flush(retry->publisher, err));
	const struct evbus_record *receipt = evbus_publisher_next(retry->publisher);
	if (!receipt)
		return fail(retry->call, EVBUS_BUG, "the letter '%s' was published without a receipt", letter->id);
	receipt_text(receipt, text, RECEIPT_BYTES);
	return EVBUS_OK;
}

/* ---- one letter ------------------------------------------------------------------------------------------------ */

struct attempt {
	struct retrying *retry;
	struct change *change;
	char result[RECEIPT_BYTES];
	bool stopped;                /* before anything came of it */
};

/* It cannot be tried as it is; the others can. */
static void refuse(struct retrying *retry, const struct evbus_letter *letter, const char *why)
{
	talk(retry->call, WARNING, "the letter '%s' is left alone: %s", letter->id, why);
	retry->refused++;
}

static void not_dead(struct retrying *retry, const struct evbus_letter *letter)
{
	refuse(retry, letter,
	       letter->state == EVBUS_LETTER_QUEUED ? "it is queued, and dlq-discard --undo takes it back" :
						      "it was discarded, and dlq-discard --undo takes that back");
}

/* *done false: somebody else changed it meanwhile. */
static enum evbus_code change_letter(struct attempt *attempt, const struct evbus_letter *letter,
				     enum evbus_letter_change change, enum evbus_reason reason,
				     struct evbus_slice result, bool *done)
{
	struct retrying *retry = attempt->retry;
	enum evbus_code code = letters_change_one(&retry->letters, letter->id, change, reason, result);

	*done = !code;
	if (code != EVBUS_CONFLICT && code != EVBUS_NONE)
		return code;
	refuse(retry, letter, retry->call->err.text);
	return EVBUS_OK;
}

static enum evbus_code succeeded(struct attempt *attempt, const struct evbus_letter *letter)
{
	struct evbus_slice result = { attempt->result, strlen(attempt->result) };
	bool done;

	TRY(change_letter(attempt, letter, EVBUS_LETTER_SUCCEED, EVBUS_REASON_RETRIES, result, &done));
	attempt->retry->succeeded += done;
	if (done)
		attempt->change->after = EVBUS_LETTER_RETRIED;
	return EVBUS_OK;
}

/* One more attempt on the same letter. */
static enum evbus_code failed(struct attempt *attempt, const struct evbus_letter *letter, enum evbus_reason reason,
			      struct evbus_slice error)
{
	bool done;

	TRY(change_letter(attempt, letter, EVBUS_LETTER_FAIL, reason, error, &done));
	attempt->retry->failed += done;
	attempt->change->returns += done;
	return EVBUS_OK;
}

static enum evbus_code run_one(struct attempt *attempt, const struct evbus_letter *letter, const char *group)
{
	struct retrying *retry = attempt->retry;
	struct outcome outcome;
	char said[OUTCOME_TEXT_BYTES];

	TRY(open_handler(retry, group));
	TRY(run_command(retry, letter, &outcome));
	outcome_describe(retry->call->argv[0], &outcome, said);
	snprintf(attempt->result, sizeof attempt->result, "%s", said);
	switch (outcome.verdict) {
	case VERDICT_DONE:
		return succeeded(attempt, letter);
	case VERDICT_FAILED:
	case VERDICT_REFUSED:
		return failed(attempt, letter, outcome.reason, outcome.error);
	case VERDICT_STOPPED:
		attempt->stopped = true;
		return EVBUS_OK;
	case VERDICT_WRONG_COMMAND:
	case VERDICT_NO_READER:
		break;
	}
	outcome_fail(retry->call, &outcome);
	return fail_within(retry->call, "letter '%s'", letter->id);
}

/* What the topic does not take is a failed attempt; anything else says nothing about the letter. */
static enum evbus_code republish_one(struct attempt *attempt, const struct evbus_letter *letter)
{
	struct call *call = attempt->retry->call;
	enum evbus_code code = publish(attempt->retry, letter, attempt->result);

	if (!code)
		return succeeded(attempt, letter);
	if (code != EVBUS_DATA && code != EVBUS_USAGE && code != EVBUS_NONE)
		return code;
	/* What a target refuses when it gets it is the last that this one publishes. */
	evbus_publisher_close(attempt->retry->publisher);
	attempt->retry->publisher = NULL;
	snprintf(attempt->result, sizeof attempt->result, "%.*s", (int)RECEIPT_BYTES - 1, call->err.text);
	return failed(attempt, letter, EVBUS_REASON_BACKEND,
		      (struct evbus_slice){ attempt->result, strlen(attempt->result) });
}

/* The letter as it is now, while nobody else tries it. */
static enum evbus_code try_now(void *context, const struct evbus_letter *letter, struct evbus_err *err)
{
	struct attempt *attempt = context;
	const char *group;

	(void)err;
	attempt->change->after = letter->state;
	if (letter->state == EVBUS_LETTER_RETRIED)
		return EVBUS_OK;
	if (letter->state != EVBUS_LETTER_DEAD) {
		not_dead(attempt->retry, letter);
		return EVBUS_OK;
	}
	if (attempt->retry->args->republish)
		return republish_one(attempt, letter);
	TRY(claims_take(&attempt->retry->claims, letter->group, &group));
	return run_one(attempt, letter, group);
}

static enum evbus_code try_one(struct retrying *retry, const struct evbus_letter *letter)
{
	struct change change = { .letter = letter, .after = letter->state, .returns = letter->returns };
	struct attempt attempt = { .retry = retry, .change = &change };
	const char *group;

	TRY(batch_flush(&retry->batch));
	TRY(claims_take(&retry->claims, letter->group, &group));
	TRY(letters_one(&retry->letters, letter->id, try_now, &attempt));
	retry->letters.enough = attempt.stopped;
	if (attempt.stopped)
		return EVBUS_OK;
	if (attempt.result[0])
		change.result = (struct evbus_slice){ attempt.result, strlen(attempt.result) };
	change_row(&retry->table, &change);
	return EVBUS_OK;
}

static enum evbus_code wait_for_turn(struct retrying *retry)
{
	int64_t due = pace_next(&retry->pace);

	if (!due)
		return EVBUS_OK;
	TRY(batch_flush(&retry->batch));
	TRY(out_flush(retry->call));
	pace_wait(due);
	return EVBUS_OK;
}

/* false: it is only printed, with *why in the place of a result. What is done or queued already need not be. */
static bool may_try(struct retrying *retry, const struct evbus_letter *letter, const char **why)
{
	bool done = letter->state == EVBUS_LETTER_RETRIED || (retry->queues && letter->state == EVBUS_LETTER_QUEUED);

	*why = NULL;
	if (letter->state != EVBUS_LETTER_DEAD) {
		if (!done)
			not_dead(retry, letter);
		return false;
	}
	if (letter->returns <= retry->args->max_returns)
		return true;
	retry->returned++;
	*why = "left alone: it came back too often";
	return false;
}

/* Whether no consumer can have the letter's partition: shards that were split or merged expire. */
static bool is_gone(struct retrying *retry, const struct evbus_letter *letter)
{
	struct evbus *bus = retry->letters.sources.bus;
	struct evbus_slice topic = letter->topic;
	struct evbus_partition_info info;

	if (letter->partition_id < 0 || topic.len > EVBUS_TOPIC_MAX_BYTES || retry->looked.unknown)
		return false;
	if (letter->partition_id == retry->looked.partition_id && strlen(retry->looked.topic) == topic.len &&
	    !memcmp(retry->looked.topic, topic.data, topic.len))
		return retry->looked.gone;
	snprintf(retry->looked.topic, sizeof retry->looked.topic, "%.*s", (int)topic.len, topic.data);
	retry->looked.partition_id = letter->partition_id;
	enum evbus_code code = evbus_topic_describe(bus, retry->looked.topic, letter->partition_id, &info, NULL);
	retry->looked.unknown = code != EVBUS_OK && code != EVBUS_NONE;
	retry->looked.gone = code == EVBUS_NONE && evbus_topic_describe(bus, retry->looked.topic, EVBUS_PARTITION_ALL,
									&info, NULL) == EVBUS_OK;
	return retry->looked.gone;
}

static enum evbus_code retry_one(void *context, const struct evbus_letter *letter, struct evbus_err *err)
{
	struct retrying *retry = context;
	const struct args *args = retry->args;
	const char *why;

	(void)err;
	retry->letters.enough = args->max >= 0 && retry->tried >= args->max;
	if (retry->letters.enough)
		return EVBUS_OK;
	if (!may_try(retry, letter, &why))
		return batch_add(&retry->batch, letter, false, (struct evbus_slice){ why, why ? strlen(why) : 0 });
	if (retry->queues && is_gone(retry, letter)) {
		refuse(retry, letter, "its partition is gone, and no consumer finds it there; try it with a command, or "
				      "with --republish");
		why = "left alone: its partition is gone";
		return batch_add(&retry->batch, letter, false, (struct evbus_slice){ why, strlen(why) });
	}
	retry->tried++;
	if (!args->dry_run)
		TRY(wait_for_turn(retry));
	retry->letters.enough = stopped() != 0;
	if (retry->letters.enough)
		return EVBUS_OK;
	if (retry->queues || args->dry_run)
		return batch_add(&retry->batch, letter, true, (struct evbus_slice){ NULL, 0 });
	return try_one(retry, letter);
}

/* ---- all of them ----------------------------------------------------------------------------------------------- */

static void tell(const struct retrying *retry)
{
	if (retry->args->dry_run)
		talk(retry->call, DETAIL, "%zu would be tried", retry->batch.changed);
	else if (retry->batch.changed)
		talk(retry->call, NOTICE, "%zu queued for the consumers of their groups, and for outbox-drain",
		     retry->batch.changed);
	else if (retry->succeeded || retry->failed)
		talk(retry->call, NOTICE, "%zu retried, %zu failed again", retry->succeeded, retry->failed);
	if (retry->returned)
		talk(retry->call, WARNING,
		     "%zu came back more than %lld times and were left alone: see why with dlq-show, or raise "
		     "--max-returns",
		     retry->returned, (long long)retry->args->max_returns);
}

static enum evbus_code check_options(const struct args *args, struct call *call)
{
	if (args->republish && call->argv)
		return fail(call, EVBUS_USAGE,
			    "--republish and a command exclude each other: the group's consumer handles what is "
			    "published");
	if (!call->argv && args->handler_timeout.ms >= 0)
		return fail(call, EVBUS_USAGE, "--handler-timeout is for a command: say which one behind '--'");
	return EVBUS_OK;
}

/* Rows of outboxes are published by outbox-drain, with the envelope that it makes. */
static enum evbus_code leave_outboxes(struct retrying *retry)
{
	const struct letter_ids *ids = &retry->letters.ids;

	for (size_t i = 0; i < ids->count; i++)
		if (strchr(ids->items[i], ':'))
			return fail(retry->call, EVBUS_USAGE,
				    "the letter '%s' is a row of an outbox: without --republish it is due again, and "
				    "outbox-drain publishes it",
				    ids->items[i]);
	sources_leave_outboxes(&retry->letters.sources);
	return EVBUS_OK;
}

static enum evbus_code retry_all(struct retrying *retry, const struct args *args)
{
	struct letters *letters = &retry->letters;
	const unsigned dead = STATE_BIT(EVBUS_LETTER_DEAD);

	if (args->republish)
		TRY(leave_outboxes(retry));
	TRY(letters_check_choice(letters, dead, args->all));
	TRY(letters_each(letters, letters->by_id ? ANY_STATE : dead, retry_one, retry));
	return batch_flush(&retry->batch);
}

static enum evbus_code dlq_retry_run(struct args *args, struct call *call)
{
	CLEANUP(retrying_release) struct retrying retry = { .args = args, .call = call, .pace.rate = args->rate };

	TRY(check_options(args, call));
	retry.queues = !call->argv && !args->republish;
	retry.batch = (struct batch){
		.letters = &retry.letters,
		.table = &retry.table,
		.change = EVBUS_LETTER_QUEUE,
		.after = retry.queues ? EVBUS_LETTER_QUEUED : EVBUS_LETTER_RETRIED,
		.dry_run = args->dry_run,
	};
	if (call->argv)
		TRY(open_handler(&retry, NULL)); /* looks the command up before anything else */
	change_table(&retry.table, args->format);
	TRY(letters_open(&retry.letters, call, &args->letters, &args->sources, args->ids_from));
	retry.claims = (struct claims){ .call = call, .bus = retry.letters.sources.bus };
	enum evbus_code code = retry_all(&retry, args);
	tell(&retry);
	size_t undone = retry.failed + retry.returned + retry.refused + retry.batch.refused;
	return changes_end(&retry.letters, &retry.table, code, undone, args->dry_run);
}

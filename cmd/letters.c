/* letters.c: which dead letters a command is about, and going through them. */
#include "letters.h"

#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define STORE "store"                /* the source that is no outbox */

/* ---- which ----------------------------------------------------------------------------------------------------- */

static int reason_of(const char *name)
{
	for (int reason = 0; name && reason < EVBUS_REASONS; reason++)
		if (!strcmp(name, evbus_reason_name((enum evbus_reason)reason)))
			return reason;
	return -1;
}

/* The time that was so long ago; 0 where nothing was said. */
static int64_t time_before(struct duration age)
{
	int64_t now = evbus_time_now();

	if (age.ms < 0)
		return 0;
	return age.ms < now / 1000 ? now - age.ms * 1000 : 1;
}

static struct evbus_letter_filter filter_of(const struct letter_args *args)
{
	bool store = args->source && !strcmp(args->source, STORE);

	return (struct evbus_letter_filter){
		.topic = args->topic,
		.group = args->group,
		.outbox = store ? NULL : args->source,
		.type = args->type,
		.tenant = args->tenant,
		.reason = reason_of(args->reason),
		.older_than_us = time_before(args->older_than),
		.newer_than_us = time_before(args->newer_than),
	};
}

static enum evbus_code take_ids(struct letters *letters, const struct letter_args *args, const char *ids_from)
{
	struct call *call = letters->call;

	for (size_t i = 0; i < args->id.count; i++)
		TRY(letter_ids_add(&letters->ids, call, args->id.items[i]));
	for (size_t i = 0; i < call->operand_count; i++)
		TRY(letter_ids_add(&letters->ids, call, call->operands[i]));
	if (ids_from)
		TRY(letter_ids_read(&letters->ids, call, ids_from));
	letter_ids_sort(&letters->ids);
	letters->by_id = letters->ids.count || ids_from;
	letters->filter.ids = letters->ids.items;
	letters->filter.id_count = letters->ids.count;
	return EVBUS_OK;
}

enum evbus_code letters_open(struct letters *letters, struct call *call, const struct letter_args *args,
			     const struct source_args *sources, const char *ids_from)
{
	letters->call = call;
	letters->filter = filter_of(args);
	TRY(take_ids(letters, args, ids_from));
	return sources_open(&letters->sources, call, sources, args->source && !strcmp(args->source, STORE));
}

void letters_close(struct letters *letters)
{
	letter_ids_release(&letters->ids);
	sources_close(&letters->sources);
}

/* ---- going through them ---------------------------------------------------------------------------------------- */

struct each {
	struct letters *letters;
	letter_callback *callback;
	void *context;
};

static enum evbus_code give(void *context, const struct evbus_letter *letter, struct evbus_err *err)
{
	const struct each *each = context;

	if (stopped())
		each->letters->enough = true;
	if (!each->letters->enough) {
		each->letters->given++;
		TRY(each->callback(each->context, letter, err));
	}
	if (!each->letters->enough && !out_is_closed())
		return EVBUS_OK;
	each->letters->enough = true;
	return EVBUS_NO;
}

static enum evbus_code list(struct letters *letters, const struct evbus_letter_filter *filter,
			    letter_callback *callback, void *context)
{
	const struct sources *sources = &letters->sources;

	return evbus_letter_list(sources->bus, sources->outboxes, sources->outbox_count, filter, callback, context,
				 &letters->call->err);
}

static enum evbus_code each_of_state(struct letters *letters, int state, struct each *each)
{
	struct evbus_letter_filter filter = letters->filter;

	if (letters->enough)
		return EVBUS_OK;
	filter.state = state;
	enum evbus_code code = list(letters, &filter, give, each);
	return code == EVBUS_NO && letters->enough ? EVBUS_OK : code;
}

enum evbus_code letters_each(struct letters *letters, unsigned states, letter_callback *callback, void *context)
{
	struct each each = { letters, callback, context };

	if (letters->by_id && !letters->ids.count)
		return EVBUS_OK; /* the file of ids was empty: that does not mean all */
	if (states == ANY_STATE)
		return each_of_state(letters, -1, &each);
	for (int state = 0; state < EVBUS_LETTER_STATES; state++)
		if (states & STATE_BIT(state))
			TRY(each_of_state(letters, state, &each));
	return EVBUS_OK;
}

enum evbus_code letters_one(struct letters *letters, const char *id, letter_callback *callback, void *context)
{
	const struct evbus_letter_filter filter = { .reason = -1, .state = -1, .ids = &id, .id_count = 1 };

	return list(letters, &filter, callback, context);
}

/* ---- what was chosen ------------------------------------------------------------------------------------------- */

static enum evbus_code pass(void *context, const struct evbus_letter *letter, struct evbus_err *err)
{
	(void)context;
	(void)letter;
	(void)err;
	return EVBUS_OK;
}

enum evbus_code letters_check_choice(struct letters *letters, unsigned states, bool all)
{
	const struct evbus_letter_filter *filter = &letters->filter;

	if (all || letters->by_id || filter->topic || filter->group || filter->outbox || filter->type ||
	    filter->tenant || filter->reason >= 0 || filter->older_than_us || filter->newer_than_us)
		return EVBUS_OK;
	TRY(letters_each(letters, states, pass, NULL));
	size_t there = letters->given;
	letters->given = 0;
	if (there <= 1)
		return EVBUS_OK;
	return fail(letters->call, EVBUS_USAGE,
		    "there are %zu letters: choose by id, --group, --topic, … or say --all; dlq-list shows them", there);
}

/* ---- changing one ---------------------------------------------------------------------------------------------- */

static const char *who(struct letters *letters)
{
	char host[64] = "", names[4096];
	struct passwd entry, *user = NULL;

	if (letters->by[0])
		return letters->by;
	if (gethostname(host, sizeof host - 1))
		snprintf(host, sizeof host, "localhost");
	if (!getpwuid_r(getuid(), &entry, names, sizeof names, &user) && user)
		snprintf(letters->by, sizeof letters->by, "%.60s@%s", user->pw_name, host);
	else
		snprintf(letters->by, sizeof letters->by, "%lu@%s", (unsigned long)getuid(), host);
	return letters->by;
}

enum evbus_code letters_change_one(struct letters *letters, const char *id, enum evbus_letter_change change,
			       enum evbus_reason reason, struct evbus_slice result)
{
	const struct sources *sources = &letters->sources;

	return evbus_letter_change(sources->bus, sources->outboxes, sources->outbox_count, id, change, reason, result,
				   who(letters), &letters->call->err);
}

enum evbus_code letters_change_all(struct letters *letters, const char *const *ids, size_t count,
				   enum evbus_letter_change change, enum evbus_code *codes)
{
	const struct sources *sources = &letters->sources;

	return evbus_letter_change_all(sources->bus, sources->outboxes, sources->outbox_count, ids, count, change,
				       who(letters), codes, &letters->call->err);
}

/* ---- what was done with one ------------------------------------------------------------------------------------ */

void change_table(struct table *table, const char *format)
{
	static const struct column columns[] = {
		{ "id", TEXT },       { "before", TEXT },   { "after", TEXT },     { "group", TEXT },
		{ "topic", TEXT },    { "partition_id", NUMBER }, { "offset", DIGITS }, { "event_id", TEXT },
		{ "returns", NUMBER }, { "result", TEXT },
	};

	table_start(table, columns, COUNT(columns), format);
}

struct evbus_slice letter_origin(const struct evbus_letter *letter)
{
	return letter->group.data ? letter->group : letter->source;
}

void change_row(struct table *table, const struct change *change)
{
	const struct evbus_letter *letter = change->letter;

	table_text(table, letter->id);
	table_text(table, evbus_letter_state_name(letter->state));
	table_text(table, evbus_letter_state_name(change->after));
	table_slice(table, letter->group);
	table_slice(table, letter->topic);
	if (letter->partition_id < 0)
		table_null(table);
	else
		table_number(table, letter->partition_id);
	table_slice(table, letter->offset);
	table_slice(table, letter->event_id);
	table_number(table, change->returns);
	table_slice(table, change->result);
}

/* Ids that were named, and not given out, do not match what else was said. */
static enum evbus_code check_ids(const struct letters *letters)
{
	size_t named = letters->ids.count, missed = letters->by_id && !letters->enough ? named - letters->given : 0;

	if (missed)
		talk(letters->call, WARNING, "%zu of %zu ids are of letters that do not match what else was asked for",
		     missed, named);
	if (letters->by_id && !named)
		talk(letters->call, WARNING, "the file has no ids: nothing is done");
	return missed ? EVBUS_NO : EVBUS_OK;
}

enum evbus_code changes_end(const struct letters *letters, struct table *table, enum evbus_code code, size_t undone,
			    bool dry_run)
{
	struct call *call = letters->call;
	struct evbus_err first = call->err;

	if (dry_run)
		talk(call, NOTICE, "nothing was changed: this is a dry run");
	enum evbus_code printed = table_end(table, call);
	if (code) {
		call->err = first;
		return code;
	}
	TRY(printed);
	TRY(check_ids(letters));
	return undone ? EVBUS_NO : EVBUS_OK;
}

/* ---- their texts ------------------------------------------------------------------------------------------------ */

static void put_text(void *context, const char *data, size_t len)
{
	struct evbus_slice *text = context;

	memcpy((char *)text->data + text->len, data, len);
	text->len += len;
}

enum evbus_code letters_quote(struct call *call, struct evbus_slice text, char **memory, struct evbus_slice *quoted)
{
	if (!text.data)
		return EVBUS_OK;
	*memory = malloc(6 * text.len + 2);
	if (!*memory)
		return fail(call, EVBUS_IO, "cannot run a command for a letter: out of memory");
	*quoted = (struct evbus_slice){ *memory, 0 };
	put_text(quoted, "\"", 1);
	json_escape(text, put_text, quoted);
	put_text(quoted, "\"", 1);
	return EVBUS_OK;
}

/* doc.c: what the printers of documentation have in common, help texts, and the hidden command that makes the files in
 * man/ and completions/:
 *
 *	evbus doc man COMMAND PROSE     the manual page of a command; "evbus" for evbus(1)
 *	evbus doc commands              the names, one a line
 *	evbus doc examples              COMMAND, what to run, what it prints: tab-separated, with the escapes of COPY */
#include "doc.h"
#include "opt.h"
#include "report.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

struct args {
	struct common common;
};

COMMAND(doc,
	.summary = "print manual pages and examples from the declarations",
	.takes = "man|commands|examples [COMMAND] [PROSE]",
	.hidden = true,
	.no_bus = true,
	.opts = OPTS(TALK_OPTS));

/* ---- exit statuses --------------------------------------------------------------------------------------------- */

static const struct status statuses[] = {
	{ EVBUS_OK, "all of it was done" },
	{ EVBUS_NO, "it ran, and the answer is no: damage was found, or some items failed" },
	{ EVBUS_USAGE, "an option, operand or value is not of its form" },
	{ EVBUS_DATA, "bad input data" },
	{ EVBUS_NONE, "there is no such topic, partition, group or row" },
	{ EVBUS_UNAVAILABLE, "the backend cannot be reached, or another machine has the bus open" },
	{ EVBUS_BUG, "a mistake in evbus" },
	{ EVBUS_CANTCREATE, "a file or directory could not be made" },
	{ EVBUS_IO, "an I/O error, a full disk, or damaged data" },
	{ EVBUS_AGAIN, "somebody else holds it, or the time ran out: try again" },
	{ EVBUS_CONFLICT, "not the expected position, or a log that was cut, restored or replaced" },
	{ EVBUS_PERMISSION, "not allowed" },
	{ EVBUS_CONFIG, "a bad configuration, variable or URL, or an unfit file system" },
};

const char *status_meaning(enum evbus_code code)
{
	for (size_t i = 0; i < COUNT(statuses); i++)
		if (statuses[i].code == code)
			return statuses[i].means;
	return "an unknown failure";
}

static const char *own_meaning(const struct command *command, enum evbus_code code)
{
	for (const struct status *own = command ? command->statuses : NULL; own && own->means; own++)
		if (own->code == code)
			return own->means;
	return NULL;
}

/* Whether a command that says nothing of it may end so. */
static bool is_common(const struct command *command, enum evbus_code code)
{
	if (command && command->no_bus)
		return code == EVBUS_OK || code == EVBUS_USAGE || code == EVBUS_IO || code == EVBUS_CONFIG;
	return !command || (code != EVBUS_NO && code != EVBUS_DATA);
}

void doc_statuses(const struct command *command, void (*print)(enum evbus_code code, const char *means))
{
	for (size_t i = 0; i < COUNT(statuses); i++) {
		const char *own = own_meaning(command, statuses[i].code);

		if (own || is_common(command, statuses[i].code))
			print(statuses[i].code, own ? own : statuses[i].means);
	}
}

/* ---- options --------------------------------------------------------------------------------------------------- */

/* A text that just fills its room has no end, and the compiler says nothing. */
static bool has_ends(const struct opt *opt)
{
	return !opt->member[sizeof opt->member - 1] && !opt->value[sizeof opt->value - 1] &&
	       !opt->help[sizeof opt->help - 1] && !opt->alias[sizeof opt->alias - 1] &&
	       !opt->words[sizeof opt->words - 1] && !opt->preset[sizeof opt->preset - 1] &&
	       !opt->env_other[sizeof opt->env_other - 1];
}

void opt_help(const struct opt *opt, char text[HELP_MAX_BYTES])
{
	assert(has_ends(opt));
	size_t len = (size_t)snprintf(text, HELP_MAX_BYTES, "%s", opt->help);

	if (opt->preset[0] && len < HELP_MAX_BYTES)
		snprintf(text + len, HELP_MAX_BYTES - len, " (default: %s)", opt->preset);
}

static const char *known(const char *value)
{
	static const char *const names[] = { "TOPIC", "GROUP", "FILE", "DIR", "COMMAND" };

	for (size_t i = 0; i < COUNT(names); i++)
		if (!strncmp(value, names[i], strlen(names[i])))
			return names[i];
	return "";
}

const char *opt_completes(const struct opt *opt)
{
	if (opt->words[0])
		return opt->words;
	if (opt->kind == KIND_POSITION)
		return "beginning|end|stored";
	if (opt->kind == KIND_RECORD_FORMAT)
		return "json|payload|stored|pretty|tsv";
	return known(opt->value);
}

const char *operand_completes(const struct command *command)
{
	const char *takes = command->takes ? command->takes : "";

	return strchr(takes, '|') ? takes : known(takes + (takes[0] == '['));
}

/* ---- help ------------------------------------------------------------------------------------------------------ */

#define HELP_COLUMN 26
#define HELP_WIDTH 80

/* Prints words from HELP_COLUMN on, broken at HELP_WIDTH; at is where the line is. */
static void print_wrapped(int at, const char *text)
{
	bool first = true;

	if (at >= HELP_COLUMN - 1) {
		out_text("\n");
		at = 0;
	}
	out_printf("%*s", HELP_COLUMN - at, "");
	at = HELP_COLUMN;
	while (*text) {
		int len = (int)strcspn(text, " ");

		if (!first && at + 1 + len > HELP_WIDTH) {
			out_printf("\n%*s", HELP_COLUMN, "");
			at = HELP_COLUMN;
			first = true;
		}
		out_printf("%s%.*s", first ? "" : " ", len, text);
		at += len + !first;
		first = false;
		text += len + (text[len] == ' ');
	}
	out_text("\n");
}

static void print_opt(const struct opt *opt)
{
	char left[128], help[HELP_MAX_BYTES];
	char letter[8] = "    ";

	if (opt->letter)
		snprintf(letter, sizeof letter, "-%c, ", opt->letter);
	int n = snprintf(left, sizeof left, "  %s--%s%s%s", letter, name_of(opt->member).text, opt->value[0] ? " " : "",
			 opt->value);
	out_text(left);
	opt_help(opt, help);
	print_wrapped(n, help);
	if (opt->alias[0])
		out_printf("      --%s %s\n", opt->alias, opt->value);
}

static void print_command_help(const struct command *command)
{
	struct name name = name_of(command->name);

	out_printf("usage: evbus %s [OPTION...]%s%s\n", name.text, command->takes ? " " : "",
		   command->takes ? command->takes : "");
	out_printf("%s\n\noptions:\n", command->summary);
	for (const struct opt *opt = command->opts; opt->member[0]; opt++)
		print_opt(opt);
	if (command->examples) {
		out_text("\nexamples:\n");
		for (const struct example *example = command->examples; example->run; example++)
			out_printf("  %s\n", example->run);
	}
	if (!command->hidden)
		out_printf("\nMore: man evbus-%s\n", name.text);
}

enum evbus_code doc_help(struct call *call, const struct command *command)
{
	if (command) {
		print_command_help(command);
		return out_flush(call);
	}
	out_text("usage: evbus COMMAND [OPTION...]\na durable event bus in plain files\n\ncommands:\n");
	for (const struct command *const *each = commands; *each; each++) {
		if ((*each)->hidden)
			continue;
		out_printf("  %s", name_of((*each)->name).text);
		print_wrapped(2 + (int)strlen((*each)->name), (*each)->summary);
	}
	out_text("\nMore: evbus help COMMAND, man evbus\n");
	return out_flush(call);
}

/* ---- evbus doc ------------------------------------------------------------------------------------------------- */

static enum evbus_code print_examples(struct call *call)
{
	for (const struct command *const *each = commands; *each; each++)
		for (const struct example *example = (*each)->examples; example && example->run; example++) {
			out_printf("%s\t", name_of((*each)->name).text);
			out_copy(example->run, strlen(example->run));
			out_text("\t");
			if (example->prints)
				out_copy(example->prints, strlen(example->prints));
			else
				out_text("\\N");
			out_text("\n");
		}
	return out_flush(call);
}

static enum evbus_code print_names(struct call *call)
{
	for (const struct command *const *each = commands; *each; each++)
		if (!(*each)->hidden)
			out_printf("%s\n", name_of((*each)->name).text);
	return out_flush(call);
}

static enum evbus_code print_manual(struct call *call)
{
	if (call->operand_count < 3)
		return fail(call, EVBUS_USAGE, "COMMAND and PROSE are missing");
	const struct command *command = command_named(call->operands[1]);
	if (!command && strcmp(call->operands[1], "evbus") != 0)
		return fail(call, EVBUS_USAGE, "unknown command '%s'", call->operands[1]);
	return doc_manual(call, command, call->operands[2]);
}

static enum evbus_code doc_run(struct args *args, struct call *call)
{
	(void)args;
	if (!strcmp(call->operands[0], "man"))
		return print_manual(call);
	return !strcmp(call->operands[0], "commands") ? print_names(call) : print_examples(call);
}

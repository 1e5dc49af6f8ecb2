/* help.c: evbus help */
#include "doc.h"
#include "opt.h"

#include <stdio.h>
#include <string.h>

struct args {
	struct common common;
};

COMMAND(help,
	.summary = "list the commands, or explain one",
	.takes = "[COMMAND...]",
	.no_bus = true,
	.opts = OPTS(TALK_OPTS),
	.examples = EXAMPLES(
		{ "evbus help version | head -n 1", "usage: evbus version [OPTION...]" }));

/* The words of a command may stand apart here as well, and a noun alone is its list. */
static enum evbus_code help_run(struct args *args, struct call *call)
{
	struct call asked = { .common = call->common };
	char *words[] = { NULL, NULL, NULL, NULL };

	(void)args;
	if (!call->operand_count)
		return doc_help(call, NULL);
	words[0] = (char[]){ "evbus" };
	for (size_t i = 0; i < call->operand_count && i < 2; i++)
		words[i + 1] = (char *)(uintptr_t)call->operands[i];
	if (call->operand_count > 2)
		return fail(call, EVBUS_USAGE, "operand '%s' is one too many; see 'evbus help'", call->operands[2]);
	if (!command_find(&asked, (int)call->operand_count + 1, words))
		return fail(call, asked.err.code, "%s", asked.err.text);
	return doc_help(call, asked.command);
}

/* completion.c: evbus completion */
#include "doc.h"

#include <string.h>

struct args {
	struct common common;
};

COMMAND(completion,
	.summary = "print a completion script for a shell",
	.takes = "bash|zsh|fish",
	.no_bus = true,
	.opts = OPTS(TALK_OPTS),
	.examples = EXAMPLES(
		{ "evbus completion bash | head -n 1", "# bash completion for evbus…" }));

static enum evbus_code completion_run(struct args *args, struct call *call)
{
	const char *shell = call->operands[0];

	(void)args;
	if (!strcmp(shell, "bash"))
		return doc_bash(call);
	return !strcmp(shell, "zsh") ? doc_zsh(call) : doc_fish(call);
}

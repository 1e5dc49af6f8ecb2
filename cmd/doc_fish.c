/* doc_fish.c: completion for fish. */
#include "doc.h"
#include "opt.h"

#include <string.h>

static const char head[] =
	"# fish completion for evbus, printed by `evbus completion fish`\n"
	"\n"
	"# The command of the line: evbus publish, evbus topic list, evbus topic.\n"
	"function __evbus_command\n"
	"\tset -l words (commandline -opc)\n"
	"\tset -q words[2]; or return 1\n"
	"\tset -l command $words[2]\n"
	"\tif set -q words[3]; and contains -- $command-$words[3] $__evbus_commands\n"
	"\t\tset command $command-$words[3]\n"
	"\tend\n"
	"\tcontains -- $command $__evbus_commands; or set command $command-list\n"
	"\ttest \"$command\" = \"$argv[1]\"\n"
	"end\n"
	"\n"
	"# What is asked of evbus has 300 ms and must not disturb the line that is being typed.\n"
	"function __evbus_ask\n"
	"\tset -l words (commandline -opc)\n"
	"\tset -l bus\n"
	"\tfor i in (seq (count $words))\n"
	"\t\tswitch $words[$i]\n"
	"\t\t\tcase -b --bus\n"
	"\t\t\t\tset bus --bus $words[(math $i + 1)]\n"
	"\t\t\tcase '--bus=*'\n"
	"\t\t\t\tset bus $words[$i]\n"
	"\t\tend\n"
	"\tend\n"
	"\ttimeout 0.3 evbus $argv $bus --quiet --format tsv 2>/dev/null </dev/null | cut -f 1 | sort -u\n"
	"end\n"
	"\n";

static void print_quoted(const char *text)
{
	out_text("'");
	for (; *text; text++) {
		if (*text == '\'' || *text == '\\')
			out_text("\\");
		out_bytes(text, 1);
	}
	out_text("'");
}

/* -F completes files as well, -x nothing but what is named. */
static void print_completes(const char *completes)
{
	if (!strcmp(completes, "FILE")) {
		out_text(" -r -F");
	} else if (!strcmp(completes, "DIR")) {
		out_text(" -x -a '(__fish_complete_directories)'");
	} else if (!strcmp(completes, "TOPIC")) {
		out_text(" -x -a '(__evbus_ask topic-list)'");
	} else if (!strcmp(completes, "GROUP")) {
		out_text(" -x -a '(__evbus_ask checkpoint-list)'");
	} else if (!strcmp(completes, "COMMAND")) {
		out_text(" -x -a '$__evbus_commands'");
	} else {
		out_text(*completes ? " -x -a '" : " -x");
		for (const char *at = completes; *at && *at != ' '; at++)
			out_bytes(*at == '|' ? " " : at, 1);
		out_text(*completes ? "'" : "");
	}
}

static void print_opt(const struct command *command, const struct opt *opt)
{
	out_printf("complete -c evbus -n '__evbus_command %s'", name_of(command->name).text);
	if (opt->letter)
		out_printf(" -s %c", opt->letter);
	out_printf(" -l %s", name_of(opt->member).text);
	if (opt->alias[0])
		out_printf(" -l %s", opt->alias);
	if (opt->kind != KIND_FLAG)
		print_completes(opt_completes(opt));
	out_text(" -d ");
	print_quoted(opt->help);
	out_text("\n");
}

static void print_command(const struct command *command)
{
	const char *completes = operand_completes(command);

	out_printf("\ncomplete -c evbus -n __fish_is_first_arg -a %s -d ", name_of(command->name).text);
	print_quoted(command->summary);
	out_text("\n");
	if (*completes) {
		out_printf("complete -c evbus -n '__evbus_command %s'", name_of(command->name).text);
		print_completes(completes);
		out_text("\n");
	}
	for (const struct opt *opt = command->opts; opt->member[0]; opt++)
		print_opt(command, opt);
}

enum evbus_code doc_fish(struct call *call)
{
	out_text(head);
	out_text("set -g __evbus_commands");
	for (const struct command *const *each = commands; *each; each++)
		if (!(*each)->hidden)
			out_printf(" %s", name_of((*each)->name).text);
	out_text("\n\ncomplete -c evbus -f\n");
	for (const struct command *const *each = commands; *each; each++)
		if (!(*each)->hidden)
			print_command(*each);
	return out_flush(call);
}

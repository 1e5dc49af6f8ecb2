/* doc_bash.c: completion for bash. The functions are text; what they know of commands comes from the declarations. */
#include "doc.h"
#include "opt.h"

#include <string.h>

static const char head[] =
	"# bash completion for evbus, printed by `evbus completion bash`\n"
	"\n"
	"# What is asked of evbus has 300 ms and must not disturb the line that is being typed.\n"
	"_evbus_ask() {\n"
	"\tlocal i bus=()\n"
	"\tfor ((i = 1; i < COMP_CWORD; i++)); do\n"
	"\t\tcase ${COMP_WORDS[i]} in\n"
	"\t\t-b | --bus)\n"
	"\t\t\t[[ ${COMP_WORDS[i + 1]} == '=' ]] && ((i++))\n"
	"\t\t\tbus=(--bus \"${COMP_WORDS[i + 1]}\") ;;\n"
	"\t\tesac\n"
	"\tdone\n"
	"\ttimeout 0.3 evbus \"$@\" \"${bus[@]}\" --quiet --format tsv 2>/dev/null </dev/null | cut -f 1 | sort -u\n"
	"}\n"
	"\n"
	"# Not compgen -W, which would expand what the names contain.\n"
	"_evbus_names() {\n"
	"\tlocal name\n"
	"\twhile IFS= read -r name; do\n"
	"\t\t[[ $name == \"$2\"* ]] && printf -v name %q \"$name\" && COMPREPLY+=(\"$name\")\n"
	"\tdone < <(_evbus_ask \"$1\")\n"
	"}\n"
	"\n"
	"_evbus_values() {\n"
	"\tcase $1 in\n"
	"\tTOPIC) _evbus_names topic-list \"$2\" ;;\n"
	"\tGROUP) _evbus_names checkpoint-list \"$2\" ;;\n"
	"\tFILE) compopt -o filenames 2>/dev/null; mapfile -t COMPREPLY < <(compgen -f -- \"$2\") ;;\n"
	"\tDIR) compopt -o filenames 2>/dev/null; mapfile -t COMPREPLY < <(compgen -d -- \"$2\") ;;\n"
	"\tCOMMAND) COMPREPLY=($(compgen -W \"$_evbus_commands\" -- \"$2\")) ;;\n"
	"\t*) COMPREPLY=($(compgen -W \"${1//|/ }\" -- \"$2\")) ;;\n"
	"\tesac\n"
	"}\n"
	"\n";

static const char tail[] =
	"\tesac\n"
	"}\n"
	"\n"
	"_evbus() {\n"
	"\tlocal cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]} i=1\n"
	"\tlocal command=${COMP_WORDS[0]##*/} options='' values='' operands=''\n"
	"\tCOMPREPLY=()\n"
	"\tif [[ $command == evbus-* ]]; then\n"
	"\t\tcommand=${command#evbus-}\n"
	"\telif ((COMP_CWORD == 1)); then\n"
	"\t\tCOMPREPLY=($(compgen -W \"$_evbus_commands --help --version\" -- \"$cur\"))\n"
	"\t\treturn\n"
	"\telse\n"
	"\t\tcommand=${COMP_WORDS[1]}\n"
	"\t\t[[ $COMP_CWORD -gt 2 && \" $_evbus_commands \" == *\" $command-${COMP_WORDS[2]} \"* ]] &&\n"
	"\t\t\tcommand+=-${COMP_WORDS[2]}\n"
	"\tfi\n"
	"\t[[ \" $_evbus_commands \" == *\" $command \"* ]] || command+=-list\n"
	"\t_evbus_options \"$command\"\n"
	"\t# --name=value comes as three words.\n"
	"\tif [[ $cur == '=' ]]; then\n"
	"\t\tcur=''\n"
	"\telif [[ $prev == '=' ]]; then\n"
	"\t\tprev=${COMP_WORDS[COMP_CWORD - 2]}\n"
	"\tfi\n"
	"\tfor i in $values; do\n"
	"\t\tif [[ $i == \"$prev:\"* ]]; then\n"
	"\t\t\t_evbus_values \"${i#*:}\" \"$cur\"\n"
	"\t\t\treturn\n"
	"\t\tfi\n"
	"\tdone\n"
	"\tif [[ $cur == -* ]]; then\n"
	"\t\tCOMPREPLY=($(compgen -W \"$options\" -- \"$cur\"))\n"
	"\telse\n"
	"\t\t_evbus_values \"$operands\" \"$cur\"\n"
	"\tfi\n"
	"}\n"
	"\n"
	"complete -F _evbus evbus";

static void print_commands(void)
{
	out_text("_evbus_commands='");
	for (const struct command *const *each = commands; *each; each++)
		if (!(*each)->hidden)
			out_printf("%s%s", each == commands ? "" : " ", name_of((*each)->name).text);
	out_text("'\n\n");
}

static void print_options(const struct command *command)
{
	out_printf("\t%s)\n\t\toptions='", name_of(command->name).text);
	for (const struct opt *opt = command->opts; opt->member[0]; opt++) {
		out_printf("%s--%s", opt == command->opts ? "" : " ", name_of(opt->member).text);
		if (opt->alias[0])
			out_printf(" --%s", opt->alias);
		if (opt->letter)
			out_printf(" -%c", opt->letter);
	}
	out_text("'\n");
}

/* "--topic:TOPIC": an option that takes a value, and what completes it. */
static void print_values(const struct command *command)
{
	const char *blank = "";

	out_text("\t\tvalues='");
	for (const struct opt *opt = command->opts; opt->member[0]; opt++) {
		if (opt->kind == KIND_FLAG)
			continue;
		out_printf("%s--%s:%s", blank, name_of(opt->member).text, opt_completes(opt));
		blank = " ";
		if (opt->alias[0])
			out_printf(" --%s:%s", opt->alias, opt_completes(opt));
		if (opt->letter)
			out_printf(" -%c:%s", opt->letter, opt_completes(opt));
	}
	out_printf("'\n\t\toperands='%s' ;;\n", operand_completes(command));
}

enum evbus_code doc_bash(struct call *call)
{
	out_text(head);
	print_commands();
	out_text("_evbus_options() {\n\tcase $1 in\n");
	for (const struct command *const *each = commands; *each; each++) {
		if ((*each)->hidden)
			continue;
		print_options(*each);
		print_values(*each);
	}
	out_text(tail);
	for (const struct command *const *each = commands; *each; each++)
		if (!(*each)->hidden)
			out_printf(" evbus-%s", name_of((*each)->name).text);
	out_text("\n");
	return out_flush(call);
}

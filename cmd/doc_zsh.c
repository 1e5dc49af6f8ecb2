/* doc_zsh.c: completion for zsh. */
#include "doc.h"
#include "opt.h"

#include <string.h>

static const char head[] =
	"#compdef evbus -P evbus-*\n"
	"# zsh completion for evbus, printed by `evbus completion zsh`\n"
	"\n"
	"# What is asked of evbus has 300 ms and must not disturb the line that is being typed.\n"
	"_evbus_ask() {\n"
	"\tlocal -a bus\n"
	"\tlocal i\n"
	"\tfor ((i = 2; i < CURRENT; i++)); do\n"
	"\t\tcase $words[i] in\n"
	"\t\t(-b|--bus) bus=(--bus \"${(Q)words[i+1]}\") ;;\n"
	"\t\t(--bus=*) bus=(--bus \"${(Q)words[i]#--bus=}\") ;;\n"
	"\t\tesac\n"
	"\tdone\n"
	"\ttimeout 0.3 evbus \"$@\" $bus --quiet --format tsv 2>/dev/null </dev/null | cut -f 1 | sort -u\n"
	"}\n"
	"\n"
	"_evbus_topics() {\n"
	"\tlocal -a found=(${(f)\"$(_evbus_ask topic-list)\"})\n"
	"\t(( $#found )) && compadd -a found\n"
	"}\n"
	"\n"
	"_evbus_groups() {\n"
	"\tlocal -a found=(${(f)\"$(_evbus_ask checkpoint-list)\"})\n"
	"\t(( $#found )) && compadd -a found\n"
	"}\n"
	"\n"
	"_evbus_commands() {\n"
	"\tlocal -a list=(\n";

static const char middle[] = "\t)\n"
			     "\t_describe command list\n"
			     "}\n"
			     "\n"
			     "_evbus() {\n"
			     "\tlocal command=${words[1]:t}\n"
			     "\tif [[ $command == evbus-* ]]; then\n"
			     "\t\tcommand=${command#evbus-}\n"
			     "\telif (( CURRENT == 2 )); then\n"
			     "\t\t_evbus_commands\n"
			     "\t\treturn\n"
			     "\telse\n"
			     "\t\tshift words\n"
			     "\t\t(( CURRENT-- ))\n"
			     "\t\tcommand=$words[1]\n"
			     "\t\tif (( CURRENT > 2 && $+functions[_evbus-$command-$words[2]] )); then\n"
			     "\t\t\tcommand+=-$words[2]\n"
			     "\t\t\tshift words\n"
			     "\t\t\t(( CURRENT-- ))\n"
			     "\t\tfi\n"
			     "\tfi\n"
			     "\t(( $+functions[_evbus-$command] )) || command+=-list\n"
			     "\t(( $+functions[_evbus-$command] )) && _evbus-$command\n"
			     "}\n";

/* Text within '…' in which zsh gives a meaning to brackets and colons. */
static void print_quoted(const char *text)
{
	for (; *text; text++) {
		if (*text == '\'')
			out_text("'\\'");
		else if (strchr("[]:\\", *text))
			out_text("\\");
		out_bytes(text, 1);
	}
}

static void print_action(const char *completes)
{
	if (!strcmp(completes, "TOPIC"))
		out_text("_evbus_topics");
	else if (!strcmp(completes, "GROUP"))
		out_text("_evbus_groups");
	else if (!strcmp(completes, "FILE"))
		out_text("_files");
	else if (!strcmp(completes, "DIR"))
		out_text("_directories");
	else if (!strcmp(completes, "COMMAND"))
		out_text("_evbus_commands");
	else if (*completes) {
		out_text("(");
		for (const char *at = completes; *at && *at != ' '; at++)
			out_bytes(*at == '|' ? " " : at, 1);
		out_text(")");
	}
}

static void print_spec(const struct opt *opt, const char *dashes, const char *name, const char *between)
{
	out_printf("\t\t'%s%s%s%s[", opt->kind == KIND_LIST ? "*" : "", dashes, name, between);
	print_quoted(opt->help);
	out_text("]");
	if (opt->kind != KIND_FLAG) {
		out_text(":");
		print_quoted(opt->value);
		out_text(":");
		print_action(opt_completes(opt));
	}
	out_text("' \\\n");
}

static void print_command(const struct command *command)
{
	out_printf("\n_evbus-%s() {\n\t_arguments -s -S : \\\n", name_of(command->name).text);
	for (const struct opt *opt = command->opts; opt->member[0]; opt++) {
		bool flag = opt->kind == KIND_FLAG;

		if (opt->letter)
			print_spec(opt, "-", (const char[]){ opt->letter, '\0' }, flag ? "" : "+");
		print_spec(opt, "--", name_of(opt->member).text, flag ? "" : "=");
		if (opt->alias[0])
			print_spec(opt, "--", opt->alias, flag ? "" : "=");
	}
	out_text("\t\t'*:");
	print_quoted(command->takes ? command->takes : "no operand");
	out_text(":");
	print_action(operand_completes(command));
	out_text("'\n}\n");
}

enum evbus_code doc_zsh(struct call *call)
{
	out_text(head);
	for (const struct command *const *each = commands; *each; each++) {
		if ((*each)->hidden)
			continue;
		out_printf("\t\t'%s:", name_of((*each)->name).text);
		print_quoted((*each)->summary);
		out_text("'\n");
	}
	out_text(middle);
	for (const struct command *const *each = commands; *each; each++)
		if (!(*each)->hidden)
			print_command(*each);
	out_text("\n_evbus \"$@\"\n");
	return out_flush(call);
}

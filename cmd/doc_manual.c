/* doc_manual.c: manual pages in mdoc(7).
 *
 * A page is printed from the declaration of its command and from a file of prose. The prose begins with the line .Dd,
 * then has the text of DESCRIPTION, and then whatever further sections there are, each under its .Sh, in the order of
 * mdoc(7): those named in `before` stand before EXIT STATUS, all others behind EXAMPLES. */
#include "doc.h"
#include "opt.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define PROSE_MAX_BYTES (256u * 1024u)
#define PROSE_TEXT_MAX_BYTES 1024u
#define PROSE_COLUMNS 66u

static enum evbus_code read_prose(struct call *call, const char *path, char *prose)
{
	FILE *file = fopen(path, "re");

	if (!file)
		return fail_errno(call, errno == ENOENT ? EVBUS_NONE : EVBUS_IO, "cannot open '%s'", path);
	size_t len = fread(prose, 1, PROSE_MAX_BYTES, file);
	bool failed = ferror(file) != 0;
	if (fclose(file) || failed)
		return fail_errno(call, EVBUS_IO, "cannot read '%s'", path);
	if (len == PROSE_MAX_BYTES)
		return fail(call, EVBUS_DATA, "prose '%s' is longer than %u bytes", path, PROSE_MAX_BYTES - 1);
	prose[len] = '\0';
	if (strncmp(prose, ".Dd ", 4) != 0)
		return fail(call, EVBUS_DATA, "prose '%s' does not begin with .Dd", path);
	return EVBUS_OK;
}

/* ---- text ------------------------------------------------------------------------------------------------------ */

/* The code point at *text, which moves on; the text comes from our own source and is valid UTF-8. */
static unsigned code_point(const char **text)
{
	unsigned char first = (unsigned char)*(*text)++;
	unsigned more = first >= 0xf0 ? 3 : first >= 0xe0 ? 2 : first >= 0xc0 ? 1 : 0;
	unsigned point = more ? first & (0x3fu >> more) : first;

	while (more--)
		point = point << 6 | ((unsigned char)*(*text)++ & 0x3fu);
	return point;
}

/* What troff would make a dash or a typographer's quote of, to be printed as it stands: it may be copied to a shell. */
static const char *name_of_point(unsigned point)
{
	switch (point) {
	case '\\':
		return "\\e";
	case '-':
		return "\\-";
	case '\'':
		return "\\(aq";
	case '`':
		return "\\(ga";
	case '^':
		return "\\(ha";
	case '~':
		return "\\(ti";
	default:
		return NULL;
	}
}

/* Text of one line, or with \n of several, on text lines. */
static void print_text(const char *text)
{
	bool first = true;

	while (*text) {
		unsigned point = code_point(&text);
		const char *name = name_of_point(point);

		if (first && point == '.')
			out_text("\\&");
		first = point == '\n';
		if (name)
			out_text(name);
		else if (point >= 0x80)
			out_printf("\\[u%04X]", point);
		else
			out_bytes((const char[]){ (char)point }, 1);
	}
	out_text("\n");
}

/* Text that may be broken. mandoc wants lines of at most 80 bytes, and a dash or a quote takes several. */
static void print_prose(const char *text)
{
	char lines[PROSE_TEXT_MAX_BYTES];
	size_t begin = 0;

	snprintf(lines, sizeof lines, "%s", text);
	for (char *space = strchr(lines, ' '); space; space = strchr(space + 1, ' ')) {
		size_t at = (size_t)(space - lines);

		if (at + 1 + strcspn(space + 1, " ") - begin > PROSE_COLUMNS) {
			*space = '\n';
			begin = at + 1;
		}
	}
	print_text(lines);
}

/* One argument of a macro. */
static void print_argument(const char *text)
{
	out_text(" \"");
	for (; *text; text++)
		if (*text == '"')
			out_text("\\(dq");
		else if (*text == '\\')
			out_text("\\e");
		else
			out_bytes(text, 1);
	out_text("\"");
}

/* ---- sections -------------------------------------------------------------------------------------------------- */

static void print_name(const struct command *command)
{
	if (!command) {
		out_text(".Dt EVBUS 1\n.Os\n.Sh NAME\n.Nm evbus\n.Nd a durable event bus in plain files\n");
		out_text(".Sh SYNOPSIS\n.Nm\n.Ar COMMAND\n.Op Ar OPTION ...\n");
		return;
	}
	struct name name = name_of(command->name);
	out_text(".Dt EVBUS-");
	for (const char *at = name.text; *at; at++)
		out_bytes((const char[]){ *at >= 'a' && *at <= 'z' ? (char)(*at - 'a' + 'A') : *at }, 1);
	out_printf(" 1\n.Os\n.Sh NAME\n.Nm evbus-%s\n.Nd %s\n", name.text, command->summary);
}

/* "-- COMMAND [ARG...]", "[-- COMMAND [ARG...]]" */
static bool print_command_line(const char *takes)
{
	bool optional = takes[0] == '[';

	if (strncmp(takes + optional, "-- ", 3) != 0)
		return false;
	out_printf("%s \\-\\- Ar COMMAND Op Ar ARG ...\n", optional ? ".Op Cm" : ".Cm");
	return true;
}

/* "[FILE...]", "TOPIC", "bash|zsh" */
static void print_operand(const char *takes, size_t len)
{
	bool optional = takes[0] == '[';
	size_t name = strcspn(takes + optional, ".] ");

	out_text(optional ? ".Op Ar" : ".Ar");
	out_printf(" %.*s", (int)name, takes + optional);
	out_text(memmem(takes, len, "...", 3) ? " ...\n" : "\n");
}

static void print_synopsis(const struct command *command)
{
	out_printf(".Sh SYNOPSIS\n.Nm \"evbus %s\"\n", name_of(command->name).text);
	for (const struct opt *opt = command->opts; opt->member[0]; opt++)
		if (opt->required) {
			if (opt->letter)
				out_printf(".Fl %c", opt->letter);
			else
				out_printf(".Fl Fl %s", name_of(opt->member).text);
			out_printf(" Ar %s\n", opt->value);
		}
	out_text(".Op Ar OPTION ...\n");
	for (const char *takes = command->takes ? command->takes : ""; *takes;) {
		size_t len = strcspn(takes, " ");

		if (print_command_line(takes))
			return;
		print_operand(takes, len);
		takes += len + strspn(takes + len, " ");
	}
}

static void print_options(const struct command *command)
{
	out_text(".Sh OPTIONS\n.Bl -tag -width Ds\n");
	for (const struct opt *opt = command->opts; opt->member[0]; opt++) {
		char help[HELP_MAX_BYTES];

		out_text(".It");
		if (opt->letter)
			out_printf(" Fl %c ,", opt->letter);
		out_printf(" Fl Fl %s", name_of(opt->member).text);
		if (opt->alias[0])
			out_printf(" , Fl Fl %s", opt->alias);
		if (opt->value[0]) {
			out_text(" Ar");
			print_argument(opt->value);
		}
		out_text("\n");
		opt_help(opt, help);
		print_prose(help);
	}
	out_text(".El\n");
}

static void print_environment(const struct command *command)
{
	bool any = false;

	for (const struct opt *opt = command->opts; opt->member[0]; opt++) {
		if (!opt->env)
			continue;
		out_text(any ? "" : ".Sh ENVIRONMENT\n.Bl -tag -width Ds\n");
		any = true;
		out_printf(".It Ev %s\nThe value of\n.Fl Fl %s\nwhere that is not given.\n",
			   env_name_of(opt->member).text, name_of(opt->member).text);
		if (opt->env_other[0])
			out_printf(".It Ev %s\nThe same, where\n.Ev %s\nis not set.\n", opt->env_other,
				   env_name_of(opt->member).text);
	}
	out_text(any ? ".El\n" : "");
}

static void print_commands(void)
{
	out_text(".Sh COMMANDS\n.Bl -tag -width Ds\n");
	for (const struct command *const *each = commands; *each; each++) {
		if ((*each)->hidden)
			continue;
		out_printf(".It Xr evbus-%s 1\n", name_of((*each)->name).text);
		print_prose((*each)->summary);
	}
	out_text(".El\n");
}

static void print_status(enum evbus_code code, const char *means)
{
	out_printf(".It %d\n", (int)code);
	print_prose(means);
}

static void print_examples(const struct command *command)
{
	if (!command->examples)
		return;
	out_text(".Sh EXAMPLES\n.Bd -literal -offset indent\n");
	for (const struct example *example = command->examples; example->run; example++) {
		out_text("$ ");
		print_text(example->run);
		if (example->prints && example->prints[0])
			print_text(example->prints);
	}
	out_text(".Ed\n");
}

/* ---- prose ----------------------------------------------------------------------------------------------------- */

/* The next section in *at, its heading line included; len 0 at the end. */
static struct evbus_slice next_section(const char **at)
{
	const char *begin = *at, *end = strstr(begin, "\n.Sh ");
	size_t len = end ? (size_t)(end + 1 - begin) : strlen(begin);

	*at = begin + len;
	return (struct evbus_slice){ begin, len };
}

static bool stands_before(struct evbus_slice section)
{
	static const char *const before[] = { ".Sh CONTEXT\n", ".Sh IMPLEMENTATION NOTES\n", ".Sh FILES\n" };

	for (size_t i = 0; i < COUNT(before); i++)
		if (!strncmp(section.data, before[i], strlen(before[i])))
			return true;
	return false;
}

static void print_sections(const char *at, bool before)
{
	for (struct evbus_slice section = next_section(&at); section.len; section = next_section(&at))
		if (stands_before(section) == before)
			out_bytes(section.data, section.len);
}

static void print_page(const struct command *command, const char *prose)
{
	const char *date_end = strchr(prose, '\n');
	const char *rest = date_end ? date_end + 1 : "";
	struct evbus_slice description = next_section(&rest);

	out_printf(".\\\" Made by `meson compile docs` from cmd/ and man/src/; do not edit.\n%.*s\n",
		   (int)(date_end ? date_end - prose : (int)strlen(prose)), prose);
	print_name(command);
	if (command)
		print_synopsis(command);
	out_text(".Sh DESCRIPTION\n");
	out_bytes(description.data, description.len);
	if (command) {
		print_options(command);
		print_environment(command);
	} else {
		print_commands();
	}
	print_sections(rest, true);
	out_text(".Sh EXIT STATUS\n.Bl -tag -width Ds\n");
	doc_statuses(command, print_status);
	out_text(".El\n");
	if (command)
		print_examples(command);
	print_sections(rest, false);
}

enum evbus_code doc_manual(struct call *call, const struct command *command, const char *prose_path)
{
	static char prose[PROSE_MAX_BYTES + 1];

	TRY(read_prose(call, prose_path, prose));
	print_page(command, prose);
	return out_flush(call);
}

/* opt.c: the only option parser.
 *
 * --name=value, --name value, -n value, -nvalue, flags bundled (-qv), operands anywhere. -- ends options; where a command
 * is run, all behind it is that command. What follows an option that takes a value is its value, also where it begins
 * with a dash (-o -10, -S -15m). Names are not abbreviated: a script must not break when an option is added. The last of
 * several wins.
 *
 * Only the first failure counts, but the rest is read as well, so that --log decides how the failure is told. */
#include "opt.h"

#include <assert.h>
#include <string.h>
#include <strings.h>

struct parse {
	struct call *call;
	char *args;
	char **words; /* all that is to be parsed; operands are moved to the front */
	size_t count, next;
	size_t operands;
	enum evbus_code code;
};

#define FAIL(parse, ...) ((parse)->code = (parse)->code ? (parse)->code : fail((parse)->call, EVBUS_USAGE, __VA_ARGS__))

static const struct opt *find_long(const struct opt *opts, const char *name, size_t len)
{
	for (const struct opt *opt = opts; opt->member[0]; opt++) {
		if (name_is(opt->member, name, len))
			return opt;
		if (opt->alias[0] && strlen(opt->alias) == len && !memcmp(opt->alias, name, len))
			return opt;
	}
	return NULL;
}

static const struct opt *find_letter(const struct opt *opts, char letter)
{
	for (const struct opt *opt = opts; opt->member[0]; opt++)
		if (opt->letter == letter)
			return opt;
	return NULL;
}

static void unknown_option(struct parse *parse, const char *word, size_t len)
{
	char name[NAME_MAX_BYTES] = "";
	struct nearest nearest = { .word = name };

	memcpy(name, word + 2, len - 2 < sizeof name ? len - 2 : sizeof name - 1);
	for (const struct opt *opt = parse->call->command->opts; opt->member[0]; opt++) {
		nearest_try(&nearest, name_of(opt->member).text);
		if (opt->alias[0])
			nearest_try(&nearest, opt->alias);
	}
	if (nearest.best.text[0])
		FAIL(parse, "unknown option '%.*s'; did you mean '--%s'?", (int)len, word, nearest.best.text);
	else
		FAIL(parse, "unknown option '%.*s'; see 'evbus %s --help'", (int)len, word,
		     name_of(parse->call->command->name).text);
}

/* ps shows a command line to everybody. Returns where else a password may stand; NULL: there is none in this value. */
static const char *shows_password(const struct opt *opt, const char *value)
{
	static const char libpq[] = "a passfile (~/.pgpass), a service file or PGPASSWORD";
	static const char amqp[] = "a file, named by password_file=FILE in the URL";
	static const struct {
		const char *begin, *instead;
	} schemes[] = {
		{ "postgres://", libpq }, { "postgresql://", libpq }, { "amqp://", amqp }, { "amqps://", amqp }
	};

	if (opt->kind == KIND_FLAG || strncmp(opt->value, "URL", 3) != 0)
		return NULL;
	for (size_t i = 0; i < COUNT(schemes); i++)
		if (!strncasecmp(value, schemes[i].begin, strlen(schemes[i].begin)) && holds_password(value))
			return schemes[i].instead;
	return NULL;
}

static void set(struct parse *parse, const struct opt *opt, const char *value)
{
	size_t index = (size_t)(opt - parse->call->command->opts);
	const char *instead = shows_password(opt, value);
	char why[WHY_MAX_BYTES];

	parse->call->given |= UINT64_C(1) << index;
	if (opt->kind == KIND_FLAG)
		*(bool *)(parse->args + opt->at) = true;
	else if (instead)
		FAIL(parse,
		     "option '--%s': a password in it is seen by everybody: put it into %s, or the URL into the "
		     "environment or the configuration",
		     name_of(opt->member).text, instead);
	else if (!value_parse(opt, value, parse->args + opt->at, why))
		FAIL(parse, "option '--%s': '%s' %s", name_of(opt->member).text, value, why);
}

/* The rest of the word, or the next word, is the value of an option that takes one. */
static void set_with(struct parse *parse, const struct opt *opt, const char *rest)
{
	if (!rest && opt->kind != KIND_FLAG) {
		if (parse->next == parse->count) {
			FAIL(parse, "option '--%s': its value is missing: %s", name_of(opt->member).text, opt->value);
			return;
		}
		rest = parse->words[parse->next++];
	}
	set(parse, opt, rest);
}

static void parse_long(struct parse *parse, const char *word)
{
	const char *equals = strchr(word, '=');
	size_t len = equals ? (size_t)(equals - word) : strlen(word);
	const struct opt *opt = find_long(parse->call->command->opts, word + 2, len - 2);

	if (!opt)
		unknown_option(parse, word, len);
	else if (equals && opt->kind == KIND_FLAG)
		FAIL(parse, "option '%.*s' takes no value", (int)len, word);
	else
		set_with(parse, opt, equals ? equals + 1 : NULL);
}

static void parse_letters(struct parse *parse, const char *word)
{
	for (const char *at = word + 1; *at; at++) {
		const struct opt *opt = find_letter(parse->call->command->opts, *at);

		if (!opt) {
			FAIL(parse, "unknown option '-%c'; see 'evbus %s --help'", *at,
			     name_of(parse->call->command->name).text);
			return;
		}
		if (opt->kind != KIND_FLAG) {
			set_with(parse, opt, at[1] ? at + 1 : NULL);
			return;
		}
		set(parse, opt, NULL);
	}
}

/* Where "-- COMMAND [ARG...]" or the same in brackets stands in what a command takes. */
static const char *command_taken(const struct parse *parse)
{
	const char *takes = parse->call->command->takes;
	const char *dashes = takes ? strstr(takes, "-- ") : NULL;

	return dashes && dashes > takes && dashes[-1] == '[' ? dashes - 1 : dashes;
}

static void parse_words(struct parse *parse)
{
	bool only_operands = false;

	while (parse->next < parse->count) {
		char *word = parse->words[parse->next++];

		if (only_operands || word[0] != '-' || !word[1]) {
			parse->words[parse->operands++] = word;
		} else if (!strcmp(word, "--")) {
			only_operands = true;
			if (!command_taken(parse))
				continue;
			parse->call->argv = (const char *const *)parse->words + parse->next;
			break;
		} else if (word[1] == '-') {
			parse_long(parse, word);
		} else {
			parse_letters(parse, word);
		}
	}
	parse->call->operands = (const char *const *)parse->words;
	parse->call->operand_count = parse->operands;
}

static bool was_given(const struct parse *parse, const struct opt *opt)
{
	ptrdiff_t index = opt - parse->call->command->opts;

	assert(index < 64);
	return parse->call->given >> index & 1;
}

/* What was not given: from the environment, the configuration, or else what the declaration presets. */
static void fill(struct parse *parse, const struct opt *opt)
{
	struct call *call = parse->call;
	char *at = parse->args + opt->at;
	struct fallback fallback = fallback_of(call, opt);
	struct evbus_err first = call->err;
	char why[WHY_MAX_BYTES];

	enum evbus_code code = fallback.value ? fallback_parse(call, opt, &fallback, at) : EVBUS_OK;
	/* The first failure is the one that is told; and where there is none, a library may have left a text. */
	if (code && !parse->code)
		parse->code = code;
	else
		call->err = first;
	if (fallback.value && !code)
		return;
	if (opt->preset[0]) {
		bool right = value_parse(opt, opt->preset, at, why);
		assert(right);
		(void)right;
	} else if (opt->kind == KIND_NUMBER || opt->kind == KIND_DURATION || opt->kind == KIND_SIZE) {
		*(int64_t *)(void *)at = opt->unset;
	}
}

/* Before all others, as what these are may depend on it. */
static void open_config(struct parse *parse)
{
	static const char *const names[] = { "config", "profile" };
	struct call *call = parse->call;
	struct evbus_err first = call->err;
	bool reads = false;

	for (size_t i = 0; i < COUNT(names); i++) {
		const struct opt *opt = find_long(call->command->opts, names[i], strlen(names[i]));

		if (opt && !was_given(parse, opt))
			fill(parse, opt);
		reads = reads || opt;
	}
	if (!reads)
		return;
	enum evbus_code code = fallback_open(call);
	if (code && !parse->code)
		parse->code = code;
	else
		call->err = first;
}

static void fill_all(struct parse *parse)
{
	const struct opt *opts = parse->call->command->opts;

	open_config(parse);
	for (const struct opt *opt = opts; opt->member[0]; opt++) {
		if (was_given(parse, opt))
			continue;
		fill(parse, opt);
		if (opt->required)
			FAIL(parse, "option '--%s' is missing; see 'evbus %s --help'", name_of(opt->member).text,
			     name_of(parse->call->command->name).text);
	}
}

static void check_command(struct parse *parse, const char *takes)
{
	if (parse->call->argv && !parse->call->argv[0])
		FAIL(parse, "the command behind '--' is missing; see 'evbus %s --help'",
		     name_of(parse->call->command->name).text);
	else if (!parse->call->argv && takes[0] != '[')
		FAIL(parse, "'%s' is missing; see 'evbus %s --help'", takes, name_of(parse->call->command->name).text);
}

/* Counts operands against "[FILE...]", "TOPIC [NAME]", "bash|zsh|fish", "-- COMMAND [ARG...]". */
static void check_operands(struct parse *parse)
{
	const char *takes = parse->call->command->takes ? parse->call->command->takes : "";
	const char *command = command_taken(parse);
	size_t have = parse->operands, n = 0;

	if (command)
		check_command(parse, command);
	while (*takes && takes != command) {
		size_t len = strcspn(takes, " ");

		if (n >= have && takes[0] != '[')
			FAIL(parse, "operand '%.*s' is missing; see 'evbus %s --help'", (int)len, takes,
			     name_of(parse->call->command->name).text);
		else if (n < have && memchr(takes, '|', len) && !word_is_one_of(takes, parse->words[n], len))
			FAIL(parse, "'%s' is not one of %.*s", parse->words[n], (int)len, takes);
		if (memmem(takes, len, "...", 3))
			return;
		takes += len + strspn(takes + len, " ");
		n++;
	}
	if (have > n)
		FAIL(parse, "operand '%s' is one too many; see 'evbus %s --help'", parse->words[n],
		     name_of(parse->call->command->name).text);
}

enum evbus_code opt_parse(struct call *call, void *args, int argc, char **argv)
{
	struct parse parse = { .call = call, .args = args, .words = argv, .count = (size_t)argc };

	parse_words(&parse);
	enum evbus_code understood = parse.code;
	fill_all(&parse);
	check_operands(&parse);
	argv[parse.operands] = NULL; /* argv[argc] is NULL, so there is room */
	/* Who asks for help need not know what is required. */
	return call->common->help ? understood : parse.code;
}

/* find.c: which command is meant: "publish", "topic-list", "topic list", "topic", or the name of a symlink. */
#include "opt.h"
#include "commands.h"

#include <stdio.h>
#include <string.h>

#define X(name) extern const struct command name##_command;
COMMANDS(X)
#undef X

#define X(name) &name##_command,
const struct command *const commands[] = { COMMANDS(X) NULL };
#undef X

const char *own_part(const char *member)
{
	const char *dot = strrchr(member, '.');

	return dot ? dot + 1 : member;
}

struct name name_of(const char *member)
{
	const char *at = own_part(member);
	struct name name;
	size_t len = 0;

	for (; *at && len < sizeof name.text - 1; at++)
		name.text[len++] = *at == '_' ? '-' : *at;
	name.text[len] = '\0';
	return name;
}

/* At each start each command and option is compared, so without making the name. */
bool name_is(const char *member, const char *name, size_t len)
{
	const char *own = own_part(member);
	size_t at = 0;

	while (at < len && own[at] && name[at] == (own[at] == '_' ? '-' : own[at]))
		at++;
	return at == len && !own[at];
}

struct name env_name_of(const char *member)
{
	struct name name = { "EVBUS_" };
	size_t len = strlen(name.text);

	for (const char *at = own_part(member); *at && len < sizeof name.text - 1; at++)
		name.text[len++] = *at == '-' ? '_' : *at >= 'a' && *at <= 'z' ? (char)(*at - 'a' + 'A') : *at;
	return name;
}

/* Edits (insert, remove, replace) from one word to the other: Levenshtein, one row of the matrix at a time. */
static size_t edits(const char *a, const char *b)
{
	size_t row[NAME_MAX_BYTES], width = strlen(b);

	if (width >= NAME_MAX_BYTES || strlen(a) >= NAME_MAX_BYTES)
		return NAME_MAX_BYTES;
	for (size_t j = 0; j <= width; j++)
		row[j] = j;
	for (size_t i = 1; a[i - 1]; i++) {
		size_t diagonal = row[0];

		row[0] = i;
		for (size_t j = 1; j <= width; j++) {
			size_t replaced = diagonal + (a[i - 1] != b[j - 1]);
			size_t best = (row[j - 1] < row[j] ? row[j - 1] : row[j]) + 1;

			diagonal = row[j];
			row[j] = replaced < best ? replaced : best;
		}
	}
	return row[width];
}

void nearest_try(struct nearest *nearest, const char *candidate)
{
	size_t distance = edits(nearest->word, candidate), limit = 1 + strlen(candidate) / 4;

	if (distance > limit || (nearest->best.text[0] && distance >= nearest->distance))
		return;
	nearest->distance = distance;
	snprintf(nearest->best.text, sizeof nearest->best.text, "%s", candidate);
}

const struct command *command_named(const char *name)
{
	for (const struct command *const *each = commands; *each; each++)
		if (name_is((*each)->name, name, strlen(name)))
			return *each;
	return NULL;
}

static const struct command *command_of_pair(const char *noun, const char *verb)
{
	char name[NAME_MAX_BYTES];
	int n = snprintf(name, sizeof name, "%s-%s", noun, verb);

	return n > 0 && (size_t)n < sizeof name ? command_named(name) : NULL;
}

static void nearest_command(struct nearest *nearest, const char *word)
{
	nearest->word = word;
	for (const struct command *const *each = commands; *each; each++)
		if (!(*each)->hidden)
			nearest_try(nearest, name_of((*each)->name).text);
}

static int unknown(struct call *call, const char *word, const char *next)
{
	char pair[2 * NAME_MAX_BYTES] = "";
	struct nearest nearest = { .word = word };

	nearest_command(&nearest, word);
	if (!nearest.best.text[0] && next) {
		snprintf(pair, sizeof pair, "%s-%s", word, next);
		nearest_command(&nearest, pair);
	}
	if (nearest.best.text[0])
		fail(call, EVBUS_USAGE, "unknown command '%s'; did you mean '%s'?", pair[0] ? pair : word,
		     nearest.best.text);
	else
		fail(call, EVBUS_USAGE, "unknown command '%s'; 'evbus help' lists them", word);
	return 0;
}

static int find_words(struct call *call, const char *word, const char *next)
{
	bool has_next = next && next[0] != '-';

	if ((call->command = command_named(word)))
		return 1;
	if (has_next && (call->command = command_of_pair(word, next)))
		return 2;
	/* Only a noun that stands alone is its list: otherwise a mistyped verb would list, and end with 0. */
	if (!has_next && (call->command = command_of_pair(word, "list")))
		return 1;
	return unknown(call, word, has_next ? next : NULL);
}

int command_find(struct call *call, int argc, char **argv)
{
	const char *self = argc > 0 ? argv[0] : "evbus";
	const char *slash = strrchr(self, '/');

	self = slash ? slash + 1 : self;
	if (!strncmp(self, "evbus-", 6))
		return find_words(call, self + 6, argv[1]);
	if (argc < 2) {
		fail(call, EVBUS_USAGE, "a command is missing; 'evbus help' lists them");
		return 0;
	}
	const char *word = argv[1];
	if (!strcmp(word, "--help") || !strcmp(word, "-h"))
		word = "help";
	else if (!strcmp(word, "--version") || !strcmp(word, "-V"))
		word = "version";
	else if (word[0] == '-')
		fail(call, EVBUS_USAGE,
		     "option '%s' before the command; options follow it, as in 'evbus tail -t orders'", word);
	if (word[0] == '-')
		return 0;
	int words = find_words(call, word, argv[2]);
	return words ? words + 1 : 0;
}

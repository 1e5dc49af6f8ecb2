/* opt.h: options and their values; for main and the printers of documentation. */
#ifndef OPT_H
#define OPT_H

#include "cmd.h"

#define NAME_MAX_BYTES 64u

struct name {
	char text[NAME_MAX_BYTES];
};

/* Of "common.from_offset" what stands behind the dot. */
const char *own_part(const char *member);
/* "common.from_offset" as an option's or command's name: "from-offset"; and as that of its variable. */
struct name name_of(const char *member);
struct name env_name_of(const char *member);
/* Whether name_of(member) is this. */
bool name_is(const char *member, const char *name, size_t len);

#define COMMANDS_MAX 64u

/* All of them, in the order of cmd/meson.build; ends with NULL. */
extern const struct command *const commands[];
const struct command *command_named(const char *name);

/* Finds the command that argv asks for, sets call->command, and returns how many words of argv named it; 0: none, and
 * call->err says so. */
int command_find(struct call *call, int argc, char **argv);

/* The candidate that was probably meant. Begin with best NULL. */
struct nearest {
	const char *word;
	struct name best;
	size_t distance;
};
void nearest_try(struct nearest *nearest, const char *candidate);

/* Sets args (of ARGS_MAX_BYTES, zeroed) and the operands of call from argv, the words after the command; argv is
 * reordered. Also after a failure as much as was understood is set: --log decides how to tell of it. */
CHECKED enum evbus_code opt_parse(struct call *call, void *args, int argc, char **argv);

#define WHY_MAX_BYTES 320u

/* What an option with `env` is where it was not given: the first of these that says something. */
struct fallback {
	enum { FROM_VARIABLE, FROM_CONFIG, FROM_PRESET } origin;
	const char *value;           /* NULL: it has none */
	struct name variable;        /* FROM_VARIABLE */
	const struct evbus_setting *setting;    /* FROM_CONFIG */
};
struct fallback fallback_of(const struct call *call, const struct opt *opt);
/* Parses its value, which there is, into the member at `at`. EVBUS_CONFIG says where a wrong one stands. */
CHECKED enum evbus_code fallback_parse(struct call *call, const struct opt *opt, const struct fallback *fallback,
				       void *at);

#define SETTINGS_MAX 64u

/* The names that options with `env` have in a configuration, of all commands, each once; NULL at the end. */
size_t setting_names(const char *names[SETTINGS_MAX + 1]);
/* Whether an option is the one that a name means. */
bool setting_is(const struct opt *opt, const char *name);
/* Opens the configuration of --config and --profile. */
CHECKED enum evbus_code fallback_open(struct call *call);

/* Parses text into the member at `at`. false: why says what text should be. */
bool value_parse(const struct opt *opt, const char *text, void *at, char why[WHY_MAX_BYTES]);

/* Whether word is one of "a|b|c". */
bool word_is_one_of(const char *words, const char *word, size_t len);

#endif

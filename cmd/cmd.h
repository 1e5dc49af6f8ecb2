/* cmd.h: what a command is made of.
 *
 * How to add a command:
 *
 * 1. Write cmd/NAME.c. (A noun's family shares a file: topic-list and topic-create are in cmd/topic.c, and share its
 *    struct args.)
 *
 *	#include "cmd.h"
 *	#include "out.h"
 *
 *	struct args {
 *		struct common common;              // always the first member
 *		const char *topic;
 *		int64_t partition;
 *		struct duration timeout;
 *	};
 *
 *	COMMAND(count,                             // topic_list becomes topic-list
 *		.summary = "count the records of a topic",
 *		.opts = OPTS(COMMON_OPTS,
 *			OPT('t', topic, "TOPIC", "which topic", .required = true),
 *			OPT('p', partition, "N", "only this partition", .unset = -1),
 *			OPT(0, timeout, "DURATION", "give up after this time", .preset = "10s")),
 *		.examples = EXAMPLES({ "evbus count -t orders", "0" }));
 *
 *	static enum evbus_code count_run(struct args *args, struct call *call)
 *	{
 *		CLEANUP(bus_cleanup) struct evbus *bus = NULL;
 *
 *		TRY(bus_open(call, NULL, &bus));
 *		…
 *	}
 *
 * 2. Add the word 'count' to the list in cmd/meson.build.
 * 3. Write the prose of its manual page, man/src/count.mdoc, and run `meson compile docs`.
 *
 * The name of a member is the name of the option (underscores become dashes, and of common.bus only bus counts); its C
 * type picks the parser. Help, manual, completions and the tests of the examples are printed from the declaration. */
#ifndef CMD_H
#define CMD_H

#include <evbus.h>

#define CHECKED __attribute__((warn_unused_result))
#define CLEANUP(fn) __attribute__((cleanup(fn)))
#define COUNT(array) (sizeof(array) / sizeof(array)[0])

/* Passes a failure up. */
#define TRY(call_)                                       \
	do {                                             \
		enum evbus_code try_code_ = (call_);     \
		if (try_code_ != EVBUS_OK)               \
			return try_code_;                \
	} while (0)

/* ---- types of options ------------------------------------------------------------------------------------------ */

#define LIST_MAX 64u                 /* how often an option such as --where may be given */
#define ARGS_MAX_BYTES 8192u         /* of a struct args */

/* const char * is any text, bool a flag, int64_t a number within .min and .max; and these: */
struct duration {
	int64_t ms;                  /* 500ms 10s 5m 2h 3d, a bare number is seconds */
};
struct size {
	int64_t bytes;               /* 4096 64K 1M 1GiB, in powers of 1024 */
};
struct rate {
	double per_second;           /* 100 100/s 30/m 1000/h */
};
struct factor {
	double value;                /* 2 1.5, at least 1 */
};
struct mode {
	uint32_t bits;               /* 0640 */
};
struct list {
	const char *items[LIST_MAX]; /* each time it is given adds one */
	size_t count;
};
struct position {
	const char *text;            /* a POSITION, of the right form */
};
struct moment {
	const char *text;            /* a TIME, of the right form */
};
struct record_format {
	const char *text;            /* a format or template for out_format(), of the right form */
};

enum kind {
	KIND_TEXT,
	KIND_FLAG,
	KIND_NUMBER,
	KIND_DURATION,
	KIND_SIZE,
	KIND_RATE,
	KIND_FACTOR,
	KIND_MODE,
	KIND_LIST,
	KIND_POSITION,
	KIND_MOMENT,
	KIND_RECORD_FORMAT,
};

#define KIND(value_)                                       \
	_Generic((value_),                                 \
		const char *: KIND_TEXT,                   \
		bool: KIND_FLAG,                           \
		int64_t: KIND_NUMBER,                      \
		struct duration: KIND_DURATION,            \
		struct size: KIND_SIZE,                    \
		struct rate: KIND_RATE,                    \
		struct factor: KIND_FACTOR,                \
		struct mode: KIND_MODE,                    \
		struct list: KIND_LIST,                    \
		struct position: KIND_POSITION,            \
		struct moment: KIND_MOMENT,                \
		struct record_format: KIND_RECORD_FORMAT)

/* ---- the declaration ------------------------------------------------------------------------------------------- */

/* Texts stand in it, "" for none: a pointer would be relocated at each start, for which its page is copied first. */
struct opt {
	char member[24];             /* "from_offset", "common.bus"; name_of() makes a name of it */
	char value[20];              /* what it takes; "" for a flag. TOPIC GROUP FILE DIR COMMAND complete */
	char help[120];
	char alias[16];              /* a second long name */
	char words[64];              /* of a text: only one of these, "text|json" */
	char preset[16];             /* what holds where nothing was said; help shows it */
	int64_t unset;               /* the same for a number, duration or size that has no value to show */
	int64_t min, max;            /* of a number or size; max 0: as large as it likes */
	size_t at;                   /* where in struct args */
	enum kind kind;
	char letter;                 /* 0: none */
	bool required;
	bool env;                    /* EVBUS_ and its name, and the configuration, are asked where it was not given */
	char env_other[16];          /* and then this variable, which others made up */
};

struct example {
	const char *run;             /* for sh; those of a command run in turn in one empty directory, and end with 0 */
	const char *prints;          /* on stdout, without the last newline; … stands for any text */
};

struct status {
	enum evbus_code code;
	const char *means;
};

struct call;

struct command {
	const char *name;            /* with underscores; command_name() has the dashes */
	const char *summary;         /* one line, lower case, no full stop */
	const char *takes;           /* operands: "[FILE...]", "TOPIC", "bash|zsh|fish"; NULL: none. Counted by main.
	                                Last, "-- COMMAND [ARG...]" or "[-- COMMAND [ARG...]]": what to run */
	const struct opt *opts;      /* ends with a member of "" */
	const struct example *examples;
	const struct status *statuses;     /* exit statuses that mean more here than in general */
	bool hidden;                 /* from help and completions */
	bool must_print;             /* a closed stdout is a failure (74), as with receipts; else it is 0 */
	bool no_bus;                 /* it only prints: exit statuses of buses are not its own */
	enum evbus_code (*run)(void *args, struct call *call);
};

/* OPT(letter or 0, member, what it takes or "", help, further members of struct opt…) */
#define OPT(letter_, member_, value_, ...)                                                     \
	{                                                                                      \
		.letter = (letter_), .member = #member_, .at = offsetof(struct args, member_), \
		.kind = KIND(((struct args *)0)->member_), .value = value_, .help = __VA_ARGS__ \
	}
#define OPTS(...) ((const struct opt[]){ __VA_ARGS__, { .member = "" } })
#define EXAMPLES(...) ((const struct example[]){ __VA_ARGS__, { NULL, NULL } })
#define STATUSES(...) ((const struct status[]){ __VA_ARGS__, { EVBUS_OK, NULL } })

/* Declares NAME_run() of the command's file and defines NAME_command for the list in meson.build. */
#define COMMAND(name_, ...)                                                                                       \
	static enum evbus_code name_##_run(struct args *args, struct call *call);                                 \
	static enum evbus_code name_##_start(void *args, struct call *call)                                       \
	{                                                                                                         \
		return name_##_run(args, call);                                                                   \
	}                                                                                                         \
	_Static_assert(offsetof(struct args, common) == 0, "struct common comes first");                          \
	_Static_assert(sizeof(struct args) <= ARGS_MAX_BYTES, "ARGS_MAX_BYTES is too small");                     \
	extern const struct command name_##_command;                                                              \
	const struct command name_##_command = { .name = #name_, .run = name_##_start, __VA_ARGS__ }

/* ---- options that several commands share ----------------------------------------------------------------------- */

struct common {
	const char *bus;
	const char *store;
	const char *config;
	const char *profile;
	const char *log;
	struct list bus_option;
	bool quiet;
	bool verbose;
	bool help;
};

#define TALK_OPTS                                                                                                   \
	OPT(0, common.log, "text|json", "how to talk on stderr", .words = "text|json", .preset = "text", .env = true), \
		OPT('q', common.quiet, "", "say nothing on stderr but warnings and errors"),                      \
		OPT('v', common.verbose, "", "say more on stderr"),                                               \
		OPT('h', common.help, "", "print this help")

/* A command that has these takes what it was not told from the configuration; one that has not reads none. */
#define BUS_OPTS                                                                                                   \
	OPT('b', common.bus, "URL", "which bus", .preset = "file:event_bus", .env = true),                         \
		OPT('X', common.bus_option, "NAME=VALUE", "an option for its URL (again for more)"),               \
		OPT(0, common.store, "URL", "where checkpoints are kept, sqlite:FILE or postgresql://... (default: in the bus)", .env = true), \
		OPT(0, common.config, "FILE", "read this configuration; /dev/null: none", .env = true),            \
		OPT(0, common.profile, "NAME", "what this profile of the configuration says comes first", .env = true)

#define COMMON_OPTS BUS_OPTS, TALK_OPTS

/* struct reading reading; what to read, for READING_OPTS. */
struct reading {
	const char *topic;
	int64_t partition;
	const char *group;
	struct position offset, to_offset;
	struct moment since, until;
	const char *type, *tenant, *correlation_id, *event_key;
	struct list where;
};

#define READING_OPTS                                                                                               \
	OPT('t', reading.topic, "TOPIC", "which topic, or a pattern: * for one token, > for the rest",             \
	    .required = true),                                                                                     \
		OPT('p', reading.partition, "N", "only this partition", .unset = EVBUS_PARTITION_ALL,              \
		    .max = EVBUS_PARTITIONS_MAX - 1),                                                              \
		OPT('g', reading.group, "GROUP", "begin at this group's checkpoint"),                              \
		OPT('o', reading.offset, "POSITION", "begin here: N, beginning, end, -N, @TIME or stored",         \
		    .alias = "from-offset"),                                                                       \
		OPT(0, reading.to_offset, "POSITION", "end before this one"),                                      \
		OPT('S', reading.since, "TIME", "only what was published at or after: RFC 3339, -15m, Unix seconds"), \
		OPT('U', reading.until, "TIME", "only what was published before"),                                 \
		OPT(0, reading.type, "PATTERN", "only events of this type"),                                       \
		OPT(0, reading.tenant, "ID", "only events of this tenant"),                                        \
		OPT(0, reading.correlation_id, "ID", "only events with this correlation id"),                      \
		OPT(0, reading.event_key, "KEY", "only events with this event key"),                               \
		OPT(0, reading.where, "/POINTER=VALUE", "only where this member has this value; may be repeated")

/* The selection that was asked for; it borrows from *reading. last and follow are the caller's. */
struct evbus_selection reading_selection(const struct reading *reading);

/* struct retry_args retry; for RETRY_OPTS. */
struct retry_args {
	int64_t retry_max;
	struct duration retry_delay, retry_cap;
	struct factor retry_factor;
};

#define RETRY_OPTS                                                                                                 \
	OPT(0, retry.retry_max, "N", "try again so often after the first attempt; then it is a dead letter",       \
	    .preset = "5", .max = UINT32_MAX, .env = true, .env_other = "RETRY_MAX"),                              \
		OPT(0, retry.retry_delay, "DURATION", "wait at most so long before the second attempt",            \
		    .preset = "1s", .env = true),                                                                  \
		OPT(0, retry.retry_factor, "X", "and before each further one so many times as long", .preset = "2", \
		    .env = true),                                                                                  \
		OPT(0, retry.retry_cap, "DURATION", "but never longer than this", .preset = "60s", .env = true)

/* The policy that was asked for. The parsers of its options let only a right one through. */
struct evbus_retry retry_policy(const struct retry_args *args);

/* struct size max_payload; an event is at most 3 MiB, as its line is below 4 MiB. */
#define MAX_PAYLOAD_OPT                                                                                          \
	OPT(0, max_payload, "SIZE", "refuse larger events, at most 3M", .preset = "1MiB", .min = 1, .max = 3 << 20, \
	    .env = true)

/* For `struct record_format format` and `const char *format`. */
#define RECORD_FORMAT_OPT                                                                                        \
	OPT(0, format, "FORMAT", "json, payload, stored, pretty, tsv or a template: '{topic} {offset} {/id}\\n'", \
	    .preset = "json", .env = true)
#define LIST_FORMAT_OPT OPT(0, format, "table|json|tsv", "how to print", .words = "table|json|tsv", .preset = "table")

/* ---- a call ---------------------------------------------------------------------------------------------------- */

/* What a message is about, for --log json. Empty or -1 where it does not matter. */
struct about {
	char topic[EVBUS_TOPIC_MAX_BYTES + 1];
	int32_t partition_id;
	char offset[64];
};

struct call {
	const struct command *command;
	struct common *common;       /* the head of its struct args */
	const char *const *operands; /* ends with NULL */
	size_t operand_count;
	const char *const *argv;     /* the words behind "--" of a command that runs one; NULL: there are none */
	uint64_t given;              /* a bit an option of the command: it stood on the command line */
	struct evbus_config *config; /* NULL: there is none */
	char *url;                   /* common->bus with its --bus-option; NULL: it has none */
	struct evbus_err err;        /* what main prints if the command returns its code */
	struct about about;
};

/* Sets call->err and returns code. fail_errno() adds what errno means. EVBUS_NO may also be returned without a word. */
enum evbus_code fail(struct call *call, enum evbus_code code, const char *format, ...)
	__attribute__((format(printf, 3, 4)));
enum evbus_code fail_errno(struct call *call, enum evbus_code code, const char *format, ...)
	__attribute__((format(printf, 3, 4)));
/* Puts context in front of what call->err says, and returns its code. */
enum evbus_code fail_within(struct call *call, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Notes what following messages are about. */
void about_record(struct call *call, const struct evbus_record *record);
void about_topic(struct call *call, const char *topic, int32_t partition_id);

/* A line on stderr. DETAIL is heard with --verbose only, NOTICE not with --quiet, WARNING always. An error is never
 * talked of: it is returned, and main prints it. May be called from any thread. */
enum level { DETAIL, NOTICE, WARNING, ERROR };
void talk(struct call *call, enum level level, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* Puts each --bus-option into the URL of the bus. */
CHECKED enum evbus_code bus_take_options(struct call *call);

/* Opens the bus of --bus and --store. more: further options, or NULL; store, config and notice are filled in. */
CHECKED enum evbus_code bus_open(struct call *call, const struct evbus_options *more, struct evbus **bus);
/* Opens another one, beside it. payload_max_bytes 0: the usual limit. */
CHECKED enum evbus_code bus_open_other(struct call *call, const char *url, uint32_t payload_max_bytes,
				       struct evbus **bus);
void bus_cleanup(struct evbus **bus);

/* EVBUS_USAGE if the URL names a target: what this option asks for (without its dashes) there is not. */
CHECKED enum evbus_code refuse_of_target(struct call *call, const char *url, const char *option, const char *why);

/* The JSON pointers of a partitioning of the configuration. EVBUS_CONFIG: there is none of the name. */
CHECKED enum evbus_code partitioning_named(struct call *call, const char *name, const char **key_from);

/* text without what may be a password: user:***@, password=***. Cut to the size of masked. */
#define MASKED_MAX_BYTES 1024u
void mask_secrets(const char *text, char masked[MASKED_MAX_BYTES]);
/* scheme://user:password@host, or a parameter password=. */
bool holds_password(const char *url);

/* ---- the process ----------------------------------------------------------------------------------------------- */

/* The signal that asks to stop (SIGINT, SIGTERM), or 0. Finish the record in hand, save, return; main does the rest. */
int stopped(void);
/* As go_on for the library. */
bool not_stopped(void *context);

/* Waits until fd can be read, without missing a signal that comes just before. timeout_ms < 0: as long as it takes. */
enum waited { READABLE, TIMED_OUT, STOPPED };
enum waited wait_readable(int fd, int timeout_ms);
/* One of the two; -1 is none. */
enum waited wait_readable_either(int fd, int other, int timeout_ms);

/* For who polls by itself: can be read once a signal asked to stop. Read it empty to notice the next one. */
int stop_fd(void);

/* On a clock that is not set. */
int64_t monotonic_ms(void);

#endif

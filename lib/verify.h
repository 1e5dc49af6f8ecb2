/* verify.h: what verify.c (topics, partitions, what refers to them) and verify_deep.c (payloads) share. */
#ifndef EVBUS_VERIFY_H
#define EVBUS_VERIFY_H

#include "bus.h"
#include "id_set.h"
#include "log/verify.h"

#define ID_TEXT_MAX 1024u                /* of an id, its source and its tenant, each; longer ones count by their hash */

/* The identity of an event: id, source and tenant, each with a NUL. */
struct id_text {
	bool is_known;
	struct id_place place;
	size_t len;
	char text[3 * ID_TEXT_MAX];
};

struct verification {
	struct log_verify log;           /* first: its callbacks get us back from it */
	struct evbus *bus;
	const struct evbus_verify_options *options;
	struct evbus_verify_result *result;
	bool is_pattern;
	struct topic topic;
	struct id_set ids;
	struct cursor looking;           /* at the ids that stand twice; topic NULL while it is closed */
	struct id_text ids_told[2];      /* the first and the one that is the same */
	bool ids_only;                   /* a further pass: everything else was told before */
	int64_t occurred_at_us;
	bool cut_found;                  /* the damage that --cut-at names */
	uint64_t cut_offset, cut_byte;
	bool last_damaged;               /* the newest segment of the partition: where first */
	uint64_t last_damage;
	struct evbus_progress progress;
};

void verify_report(struct verification *run, const struct evbus_finding *finding);
void verify_on_finding(struct log_verify *log, enum evbus_severity severity, const char *what, uint64_t offset,
		       uint64_t byte, const char *text);

/* ---- verify_deep.c ---- */

/* The callbacks of log_verify and of the set of ids. */
CHECKED enum evbus_code verify_on_record(struct log_verify *log, const struct line *line, uint64_t byte,
					 struct evbus_err *err);
CHECKED enum evbus_code verify_on_twice(struct id_set *set, const struct id_place *first,
					const struct id_place *again, struct evbus_err *err);
/* Closes what the latter looks with. */
void verify_look_away(struct verification *run);

#endif

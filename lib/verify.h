/* verify.h: what verify.c (topics, partitions, what refers to them), verify_deep.c (payloads) and verify_read.c (partitions
 * that are not files) share. */
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
	struct topic topic;              /* the files; where there are none, its name and the number of partitions */
	struct backend_topic *home;      /* the same as backends have it; NULL: see verify_home() */
	struct id_set ids;
	const struct partition_reader *reader; /* of the partition, while it is read; NULL: it is files */
	struct partition_reader *looking;/* at the ids that stand twice; NULL while it is closed */
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

/* Opens run->home, where it is not open. */
CHECKED enum evbus_code verify_home(struct verification *run, struct evbus_err *err);

/* verify_read.c: as log_verify() of run->log, where there are no files. */
CHECKED enum evbus_code verify_read(struct verification *run, struct evbus_err *err);

/* verify_against.c: compares topics with those of options->against. names: ours; bytes_total: of both sides, for progress. */
CHECKED enum evbus_code verify_against(struct evbus *bus, const char *pattern, char *const *names,
				       const struct evbus_verify_options *options, uint64_t bytes_total,
				       struct evbus_verify_result *result, struct evbus_err *err);

/* ---- verify_deep.c ---- */

/* The callbacks of log_verify and of the set of ids. */
CHECKED enum evbus_code verify_on_record(struct log_verify *log, const struct line *line, uint64_t byte,
					 struct evbus_err *err);
CHECKED enum evbus_code verify_on_twice(struct id_set *set, const struct id_place *first,
					const struct id_place *again, struct evbus_err *err);
/* Closes what the latter looks with. */
void verify_look_away(struct verification *run);

#endif

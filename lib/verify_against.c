/* verify_against.c: whether two buses have the same payloads in the same order for each key.
 *
 * How a topic is cut into partitions, and which offsets its records have, is not compared: a copy may have others. So one
 * pass over both sides makes of each key a hash over its payloads in their order; records without a key count as having
 * one of their partition's. What differs is then looked for, key by key, by reading both sides side by side.
 *
 * There is room for KEYS_AT_ONCE keys in 24 MiB. Where there are more, a pass keeps those whose hashes begin with the same
 * bits, and others follow for the rest. Two keys of one hash, or two series of payloads, are as likely as 1 in 2^64. */
#include "verify.h"

#include "base/hash.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define TABLE_SIZE (1u << 19)        /* of 48 bytes each */
#define KEYS_AT_ONCE (TABLE_SIZE / 4 * 3)
#define TOLD_MAX 10u                 /* keys of a topic whose first difference is looked for */
#define ASK_RECORDS 8192u
#define KEY_SHOWN 60

enum { OURS, THEIRS, SIDES };

/* What a side has of a key. */
struct chain {
	uint64_t key;                    /* its hash; 0: free */
	uint64_t second;                 /* another one of it, so that both together are the key */
	uint64_t sums[SIDES], counts[SIDES];
};

/* A key whose payloads differ. */
struct odd_key {
	uint64_t key, second;
	int32_t partition;               /* where its first difference is, to tell them in their order */
	struct evbus_finding finding;
};

struct comparison {
	struct evbus *sides[SIDES];
	const struct evbus_verify_options *options;
	struct evbus_verify_result *result;
	const char *topic;
	struct chain *chains;
	size_t count;
	unsigned shift;                  /* the pass has the keys whose first `shift` bits are `pass` */
	uint64_t pass;
	struct odd_key odd[TOLD_MAX];
	uint64_t odd_count;              /* of all */
	struct evbus_progress progress;
};

/* ---- a pass ---- */

static void name_of(const struct evbus_record *record, uint64_t *key, uint64_t *second)
{
	char partition[16];
	struct evbus_slice name = record->partition_key;

	/* As raw JSON no key begins with a digit. */
	if (name.data[0] != '"')
		name = (struct evbus_slice){ partition, (size_t)snprintf(partition, sizeof partition, "%d",
									 record->partition_id) };
	uint64_t hash = hash_add(HASH_START, name.data, name.len);
	*key = hash_finish(hash);
	*key += *key == 0;
	*second = hash_finish(hash_add(hash, "\n", 1) ^ hash_add(~HASH_START, name.data, name.len));
}

static struct evbus_slice payload_of(const struct evbus_record *record)
{
	return record->payload.data ? record->payload : record->payload_base64;
}

static bool is_of_pass(const struct comparison *run, uint64_t key)
{
	return run->shift == 0 || key >> (64 - run->shift) == run->pass;
}

/* Where it is, or has to go. */
static struct chain *place_of(struct chain *chains, uint64_t key, uint64_t second)
{
	size_t at = key & (TABLE_SIZE - 1);

	while (chains[at].key && (chains[at].key != key || chains[at].second != second))
		at = (at + 1) & (TABLE_SIZE - 1);
	return &chains[at];
}

static struct chain *new_chains(struct evbus_err *err)
{
	struct chain *chains = os.realloc(NULL, TABLE_SIZE * sizeof *chains);

	if (!chains) {
		(void)err_set(err, EVBUS_IO, ENOMEM, "cannot compare two buses");
		return NULL;
	}
	memset(chains, 0, TABLE_SIZE * sizeof *chains);
	return chains;
}

/* Leaves half of the keys to a pass that follows. */
static enum evbus_code halve(struct comparison *run, struct evbus_err *err)
{
	struct chain *kept = new_chains(err);

	if (!kept)
		return EVBUS_IO;
	run->shift++;
	run->pass *= 2;
	run->count = 0;
	for (size_t i = 0; i < TABLE_SIZE; i++) {
		const struct chain *chain = &run->chains[i];
		if (!chain->key || !is_of_pass(run, chain->key))
			continue;
		*place_of(kept, chain->key, chain->second) = *chain;
		run->count++;
	}
	free(run->chains);
	run->chains = kept;
	return EVBUS_OK;
}

static enum evbus_code add(struct comparison *run, int side, const struct evbus_record *record, struct evbus_err *err)
{
	struct evbus_slice payload = payload_of(record);
	uint64_t key, second;

	name_of(record, &key, &second);
	while (run->count >= KEYS_AT_ONCE)
		TRY(halve(run, err));
	if (!is_of_pass(run, key))
		return EVBUS_OK;
	struct chain *chain = place_of(run->chains, key, second);
	run->count += chain->key == 0;
	chain->key = key;
	chain->second = second;
	/* Where one payload ends and the next begins is part of it. */
	uint64_t sum = hash_add(HASH_START ^ chain->sums[side], record->payload.data ? "j" : "b", 1);
	chain->sums[side] = hash_finish(hash_add(sum, payload.data, payload.len));
	chain->counts[side]++;
	return EVBUS_OK;
}

static enum evbus_code show_progress(struct comparison *run, struct evbus_err *err)
{
	const struct evbus_verify_options *options = run->options;

	if (options->progress)
		options->progress(options->context, &run->progress);
	if (options->go_on && !options->go_on(options->context))
		return err_set(err, EVBUS_AGAIN, EINTR, "stopped");
	return EVBUS_OK;
}

static void close_reader(struct evbus_reader **reader)
{
	evbus_reader_close(*reader);
}

/* All of the topic that there is now, or NULL where it is not there. */
static enum evbus_code open_side(const struct comparison *run, int side, struct evbus_reader **reader,
				 struct evbus_err *err)
{
	struct evbus_selection selection = { .topic = run->topic, .partition_id = EVBUS_PARTITION_ALL,
					     .go_on = run->options->go_on, .go_on_context = run->options->context };

	struct evbus_err why;
	enum evbus_code code = evbus_reader_open(run->sides[side], &selection, reader, &why);
	if (code == EVBUS_OK || code == EVBUS_NONE)
		return EVBUS_OK;
	return err_set(err, code, 0, "%s%s", side == THEIRS ? "of the other bus: " : "", why.text);
}

static enum evbus_code next_of(const struct comparison *run, int side, struct evbus_reader *reader,
			       const struct evbus_record **record, struct evbus_err *err)
{
	struct evbus_err why;

	*record = NULL;
	if (!reader)
		return EVBUS_OK;
	enum evbus_code code = evbus_reader_next(reader, 0, record, &why);
	if (code == EVBUS_OK)
		return EVBUS_OK;
	return err_set(err, code, 0, "topic '%s'%s: %s", run->topic,
		       side == THEIRS ? " of the other bus" : "", why.text);
}

static enum evbus_code read_side(struct comparison *run, int side, bool first_pass, struct evbus_err *err)
{
	CLEANUP(close_reader) struct evbus_reader *reader = NULL;
	const struct evbus_record *record;

	TRY(open_side(run, side, &reader, err));
	for (uint64_t n = 1;; n++) {
		TRY(next_of(run, side, reader, &record, err));
		if (!record)
			return EVBUS_OK;
		TRY(add(run, side, record, err));
		run->progress.records++;
		run->progress.bytes += record->stored.len + 1;
		if (first_pass && side == OURS) {
			run->result->records++;
			run->result->bytes += record->stored.len + 1;
		}
		if (n % ASK_RECORDS == 0)
			TRY(show_progress(run, err));
	}
}

/* ---- what differs ---- */

/* The next record of a key. */
static enum evbus_code next_of_key(const struct comparison *run, int side, struct evbus_reader *reader,
				   const struct odd_key *odd, const struct evbus_record **record, struct evbus_err *err)
{
	uint64_t key, second;

	do {
		TRY(next_of(run, side, reader, record, err));
		if (*record)
			name_of(*record, &key, &second);
	} while (*record && (key != odd->key || second != odd->second));
	return EVBUS_OK;
}

static bool is_same(const struct evbus_record *a, const struct evbus_record *b)
{
	struct evbus_slice x = payload_of(a), y = payload_of(b);

	return !a->payload.data == !b->payload.data && x.len == y.len && !memcmp(x.data, y.data, x.len);
}

/* there: the one of the two that it is told of. */
static void describe(const struct comparison *run, struct odd_key *odd, uint64_t n, const struct evbus_record *there,
		     const struct evbus_record *ours, const struct evbus_record *theirs)
{
	char key[KEY_SHOWN + 32], other[64 + EVBUS_OFFSET_MAX_BYTES] = "";
	struct evbus_slice name = there->partition_key;

	if (name.data[0] == '"')
		snprintf(key, sizeof key, "with the key %.*s%s", name.len > KEY_SHOWN ? KEY_SHOWN : (int)name.len,
			 name.data, name.len > KEY_SHOWN ? "…" : "");
	else
		snprintf(key, sizeof key, "without a key");
	if (ours && theirs)
		snprintf(other, sizeof other, ": there it is another one, at partition %d, offset %.*s",
			 theirs->partition_id, (int)theirs->offset.len, theirs->offset.data);
	odd->finding = (struct evbus_finding){ .topic = run->topic,
					       .partition_id = there->partition_id,
					       .offset = strtoull(there->offset.data, NULL, 10),
					       .severity = EVBUS_DAMAGE,
					       .what = ours && theirs ? "differs"
						       : ours         ? "missing"
								      : "more" };
	snprintf(odd->finding.offset_text, sizeof odd->finding.offset_text, "%.*s", (int)there->offset.len,
		 there->offset.data);
	snprintf(odd->finding.text, sizeof odd->finding.text, "record %llu %s%s", (unsigned long long)n, key,
		 ours && theirs ? other : ours ? " is not on the other bus" : " is only on the other bus");
}

static enum evbus_code find_first(const struct comparison *run, struct odd_key *odd, struct evbus_err *err)
{
	CLEANUP(close_reader) struct evbus_reader *ours = NULL, *theirs = NULL;
	const struct evbus_record *here, *there;

	TRY(open_side(run, OURS, &ours, err));
	TRY(open_side(run, THEIRS, &theirs, err));
	for (uint64_t n = 1;; n++) {
		TRY(next_of_key(run, OURS, ours, odd, &here, err));
		TRY(next_of_key(run, THEIRS, theirs, odd, &there, err));
		if (here && there && is_same(here, there))
			continue;
		if (!here && !there)
			return err_set(err, EVBUS_CONFLICT, 0,
				       "topic '%s' changed while it was compared: compare again when nobody publishes",
				       run->topic);
		describe(run, odd, n, here ? here : there, here, there);
		return EVBUS_OK;
	}
}

static void note_odd(struct comparison *run)
{
	for (size_t i = 0; i < TABLE_SIZE; i++) {
		const struct chain *chain = &run->chains[i];
		if (chain->sums[OURS] == chain->sums[THEIRS] && chain->counts[OURS] == chain->counts[THEIRS])
			continue;
		if (run->odd_count < TOLD_MAX)
			run->odd[run->odd_count] = (struct odd_key){ .key = chain->key, .second = chain->second };
		run->odd_count++;
	}
}

static int by_place(const void *a, const void *b)
{
	const struct evbus_finding *x = &((const struct odd_key *)a)->finding, *y = &((const struct odd_key *)b)->finding;

	if (x->partition_id != y->partition_id)
		return x->partition_id < y->partition_id ? -1 : 1;
	return x->offset < y->offset ? -1 : x->offset > y->offset;
}

static void report(const struct comparison *run, const struct evbus_finding *finding)
{
	run->result->damages++;
	if (run->options->finding)
		run->options->finding(run->options->context, finding);
}

static enum evbus_code tell_odd(struct comparison *run, struct evbus_err *err)
{
	size_t told = run->odd_count < TOLD_MAX ? (size_t)run->odd_count : TOLD_MAX;

	for (size_t i = 0; i < told; i++)
		TRY(find_first(run, &run->odd[i], err));
	qsort(run->odd, told, sizeof *run->odd, by_place);
	for (size_t i = 0; i < told; i++)
		report(run, &run->odd[i].finding);
	if (run->odd_count > told) {
		struct evbus_finding more = { .topic = run->topic, .severity = EVBUS_DAMAGE, .what = "differs" };
		snprintf(more.text, sizeof more.text, "%llu more keys have other payloads on the other bus",
			 (unsigned long long)(run->odd_count - told));
		report(run, &more);
	}
	return EVBUS_OK;
}

/* ---- topics ---- */

static enum evbus_code compare_topic(struct comparison *run, struct evbus_err *err)
{
	struct evbus_partition_info info;

	if (evbus_topic_describe(run->sides[OURS], run->topic, EVBUS_PARTITION_ALL, &info, NULL) == EVBUS_OK)
		run->result->partitions += info.partitions;
	run->shift = 0;
	run->pass = run->odd_count = 0;
	do {
		bool first_pass = run->pass == 0;
		memset(run->chains, 0, TABLE_SIZE * sizeof *run->chains);
		run->count = 0;
		for (int side = 0; side < SIDES; side++)
			TRY(read_side(run, side, first_pass, err));
		note_odd(run);
		run->pass++;
	} while (run->shift && run->pass < (uint64_t)1 << run->shift);
	run->result->topics++;
	return tell_odd(run, err);
}

static bool is_among(char *const *names, const char *name)
{
	while (*names && strcmp(*names, name) != 0)
		names++;
	return *names != NULL;
}

static enum evbus_code compare(struct comparison *run, char *const *ours, char *const *theirs, struct evbus_err *err)
{
	for (int side = 0; side < SIDES; side++)
		for (char *const *name = side == OURS ? ours : theirs; *name; name++) {
			if (side == THEIRS && is_among(ours, *name))
				continue;
			run->topic = *name;
			TRY(compare_topic(run, err));
		}
	return EVBUS_OK;
}

static enum evbus_code list(struct evbus *bus, const char *pattern, char ***names, struct evbus_err *err)
{
	struct evbus_err why;
	enum evbus_code code = evbus_topic_list(bus, pattern, names, &why);

	if (code == EVBUS_OK)
		return EVBUS_OK;
	return err_set(err, code, 0, "of the other bus: %s", why.text);
}

enum evbus_code verify_against(struct evbus *bus, const char *pattern, char *const *names,
			       const struct evbus_verify_options *options, uint64_t bytes_total,
			       struct evbus_verify_result *result, struct evbus_err *err)
{
	struct comparison run = { .sides = { bus, options->against },
				  .options = options,
				  .result = result,
				  .progress.bytes_total = bytes_total };
	CLEANUP(free_cleanup) char **theirs = NULL;

	if (options->deep || options->repair || options->rebuild_keys || options->partition_id >= 0)
		return err_set(err, EVBUS_USAGE, 0,
			       "--against compares whole topics, and does nothing else: leave --partition, --deep, "
			       "--repair and --rebuild-keys out");
	TRY(list(options->against, pattern, &theirs, err));
	if (!names[0] && !theirs[0])
		return err_set(err, EVBUS_NONE, 0, "neither bus has a topic that matches '%s'", pattern ? pattern : ">");
	run.chains = new_chains(err);
	enum evbus_code code = run.chains ? compare(&run, names, theirs, err) : EVBUS_IO;
	free(run.chains);
	return code;
}

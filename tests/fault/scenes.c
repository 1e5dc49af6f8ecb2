/* scenes.c: see scenes.h. */
#include "scenes.h"

#include <criterion/criterion.h>

#define NEXT_MS 1000

/* ---- what is on the log ---------------------------------------------------------------------------------------- */

#define RECORDS_MAX 200000u

static struct record {
	char topic[24], id[24];
	int32_t partition_id;
	uint64_t offset;
} * records;
static unsigned record_count;

static void take_record(const struct evbus_record *record)
{
	struct record *to = &records[record_count++];

	CHECK(record_count < RECORDS_MAX, "too many records");
	snprintf(to->topic, sizeof to->topic, "%.*s", (int)record->topic.len, record->topic.data);
	size_t len = evbus_json_text(evbus_json_find(record->payload, "/id", NULL), to->id, sizeof to->id - 1);
	to->id[len < sizeof to->id ? len : 0] = '\0';
	to->partition_id = record->partition_id;
	CHECK(decimal_parse(record->offset, &to->offset), "no offset");
}

static void on_finding(void *context, const struct evbus_finding *finding)
{
	(void)context;
	CHECK(finding->severity == EVBUS_NOTE, "damage: %s", finding->text);
}

void read_logs(void)
{
	const struct evbus_selection all = { .topic = ">", .partition_id = EVBUS_PARTITION_ALL };
	const struct evbus_verify_options options = { .deep = true,
						      .partition_id = EVBUS_PARTITION_ALL,
						      .finding = on_finding };
	struct evbus_verify_result result;
	const struct evbus_record *record;
	struct evbus_reader *reader;
	struct evbus *bus = open_bus();
	struct evbus_err err;

	record_count = 0;
	enum evbus_code code = evbus_verify(bus, NULL, &options, &result, &err);
	if (code != EVBUS_NONE) {
		CHECK(code == EVBUS_OK && result.damages == 0, "verify: %s", err.text);
		CHECK_OK(evbus_reader_open(bus, &all, &reader, ERR));
		for (;;) {
			CHECK_OK(evbus_reader_next(reader, 0, &record, ERR));
			if (!record)
				break;
			take_record(record);
		}
		evbus_reader_close(reader);
	}
	evbus_close(bus);
	if (access(STATE_DB, F_OK) == 0)
		check_db(STATE_DB);
}

unsigned on_log(const char *topic, unsigned round, unsigned i)
{
	unsigned count = 0;
	char id[24];

	snprintf(id, sizeof id, "%u-%u", round, i);
	for (unsigned r = 0; r < record_count; r++)
		count += !strcmp(records[r].id, id) && !strcmp(records[r].topic, topic);
	return count;
}

/* They come in order, mostly: the search begins behind what was found last. */
static bool is_there(const char *topic, int32_t partition_id, uint64_t offset, const char *id)
{
	static unsigned at;

	for (unsigned i = 0; i < record_count; i++) {
		at = at + 1 < record_count ? at + 1 : 0;
		if (records[at].offset == offset && records[at].partition_id == partition_id &&
		    !strcmp(records[at].topic, topic))
			return !strcmp(records[at].id, id);
	}
	return false;
}

unsigned check_receipts(const char *path)
{
	char topic[24], id[24];
	int32_t partition_id;
	unsigned long long offset;
	unsigned count = 0;

	for (const char *line = program_read(path), *end; (end = strchr(line, '\n')); line = end + 1, count++)
		CHECK(sscanf(line, "%23[^/]/%d/%llu/%23[^\n]", topic, &partition_id, &offset, id) == 4 &&
			      is_there(topic, partition_id, offset, id),
		      "it said '%.*s', which is not so", (int)(end - line), line);
	return count;
}

unsigned log_count(void)
{
	return record_count;
}

const char *log_id_at(unsigned i)
{
	return records[i].id;
}

/* ---- files ----------------------------------------------------------------------------------------------------- */

void write_file(const char *path, const char *text)
{
	FILE *file = fopen(path, "w");

	CHECK(file && fputs(text, file) >= 0 && !fclose(file), "cannot write '%s'", path);
}

void write_ids(const char *path, unsigned round, unsigned count)
{
	FILE *file = fopen(path, "w");

	CHECK(file, "cannot make '%s'", path);
	for (unsigned i = 0; i < count; i++)
		fprintf(file, "{\"id\":\"%u-%u\",\"type\":\"t%u\"}\n", round, i, i);
	CHECK(!fclose(file), "cannot write '%s'", path);
}

unsigned in_file(const char *path, unsigned round, unsigned i)
{
	unsigned count = 0;
	char id[24], line[64];
	FILE *file = fopen(path, "r");

	snprintf(id, sizeof id, "%u-%u\n", round, i);
	while (file && fgets(line, sizeof line, file))
		count += !strcmp(line, id);
	if (file)
		fclose(file);
	return count;
}

/* ---- a round --------------------------------------------------------------------------------------------------- */

static char words[400];

static const char *words_of(const char *format, unsigned round)
{
	char *to = words, *end = words + sizeof words - 1;

	for (; *format && to < end; format++) {
		if (format[0] != '%' || format[1] != 'u') {
			*to++ = *format;
			continue;
		}
		to += snprintf(to, (size_t)(end - to), "%u", round);
		format++;
	}
	*to = '\0';
	return words;
}

static void look(const struct scene *scene, unsigned round, void (*more)(unsigned round))
{
	read_logs();
	if (scene->receipts)
		check_receipts("out");
	if (more)
		more(round);
}

static void run_again(const struct scene *scene, unsigned round)
{
	const char *again = words_of(scene->again ? scene->again : scene->words, round);
	int64_t start = now_us();
	int status = program_run(scene->in, "out", "%s", again);
	int64_t ms = (now_us() - start) / 1000, within_ms = scene->within_ms ? scene->within_ms : NEXT_MS;

	CHECK(status == scene->status || status == scene->other_status, "evbus %s: status %d: %s", again, status,
	      program_read("said"));
	CHECK(ms < within_ms, "the next one took %lld ms", (long long)ms);
}

static void empty_directory(void)
{
	CHECK(!chdir("/"), "chdir");
	run_remove(run.dir);
	CHECK(!mkdir(run.dir, 0700) && !chdir(run.dir), "cannot make '%s'", run.dir);
}

static struct traced play(const struct scene *scene, unsigned round, unsigned n)
{
	snprintf(run.where, sizeof run.where, "%s, killed at %u: ", scene->name, n);
	if (scene->fresh)
		empty_directory();
	if (scene->prepare)
		scene->prepare(round);
	struct traced traced = program_trace(n, scene->all ? CALLS_ALL : CALLS_THAT_CHANGE, scene->in, "out",
					     words_of(scene->words, round));
	CHECK(traced.killed || traced.status == scene->status || traced.status == scene->other_status,
	      "evbus %s: status %d: %s", words, traced.status, program_read("said"));
	look(scene, round, scene->killed);
	run_again(scene, round);
	look(scene, round, scene->done);
	return traced;
}

/* To the first call that it does not come to. */
void scene_run(const struct scene *scene, unsigned quick)
{
	unsigned every = scene->every && !getenv("EVBUS_TEST_STATES") ? scene->every : 1, step = run_count(every, quick * every);
	uint64_t dice = run.seed;
	unsigned first = 1 + (unsigned)(random_next(&dice) % step), n = first;
	unsigned round = 0, kills = 0;
	struct traced traced;

	for (;; n += step) {
		traced = play(scene, ++round, n);
		if (!traced.killed)
			break;
		kills++;
	}
	/* As many as the round that nobody was killed in has counted. */
	unsigned wanted = traced.calls < first ? 0 : (traced.calls - first) / step + 1;
	CHECK(traced.calls, "it made no call");
	run.where[0] = '\0';
	fprintf(stderr, "%s: %u calls\n", scene->name, traced.calls);
	/* How many calls it makes may depend on what came before, and on how long it waited. */
	CHECK(traced.calls < n && traced.calls + 20 + traced.calls / 2 + step > n,
	      "it made %u calls, and was killed at %u", traced.calls, n - step);
	run_ran(scene->name, kills < wanted ? kills : wanted, wanted);
	empty_directory();
}

void scenes_begin(void)
{
	run_begin(IN_MEMORY);
	if (!program_may_trace()) {
		run_end();
		cr_skip_test("ptrace is not permitted here");
	}
	records = notes_share(RECORDS_MAX * sizeof *records);
}

void prepare_published(unsigned round)
{
	write_ids("in", round, EVENTS);
	program_must(0, "in", NULL, "publish -q -t " TOPIC);
}

void done_once(unsigned round)
{
	for (unsigned i = 0; i < EVENTS; i++)
		CHECK(on_log(TOPIC, round, i) == 1, "event %u is there %u times", i, on_log(TOPIC, round, i));
}

/* sweep_run.c: the cases of a sweep, one after the other, and what each of them leaves. */
#include "faulty.h"
#include "stores.h"
#include "sweep.h"

#include <dirent.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdlib.h>

static struct os pristine;

/* ---- what was submitted, and what was acknowledged ---- */

static struct event {
	_Atomic int64_t offset; /* of its receipt; -1: it has none */
	unsigned batch;
} events[SWEEP_EVENTS_MAX];
static atomic_uint event_count;

unsigned sweep_submit(unsigned batch)
{
	unsigned event = atomic_fetch_add(&event_count, 1);

	CHECK(event < SWEEP_EVENTS_MAX, "too many events");
	events[event].batch = batch;
	atomic_store(&events[event].offset, -1);
	return event;
}

struct evbus_slice sweep_payload(unsigned event)
{
	static _Thread_local char text[512];
	int len =
		snprintf(text, sizeof text, "{\"id\":\"%u\",\"pad\":\"%.*s\"}", event, (int)(event * 7 % 150),
			 "a lazy dog that the quick brown fox jumps over is here to make lines of several lengths, and "
			 "in the end there is some more of it, until all are done with it ……");

	return (struct evbus_slice){ text, (size_t)len };
}

unsigned sweep_event_of(const struct evbus_record *record)
{
	unsigned event = record->payload.len > 7 ? (unsigned)number_at(record->payload.data + 7) : SWEEP_EVENTS_MAX;

	CHECK(event < event_count && sweep_payload(event).len == record->payload.len &&
		      !memcmp(sweep_payload(event).data, record->payload.data, record->payload.len),
	      "nobody has submitted %.*s", (int)record->payload.len, record->payload.data);
	return event;
}

void sweep_acknowledge_again(unsigned event, const struct evbus_record *receipt)
{
	uint64_t offset;

	CHECK(sweep_event_of(receipt) == event, "the receipt of event %u is one for %.*s", event,
	      (int)receipt->payload.len, receipt->payload.data);
	CHECK(decimal_parse(receipt->offset, &offset), "offset '%.*s'", (int)receipt->offset.len, receipt->offset.data);
	int64_t before = atomic_exchange(&events[event].offset, (int64_t)offset);
	CHECK(before == -1 || before == (int64_t)offset, "event %u has receipts for %lld and %llu", event,
	      (long long)before, (unsigned long long)offset);
}

void sweep_acknowledge(unsigned event, const struct evbus_record *receipt)
{
	CHECK(atomic_load(&events[event].offset) == -1, "event %u has two receipts", event);
	sweep_acknowledge_again(event, receipt);
}

enum evbus_code sweep_publish(struct evbus *bus, struct evbus_err *err)
{
	unsigned event = sweep_submit(0);
	const struct evbus_record *receipt;
	enum evbus_code code = evbus_publish(bus, TOPIC, sweep_payload(event).data, &receipt, err);

	if (!code)
		sweep_acknowledge(event, receipt);
	return code;
}

void sweep_publish_some(unsigned count)
{
	struct evbus *bus = open_bus();

	for (unsigned i = 0; i < count; i++)
		CHECK_OK(sweep_publish(bus, ERR));
	evbus_close(bus);
}

void sweep_others(void)
{
	struct evbus *bus = open_bus();
	struct evbus_checkpoint before, after;

	CHECK_OK(sweep_publish(bus, ERR));
	CHECK_OK(evbus_checkpoint_set(bus, "others", TOPIC, 0, "1", false, &before, &after, ERR));
	evbus_close(bus);
}

/* ---- what is in the log ---- */

static void on_finding(void *context, const struct evbus_finding *finding)
{
	(void)context;
	CHECK(finding->severity == EVBUS_NOTE, "offset %llu, byte %llu: %s: %s", (unsigned long long)finding->offset,
	      (unsigned long long)finding->byte, finding->what, finding->text);
}

static void verify_log(struct evbus *bus)
{
	struct evbus_verify_options options = { .partition_id = EVBUS_PARTITION_ALL, .finding = on_finding };
	struct evbus_verify_result result;

	CHECK_OK(evbus_verify(bus, TOPIC, &options, &result, ERR));
}

static void check_place(unsigned event, unsigned place, bool *seen)
{
	int64_t offset = atomic_load(&events[event].offset);

	CHECK(!seen[event], "event %u is in the log twice", event);
	seen[event] = true;
	CHECK(offset < 0 || offset == place, "event %u is at %u, and its receipt said %lld", event, place,
	      (long long)offset);
	unsigned batch = events[event].batch;
	CHECK(!batch || !event || events[event - 1].batch != batch || seen[event - 1],
	      "event %u stands before its batch", event);
}

/* Nothing that was acknowledged is missing, and of no batch a part. */
static void check_missing(const bool *seen)
{
	for (unsigned i = 0; i < event_count; i++) {
		CHECK(seen[i] || events[i].offset < 0, "event %u has a receipt, and is not in the log", i);
		CHECK(!i || !events[i].batch || events[i].batch != events[i - 1].batch || seen[i] == seen[i - 1],
		      "of batch %u there is only a part", events[i].batch);
	}
}

unsigned sweep_check_log(void)
{
	bool seen[SWEEP_EVENTS_MAX] = { 0 };
	struct evbus_selection selection = { .topic = TOPIC, .partition_id = EVBUS_PARTITION_ALL };
	struct evbus *bus = open_bus();
	struct evbus_reader *reader;
	const struct evbus_record *record;
	uint64_t offset;
	unsigned place = 0;

	verify_log(bus);
	CHECK_OK(evbus_reader_open(bus, &selection, &reader, ERR));
	for (;; place++) {
		CHECK_OK(evbus_reader_next(reader, 0, &record, ERR));
		if (!record)
			break;
		CHECK(decimal_parse(record->offset, &offset) && offset == place, "offset %.*s where %u was to come",
		      (int)record->offset.len, record->offset.data, place);
		check_place(sweep_event_of(record), place, seen);
	}
	evbus_reader_close(reader);
	evbus_close(bus);
	check_missing(seen);
	return place;
}

/* ---- what was made once ---- */

#define MADE "made"

static struct event made_events[SWEEP_EVENTS_MAX];
static unsigned made_count;

static void copy_file(const char *from, const char *to)
{
	int in = open(from, O_RDONLY | O_CLOEXEC), out = open(to, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	char bytes[65536];
	ssize_t n;

	CHECK(in >= 0 && out >= 0, "cannot copy %s: %s", from, strerror(errno));
	while ((n = read(in, bytes, sizeof bytes)) > 0)
		CHECK(write(out, bytes, (size_t)n) == n, "cannot copy %s: %s", from, strerror(errno));
	CHECK(n == 0 && !close(in) && !close(out), "cannot copy %s: %s", from, strerror(errno));
}

static int copy_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	char to[PATH_MAX];
	(void)ftw;

	snprintf(to, sizeof to, "bus%s", path + sizeof MADE - 1);
	if (type == FTW_D)
		CHECK(!mkdir(to, st->st_mode & 0777), "cannot make %s: %s", to, strerror(errno));
	else
		copy_file(path, to);
	return 0;
}

static void make_once(const struct operation *operation)
{
	atomic_store(&event_count, 0);
	made_count = 0;
	if (!operation->make)
		return;
	operation->make();
	CHECK(!rename("bus", MADE), "rename: %s", strerror(errno));
	memcpy(made_events, events, sizeof events);
	made_count = event_count;
}

static void copy_made(void)
{
	if (made_count)
		CHECK(!nftw(MADE, copy_one, 16, FTW_PHYS), "cannot copy %s", MADE);
	memcpy(events, made_events, sizeof events);
	atomic_store(&event_count, made_count);
}

/* ---- one case ---- */

/* Where a call fails, and how. */
struct fault {
	const char *name;
	int number;
	enum faulty_part part;
	bool from_on;
};

static unsigned open_files(void)
{
	unsigned count = 0;
	DIR *dir = opendir("/proc/self/fd");

	CHECK(dir, "opendir: %s", strerror(errno));
	while (readdir(dir))
		count++;
	closedir(dir);
	return count;
}

/* A signal and a short transfer are nobody's concern. What fails is told with a code for that, in one line that says why:
 * it is not taken for something that is missing, damaged or another's. */
static void check_code(const struct operation *operation, enum evbus_code code, const struct evbus_err *err,
		       const struct fault *fault)
{
	if (!code)
		return;
	CHECK(!fault->part && fault->number != EINTR, "%d: %s: and it need not have failed", (int)code, err->text);
	CHECK(code == err->code && (code == EVBUS_IO || code == EVBUS_CANTCREATE || code == EVBUS_PERMISSION),
	      "%d (%d): %s: is no code for that", (int)code, (int)err->code, err->text);
	CHECK(code != EVBUS_PERMISSION || fault->number == EROFS, "%s: is not a matter of permission", err->text);
	/* Of its journal, which it has closed by then, SQLite has only that to say. */
	if (operation->store && err->sys_errno == 0 && strstr(err->text, "': disk I/O error"))
		return;
	/* Where another thread's sync failed. */
	if (operation->uncertain && strstr(err->text, "was cut back while we waited, after a sync that failed"))
		return;
	int number = fault->number != FAULTY_ANY ? fault->number : err->sys_errno == ENOMEM ? ENOMEM : EIO;
	CHECK(err->sys_errno == number && strstr(err->text, strerror(number)) && !strchr(err->text, '\n'),
	      "'%s' (%d) does not say why", err->text, err->sys_errno);
}

static void begin_case(const struct operation *operation, const struct fault *fault, unsigned scope, unsigned at)
{
	os = pristine;
	copy_made();
	snprintf(run.where, sizeof run.where, "%s, %s%s at call %u: ", operation->name, fault->name,
		 fault->from_on ? " from then on" : "", at);
	if (operation->prepare)
		operation->prepare();
	faulty_begin(at, fault->number);
	faulty.from_on = fault->from_on;
	faulty.part = fault->part;
	faulty.plausible = true;
	faulty.scope = scope;
}

static void end_case(const struct operation *operation)
{
	if (!operation->others && !operation->no_log)
		sweep_publish_some(1);
	else if (operation->others)
		operation->others();
	CHECK_OK((operation->again ? operation->again : operation->act)(ERR));
	if (operation->finish)
		operation->finish();
	if (!operation->no_log)
		sweep_check_log();
	if (operation->store)
		check_db(STATE_DB);
	if (operation->check)
		operation->check();
	if (!access("bus", F_OK))
		run_remove("bus");
}

/* How many calls there were. *hit: one of them has failed. */
static unsigned run_case(const struct operation *operation, const struct fault *fault, unsigned scope, unsigned at,
			 bool *hit)
{
	struct evbus_err err = { 0 };
	unsigned files = open_files();
	int64_t memory = sqlite3_memory_used();

	begin_case(operation, fault, scope, at);
	enum evbus_code code = operation->act(&err);
	unsigned calls = atomic_load(&faulty.calls);
	const char *failed = atomic_load(&faulty.failed);
	faulty_end();
	size_t len = strlen(run.where);
	snprintf(run.where + len, sizeof run.where - len, "%s: ", failed ? failed : "-");
	if (getenv("EVBUS_TEST_TELL"))
		fprintf(stderr, "%s%d: %s\n", run.where, (int)code, code ? err.text : "");
	CHECK(failed || !code, "%d: %s, and no call has failed", (int)code, err.text);
	/* What it should have covered may be on the disk or not, and another one would not tell. Who reads what
	 * is read-only has nothing to sync. */
	CHECK(code || !failed || !strstr(failed, "sync") || fault->number == EROFS, "a sync has failed, and it is told as done");
	check_code(operation, code, &err, fault);
	end_case(operation);
	CHECK(open_files() == files, "%u files were open before, and %u are now", files, open_files());
	CHECK(sqlite3_memory_used() == memory, "SQLite had %lld bytes before, and has %lld now", (long long)memory,
	      (long long)sqlite3_memory_used());
	*hit = failed != NULL;
	return calls;
}

/* ---- all cases ---- */

static const struct fault faults[] = {
	{ "EIO", EIO, FAULTY_NONE, false },
	{ "EIO", EIO, FAULTY_NONE, true },
	{ "ENOMEM", ENOMEM, FAULTY_NONE, false },
	{ "ENOMEM", ENOMEM, FAULTY_NONE, true },
	{ "ENOSPC", ENOSPC, FAULTY_NONE, false },
	{ "ENOSPC", ENOSPC, FAULTY_NONE, true },
	{ "EDQUOT", EDQUOT, FAULTY_NONE, false },
	{ "EDQUOT", EDQUOT, FAULTY_NONE, true },
	{ "EROFS", EROFS, FAULTY_NONE, false },
	{ "EROFS", EROFS, FAULTY_NONE, true },
	{ "EMFILE", EMFILE, FAULTY_NONE, false },
	{ "EMFILE", EMFILE, FAULTY_NONE, true },
	{ "EINTR", EINTR, FAULTY_NONE, false },
	{ "one byte of a transfer", 0, FAULTY_ONE, false },
	{ "half of a transfer", 0, FAULTY_HALF, false },
	{ "half of each transfer", 0, FAULTY_HALF, true },
	{ "all but one byte of a transfer", 0, FAULTY_ALL_BUT_ONE, false },
};

static const struct fault any = { "EIO or ENOMEM", FAULTY_ANY, FAULTY_NONE, false };

struct counts {
	unsigned cases, hits; /* calls that the clean run has counted, and those that have failed */
};

/* most: of more calls than that not each one fails. */
static void sweep_one(const struct operation *operation, const struct fault *fault, unsigned scope, unsigned most,
		      struct counts *counts)
{
	bool hit;
	unsigned calls = run_case(operation, fault, scope, 0, &hit), stride = calls / (most + 1) + 1;

	for (unsigned at = 1; at <= calls; at += stride) {
		run_case(operation, fault, scope, at, &hit);
		counts->hits += hit;
		counts->cases++;
	}
}

static void sweep_scope(const struct operation *operation, const char *of, unsigned scope, unsigned most)
{
	struct counts counts = { 0 };
	char what[200];

	if (run.quick)
		sweep_one(operation, &any, scope, most, &counts);
	for (size_t i = 0; i < sizeof faults / sizeof *faults; i++)
		if (!run.quick || faults[i].part || faults[i].number == EINTR)
			sweep_one(operation, &faults[i], scope, run.quick ? 3 : most, &counts);
	snprintf(what, sizeof what, "calls %s that fail: %s", of, operation->name);
	/* Where the last ones may not come, some that were counted do not. */
	run_ran_most(what, counts.hits, counts.cases,
		     operation->uncertain ? counts.cases - counts.cases / 4 : counts.cases);
}

void sweep(const struct operation *operation)
{
	pristine = os;
	make_once(operation);
	sweep_scope(operation, "of the system", FAULTY_CALLS | FAULTY_MEMORY, UINT_MAX - 1);
	if (operation->store) {
		sweep_scope(operation, "of SQLite", FAULTY_FILES_OF_SQLITE, run_count(UINT_MAX - 1, 40));
		sweep_scope(operation, "for memory of SQLite", FAULTY_MEMORY_OF_SQLITE, run_count(100, 10));
	}
	if (operation->make)
		run_remove(MADE);
}

/* verify.c: reading a partition from end to end, and going on behind what is damaged. */
#include "log/verify.h"

#include "log/runs.h"

#include <errno.h>
#include <stdarg.h>
#include <string.h>

#define CHUNK_BYTES (512u * 1024)
#define PROGRESS_BYTES (4u * 1024 * 1024)
#define CLOCK_AHEAD_US 60000000
#define ODD_RUNS_MAX 16u             /* then threads are of no use there: batches, or much damage */

struct walk {
	struct log_verify *verify;
	uint64_t next;                   /* the offset that the next line should have */
	int64_t time_us;
	struct clock_minute minute;      /* of the last line */
	uint64_t start;                  /* where the segment begins, counted over all */
	uint64_t told;                   /* bytes at the last progress */
	bool lost;                       /* the line before was damaged: offsets begin anew with the next good one */
	bool damaged;                    /* something was */
	bool in_batch;
	uint64_t batch_first, batch_last;
	uint64_t batch_offset, batch_byte;    /* of its first line that is there */
};

static void tell(struct walk *walk, enum evbus_severity severity, const char *what, uint64_t offset, uint64_t byte,
		 const char *format, ...) __attribute__((format(printf, 6, 7)));

static void tell(struct walk *walk, enum evbus_severity severity, const char *what, uint64_t offset, uint64_t byte,
		 const char *format, ...)
{
	char text[256];

	va_list args;
	va_start(args, format);
	vsnprintf(text, sizeof text, format, args);
	va_end(args);
	walk->damaged = walk->damaged || severity == EVBUS_DAMAGE;
	walk->verify->finding(walk->verify, severity, what, offset, byte, text);
}

static void check_offset(struct walk *walk, const struct line *line, uint64_t byte)
{
	if (line->offset == walk->next || walk->lost)
		return;
	if (line->offset > walk->next)
		tell(walk, EVBUS_DAMAGE, "gap", walk->next, byte, "offsets %llu to %llu are missing",
		     (unsigned long long)walk->next, (unsigned long long)line->offset - 1);
	else
		tell(walk, EVBUS_DAMAGE, "order", walk->next, byte, "offset %llu stands where %llu should be",
		     (unsigned long long)line->offset, (unsigned long long)walk->next);
}

static void check_time(struct walk *walk, const struct line *line, uint64_t byte)
{
	if (line->time_us < walk->time_us)
		tell(walk, EVBUS_DAMAGE, "order", line->offset, byte,
		     "published_at_utc %.*s is before the one of the record before", (int)line->time_text.len,
		     line->time_text.data);
	else
		walk->time_us = line->time_us;
}

/* It is told where the batch begins: none of it counts. */
static void broken_batch(struct walk *walk)
{
	tell(walk, EVBUS_DAMAGE, "batch", walk->batch_offset, walk->batch_byte, "the batch %llu-%llu is not whole",
	     (unsigned long long)walk->batch_first, (unsigned long long)walk->batch_last);
	walk->in_batch = false;
}

static void check_batch(struct walk *walk, const struct line *line, uint64_t byte)
{
	bool same = line->batch.data && line->batch_first == walk->batch_first && line->batch_last == walk->batch_last;

	if (walk->in_batch && !same)
		broken_batch(walk);
	if (line->batch.data && !walk->in_batch) {
		walk->batch_first = line->batch_first;
		walk->batch_last = line->batch_last;
		walk->batch_offset = line->offset;
		walk->batch_byte = byte;
		if (line->offset != line->batch_first && !walk->lost)
			broken_batch(walk);
	}
	walk->in_batch = line->batch.data && line->offset != line->batch_last;
}

static enum evbus_code check_line(struct walk *walk, struct evbus_slice text, uint64_t byte, struct evbus_err *err)
{
	struct log_verify *verify = walk->verify;
	struct line line;
	const char *why = line_parse_near(text, &walk->minute, &line);

	if (why) {
		bool checksum = strstr(why, "checksum does not") != NULL;
		tell(walk, EVBUS_DAMAGE, checksum ? "checksum" : "shape", walk->next, byte, "%s", why);
		walk->next++;
		walk->lost = true;
		walk->in_batch = false;
		return EVBUS_OK;
	}
	check_offset(walk, &line, byte);
	check_time(walk, &line, byte);
	check_batch(walk, &line, byte);
	walk->next = line.offset + 1;
	walk->lost = false;
	verify->records++;
	return verify->record ? verify->record(verify, &line, byte, err) : EVBUS_OK;
}

static enum evbus_code show_progress(struct walk *walk, uint64_t byte, struct evbus_err *err)
{
	struct log_verify *verify = walk->verify;

	verify->bytes += byte - walk->told;
	walk->told = byte;
	return verify->progress(verify, err);
}

/* The lines of a segment. */
struct going {
	struct scan scan;
	uint64_t limit;
	struct runs *runs;               /* NULL: line by line */
	struct run run;
	bool has_run;
	unsigned odd;                    /* runs one after the other that were of little use */
};

static void release_going(struct going *going)
{
	runs_close(going->runs);
	scan_release(&going->scan);
}

static void go_line_by_line(struct going *going)
{
	runs_close(going->runs);
	going->runs = NULL;
	going->scan.limit = going->limit;
	going->scan.reads_ahead = true;
}

static bool take_run(struct walk *walk, struct going *going)
{
	const struct run *run = &going->run;

	if (!run->count || run->begin != going->scan.at || walk->lost || walk->in_batch || run->first != walk->next ||
	    run->first_us < walk->time_us)
		return false;
	walk->next += run->count;
	walk->time_us = run->last_us;
	walk->verify->records += run->count;
	scan_seek(&going->scan, run->end, going->limit);
	return true;
}

/* Over what is known to be whole; what stands before the next run, as far as the scan's limit, is looked at by lines. */
static enum evbus_code go_over_runs(struct walk *walk, struct going *going, struct evbus_err *err)
{
	while (going->runs) {
		if (!going->has_run && !runs_next(going->runs, &going->run))
			break;
		going->has_run = going->run.count && going->run.begin > going->scan.at;
		if (going->has_run) {
			going->scan.limit = going->run.begin;
			return EVBUS_OK;
		}
		bool useful = take_run(walk, going) && going->run.whole;
		going->odd = useful ? 0 : going->odd + 1;
		if (going->odd == ODD_RUNS_MAX)
			break;
		if (walk->start + going->scan.at - walk->told >= PROGRESS_BYTES)
			TRY(show_progress(walk, walk->start + going->scan.at, err));
	}
	if (going->runs)
		go_line_by_line(going);
	return EVBUS_OK;
}

/* To byte `limit` of it. */
static enum evbus_code walk_segment(struct walk *walk, int fd, const char *name, uint64_t limit,
				    struct evbus_err *err)
{
	CLEANUP(release_going) struct going going = { .limit = limit };
	struct scan *scan = &going.scan;
	struct evbus_slice text;
	enum scan_what what;

	scan_init(scan, fd, name, 0, limit, CHUNK_BYTES);
	going.runs = walk->verify->record ? NULL : runs_open(fd, limit);
	scan->reads_ahead = !going.runs;
	for (;;) {
		TRY(go_over_runs(walk, &going, err));
		uint64_t byte = walk->start + scan->at;
		TRY(scan_next(scan, &text, &what, err));
		if (what == SCAN_END)
			break;
		if (what == SCAN_LINE)
			TRY(check_line(walk, text, byte, err));
		else {
			tell(walk, EVBUS_DAMAGE, "shape", walk->next++, byte,
			     what == SCAN_LONG ? "it is longer than a line may be" : "it has no newline");
			walk->lost = true;
			TRY(scan_resync(scan, err));
		}
		if (byte - walk->told >= PROGRESS_BYTES)
			TRY(show_progress(walk, byte, err));
	}
	if (scan->at < limit)
		tell(walk, EVBUS_DAMAGE, "segment", walk->next, walk->start + scan->at,
		     "'%s' ends %llu bytes before what was acknowledged: it was cut", name,
		     (unsigned long long)(limit - scan->at));
	walk->start += limit;
	return show_progress(walk, walk->start, err);
}

static void check_base(struct walk *walk, uint64_t base)
{
	if (base > walk->next)
		tell(walk, EVBUS_DAMAGE, "segment", walk->next, walk->start,
		     "offsets %llu to %llu are missing before the segment that begins at %llu",
		     (unsigned long long)walk->next, (unsigned long long)base - 1, (unsigned long long)base);
	else if (base < walk->next)
		tell(walk, EVBUS_DAMAGE, "segment", base, walk->start,
		     "the segment that begins at %llu overlaps the one before, which ends at %llu",
		     (unsigned long long)base, (unsigned long long)walk->next);
	walk->next = base;
}

static void begin(struct walk *walk, uint64_t base)
{
	if (base)
		tell(walk, EVBUS_NOTE, "segment", 0, 0, "the log begins at offset %llu: older segments are not there",
		     (unsigned long long)base);
	walk->next = base;
}

static enum evbus_code walk_older(struct walk *walk, const struct segments *older, struct evbus_err *err)
{
	const struct topic *topic = walk->verify->topic;
	char path[SEGMENT_PATH_MAX], name[NAME_IN_MESSAGE];
	uint64_t size;

	for (size_t i = 0; i < older->count; i++) {
		CLEANUP(os_close_cleanup) int fd = -1;
		segment_path(walk->verify->partition, older->bases[i], path);
		snprintf(name, sizeof name, "%s/%s", topic->name, path);
		TRY(segment_open(topic, walk->verify->partition, older->bases[i], O_RDONLY, &fd, &size, err));
		if (i)
			check_base(walk, older->bases[i]);
		else
			begin(walk, older->bases[i]);
		TRY(walk_segment(walk, fd, name, size, err));
	}
	return EVBUS_OK;
}

/* The segment that was the live one at the snapshot. It may have been rolled since: then it is found among the older
 * ones, where a roll that is under way has an empty file. */
static enum evbus_code open_last(const struct log_verify *verify, uint64_t base, char path[SEGMENT_PATH_MAX], int *fd,
				 bool *live, struct evbus_err *err)
{
	CLEANUP(os_close_cleanup) int first = -1, older = -1;
	uint64_t size;

	TRY(segment_open_live(verify->topic, verify->partition, O_RDONLY, &first, err));
	enum evbus_code code = segment_open(verify->topic, verify->partition, base, O_RDONLY, &older, &size, err);
	if (code != EVBUS_NONE)
		TRY(code);
	*live = code == EVBUS_NONE || size == 0;
	int *chosen = *live ? &first : &older;
	*fd = *chosen;
	*chosen = -1;
	if (*live)
		segment_live_path(verify->partition, path);
	else
		segment_path(verify->partition, base, path);
	return EVBUS_OK;
}

static bool went_on(const struct cursor *cursor)
{
	struct control_view view;
	enum control_state state;

	return cursor->has_page && !control_read(&cursor->control, &state, &view, NULL) && state == CONTROL_OURS &&
	       view.durable.next != cursor->durable.next;
}

static enum evbus_code walk_live(struct walk *walk, const struct cursor *cursor, struct evbus_err *err)
{
	char path[SEGMENT_PATH_MAX], name[NAME_IN_MESSAGE];
	CLEANUP(os_close_cleanup) int fd = -1;
	struct stat st;
	bool live;

	walk->verify->in_last = true;
	walk->verify->last_byte = walk->start;
	enum evbus_code code = open_last(walk->verify, cursor->durable.base, path, &fd, &live, err);
	if (code == EVBUS_NONE && cursor->durable.next == 0)
		return EVBUS_OK;
	TRY(code);
	snprintf(name, sizeof name, "%s/%s", walk->verify->topic->name, path);
	if (os.fstat(fd, &st))
		return err_set(err, EVBUS_IO, errno, "cannot look at '%s'", name);
	TRY(walk_segment(walk, fd, name, cursor->durable.bytes, err));
	if (walk->in_batch)
		broken_batch(walk);
	/* Lines that are whole, as many bytes of them as were acknowledged, and yet not those lines: a reader stumbles here. */
	if (!walk->damaged && walk->next != cursor->durable.next)
		tell(walk, EVBUS_DAMAGE, "segment", walk->next, walk->start,
		     "'%s' ends with offset %llu where %llu was acknowledged: it is not the log that was", name,
		     (unsigned long long)walk->next, (unsigned long long)cursor->durable.next);
	/* A writer that has the partition open may be writing right now, or has ended since: that is no news. */
	if (live && (uint64_t)st.st_size > cursor->durable.bytes && !control_has_writer(&cursor->control) &&
	    !went_on(cursor))
		tell(walk, EVBUS_NOTE, "tail", walk->next, walk->start,
		     "%llu bytes of an interrupted write stand behind the last record; the next publisher, or --repair, "
		     "takes care of them",
		     (unsigned long long)st.st_size - (unsigned long long)cursor->durable.bytes);
	return EVBUS_OK;
}

/* A clock that was ahead once leaves its time on all that follows until it is past. */
static void check_clock(struct walk *walk)
{
	int64_t ahead_us = walk->time_us - os_now_us();

	if (ahead_us > CLOCK_AHEAD_US)
		tell(walk, EVBUS_NOTE, "clock", walk->next ? walk->next - 1 : 0, walk->start,
		     "published_at_utc is %lld s ahead of the clock: records get this time until the clock is past it",
		     (long long)(ahead_us / 1000000));
}

enum evbus_code log_verify(struct log_verify *verify, struct evbus_err *err)
{
	CLEANUP(cursor_close) struct cursor cursor = { .fd = -1, .control = { .fd = -1 } };
	CLEANUP(segments_release) struct segments older = { 0 };
	struct walk walk = { .verify = verify };

	TRY(cursor_open(verify->topic, verify->partition, CHUNK_BYTES, &cursor, err));
	/* The live segment of this snapshot may have been rolled since: then it stands among the older ones. */
	TRY(segments_list(verify->topic, verify->partition, &older, err));
	while (older.count && older.bases[older.count - 1] >= cursor.durable.base)
		older.count--;
	TRY(walk_older(&walk, &older, err));
	if (older.count)
		check_base(&walk, cursor.durable.base);
	else
		begin(&walk, cursor.durable.base);
	TRY(walk_live(&walk, &cursor, err));
	check_clock(&walk);
	return EVBUS_OK;
}

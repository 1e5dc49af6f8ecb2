/* log.c: a partition with any bytes in its log and in its page is read, verified, opened for writing, and opened again.
 *
 * Nothing crashes or hangs; no record is given out that does not lie in the file with a checksum of its own, at its
 * offset; who reads changes nothing; what recovery takes away it keeps a copy of; a second recovery changes nothing; and
 * what is published afterwards stands behind all that was there. */
#include "log_bus.h"
#include "log_image.h"

#include "log/cursor.h"
#include "log/recover.h"
#include "log/verify.h"
#include "log/writer.h"

#include <unistd.h>

#define RECORDS_MAX 4096u

static bool wild; /* the page has cells that nobody wrote: only what is true in any case holds */

static void must_be_unchanged(const struct files *before, bool page_too)
{
	CLEANUP(files_cleanup) struct files now;

	files_read(&now);
	MUST(same(now.live, before->live) && same(now.older, before->older));
	MUST(now.torn_count == before->torn_count && (!page_too || same(now.lock, before->lock)));
}

/* ---- setting up ---- */

static void write_page(const struct image *image, const struct cell *end, const struct cell *durable)
{
	struct control control;
	struct control_view view;
	enum control_state state;
	struct evbus_err err;
	uint8_t byte;

	boot = image->flags & IMAGE_OTHER_BOOT ? 'b' : 'a';
	MUST(control_open(&topic, 0, true, &control, &err) == EVBUS_OK);
	MUST(control_init(&control, durable, &err) == EVBUS_OK);
	MUST(control_read(&control, &state, &view, &err) == EVBUS_OK && state != CONTROL_NONE);
	MUST(control_set(&control, &view, CONTROL_END, end, &err) == EVBUS_OK);
	MUST(control_flag(&control, &view, CONTROL_SYNCING, image->flags & IMAGE_SYNCING, &err) == EVBUS_OK);
	MUST(control_flag(&control, &view, CONTROL_HALT, image->flags & IMAGE_HALT, &err) == EVBUS_OK);
	for (size_t i = 0; i < image->page_change_count; i++) {
		MUST(pread(control.fd, &byte, 1, image->page_changes[i].at) == 1);
		byte ^= image->page_changes[i].change;
		MUST(pwrite(control.fd, &byte, 1, image->page_changes[i].at) == 1);
	}
	control_close(&control);
	boot = 'a';
}

/* A cell counts bytes within its segment; one that stands in the older segment is one from before the roll. */
static struct cell within_segment(const struct image *image, struct cell cell, uint64_t base, ino_t ino)
{
	if (cell.bytes >= image->split) {
		cell.base = base;
		cell.bytes -= image->split;
		cell.ino = ino;
	} else {
		cell.base = image->places[0].next;
	}
	return cell;
}

/* Now and then as it would be: nobody can guess the number of a file, and a base that is too great makes a reader look a
 * thousand times. */
static struct cell wild_cell(struct cell cell, uint64_t base, ino_t ino)
{
	cell.ino = cell.ino & 1 ? ino : cell.ino;
	cell.base = cell.base % 16 ? base - cell.base % (base + 1) : cell.base;
	return cell;
}

static void set_up(const struct image *image)
{
	struct stat st = { .st_ino = 0 };
	uint64_t first = image->places[0].next, base = first;
	struct cell end = image->end, durable = image->durable;

	for (size_t i = 0; i < image->place_count; i++)
		if (image->split && image->places[i].bytes == image->split)
			base = image->places[i].next;
	segment_path(0,
		     image->flags & IMAGE_EMPTY_ROLL && !image->split ? image->places[image->place_count - 1].next
								      : first,
		     older_path);
	if (image->split || image->flags & IMAGE_EMPTY_ROLL)
		write_file(older_path, image->log.data, image->split);
	if (!(image->flags & IMAGE_NO_LIVE)) {
		write_file(LIVE, image->log.len ? image->log.data + image->split : "", image->log.len - image->split);
		MUST(!fstatat(topic.fd, LIVE, &st, 0));
	}
	if (!(image->flags & IMAGE_PAGE))
		return;
	end = image->wild & WILD_END ? wild_cell(end, base, st.st_ino) : within_segment(image, end, base, st.st_ino);
	durable = image->wild & WILD_DURABLE ? wild_cell(durable, base, st.st_ino)
					     : within_segment(image, durable, base, st.st_ino);
	write_page(image, &end, &durable);
}

/* ---- reading ---- */

struct reading {
	enum evbus_code code; /* what ended it */
	bool opened;
	uint64_t first, next, count;
	uint64_t live_bytes; /* that are durable */
	int64_t times[RECORDS_MAX];
};

/* A record lies where it was read, behind the one before. */
static void check_record(const struct cursor *cursor, const struct line *line, const struct files *files)
{
	struct evbus_slice file = cursor->live ? files->live : files->older;
	struct line again;

	MUST(!line_parse(line->text, &again) && again.offset == line->offset && again.time_us == line->time_us);
	MUST(cursor->scan.at <= file.len && cursor->scan.at > line->text.len);
	const char *there = file.data + (cursor->scan.at - 1 - line->text.len);
	MUST(!memcmp(there, line->text.data, line->text.len) && there[line->text.len] == '\n');
	MUST(there == file.data || there[-1] == '\n');
}

static void read_on(struct cursor *cursor, const struct files *files, struct reading *reading)
{
	struct evbus_err err;
	struct line line;
	bool got = true;

	reading->first = cursor->next;
	while (got && !reading->code) {
		uint64_t next = cursor->next;
		reading->code = cursor_next(cursor, UINT64_MAX, &line, &got, &err);
		if (reading->code) {
			check_err(&err, reading->code);
			MUST(reading->code == EVBUS_IO || reading->code == EVBUS_CONFLICT ||
			     reading->code == EVBUS_NONE);
		} else if (got) {
			MUST(line.offset == next && cursor->next == next + 1 && reading->count < RECORDS_MAX);
			check_record(cursor, &line, files);
			MUST(!reading->count || line.time_us >= reading->times[reading->count - 1]);
			reading->times[reading->count++] = line.time_us;
		}
	}
	reading->next = cursor->next;
	MUST(reading->code || reading->next >= cursor->durable.next);
}

static void open_and_read(const struct files *files, struct cursor *cursor, struct reading *reading)
{
	struct evbus_err err;

	*reading = (struct reading){ .code = cursor_open(&topic, 0, 4096, cursor, &err) };
	reading->opened = !reading->code;
	reading->live_bytes = reading->opened ? cursor->durable.bytes : 0;
	if (reading->opened)
		read_on(cursor, files, reading);
	else
		check_err(&err, reading->code);
}

/* Going to an offset or a time finds what reading from the beginning found there; where that is damaged, something that
 * is true. */
static void check_seeks(const struct files *files, struct cursor *cursor, const struct reading *all, uint64_t pick)
{
	static struct reading some;
	struct evbus_err err;
	uint64_t first = cursor->first, span = cursor->durable.next - first;
	uint64_t offset = first + (span < UINT64_MAX ? pick % (span + 1) : pick);

	if (cursor->durable.next < first)
		return;
	some = (struct reading){ .code = cursor_seek(cursor, offset, &err) };
	if (!some.code)
		read_on(cursor, files, &some);
	MUST(all->code || wild || (!some.code && some.first == offset && some.next == all->next));
	if (!all->count || all->code || wild)
		return;
	int64_t time_us = all->times[pick % all->count] + (int64_t)(pick >> 8) % 2;
	uint64_t wanted = 0;
	while (wanted < all->count && all->times[wanted] < time_us)
		wanted++;
	MUST(cursor_seek_time(cursor, time_us, &err) == EVBUS_OK && cursor->next == first + wanted);
}

/* ---- verifying ---- */

struct judged {
	struct log_verify verify;
	uint64_t damage, other; /* other: of batches and segments, which a reader does not ask about */
};

static void count_finding(struct log_verify *verify, enum evbus_severity severity, const char *what, uint64_t offset,
			  uint64_t byte, const char *text)
{
	struct judged *judged = (struct judged *)verify;
	bool other = !strcmp(what, "batch") || !strcmp(what, "segment");

	(void)offset;
	(void)byte;
	MUST(text[0]);
	judged->damage += severity == EVBUS_DAMAGE && !other;
	judged->other += severity == EVBUS_DAMAGE && other;
}

static enum evbus_code no_progress(struct log_verify *verify, struct evbus_err *err)
{
	(void)verify;
	(void)err;
	return EVBUS_OK;
}

/* Returns whether the log is whole. */
static bool check_verify(const struct reading *all)
{
	struct judged judged = {
		.verify = { .topic = &topic, .finding = count_finding, .progress = no_progress },
	};
	struct evbus_err err;
	enum evbus_code code = log_verify(&judged.verify, &err);

	if (code)
		check_err(&err, code);
	if (code || !all->opened)
		return false;
	if (judged.damage + judged.other == 0)
		MUST(!all->code && judged.verify.records == all->count);
	if (!all->code && !judged.other && !wild)
		MUST(judged.damage == 0 && judged.verify.records == all->count);
	return judged.damage + judged.other == 0;
}

/* Returns whether it is whole. */
static bool look_at_all(uint64_t pick, struct reading *reading)
{
	CLEANUP(files_cleanup) struct files files;
	struct cursor cursor;

	files_read(&files);
	open_and_read(&files, &cursor, reading);
	if (reading->opened) {
		check_seeks(&files, &cursor, reading, pick);
		cursor_close(&cursor);
	}
	bool whole = check_verify(reading);
	if (whole && !files.older.data && reading->live_bytes <= files.live.len) {
		struct evbus_slice durable = { files.live.data, (size_t)reading->live_bytes };
		MUST(wild || image_prefix(durable, reading->first, 0).bytes == durable.len);
	}
	must_be_unchanged(&files, true);
	return whole;
}

/* ---- recovery ---- */

/* By the flag, or by a byte of it that was changed. */
static bool is_halted(const struct image *image)
{
	bool halted = image->flags & IMAGE_HALT;

	for (size_t i = 0; i < image->page_change_count; i++)
		halted |= image->page_changes[i].change && image->page_changes[i].at / 4 == 128 / 4;
	return halted;
}

/* What was there is there, or in the copy; a sync that failed is cut without one. */
static void check_kept(const struct image *image, const struct files *before, const struct files *after)
{
	size_t kept = after->live.len;

	MUST(after->live.data && kept <= before->live.len &&
	     (!kept || !memcmp(after->live.data, before->live.data, kept)));
	MUST(same(after->older, before->older));
	if (kept == before->live.len)
		MUST(after->torn_count == 0);
	else if (!is_halted(image))
		MUST(after->torn_count == 1 && after->torn.len == before->live.len - kept &&
		     !memcmp(after->torn.data, before->live.data + kept, after->torn.len));
}

/* Whether a line stands anywhere in it, whatever became of the line breaks around it. */
static bool has_line(struct evbus_slice text)
{
	struct line line;

	for (size_t from = 0; from < text.len; from++) {
		if (text.data[from] != '{')
			continue;
		for (size_t to = from + 1; to <= text.len; to++)
			if ((to == text.len || text.data[to] == '\n' || text.data[to] == '\r') &&
			    !line_parse((struct evbus_slice){ text.data + from, to - from }, &line))
				return true;
	}
	return false;
}

/* Without a page, and in one segment, it is plain how far the log goes. */
static void check_alone(const struct image *image, const struct files *before, const struct files *after,
			enum evbus_code code)
{
	struct line line;
	const char *newline = before->live.len ? memchr(before->live.data, '\n', before->live.len) : NULL;

	if (image->flags & (IMAGE_PAGE | IMAGE_ROLLED | IMAGE_EMPTY_ROLL))
		return;
	bool based =
		newline &&
		!line_parse((struct evbus_slice){ before->live.data, (size_t)(newline - before->live.data) }, &line);
	struct prefix prefix = image_prefix(before->live, based ? line.offset : 0, 0);
	if (!based && prefix.good_behind)
		MUST(code == EVBUS_IO);
	else if (prefix.good_behind && prefix.bytes < before->live.len)
		MUST(code == EVBUS_IO);
	else if (code)
		MUST(code == EVBUS_IO && has_line((struct evbus_slice){ before->live.data + prefix.bytes,
									before->live.len - prefix.bytes }));
	else
		MUST(after->live.len == prefix.bytes);
}

static enum evbus_code open_writer(struct log_writer *writer)
{
	struct evbus_err err;
	enum evbus_code code = writer_open(&topic, 0, NULL, writer, &err);

	if (code) {
		check_err(&err, code);
		MUST(code == EVBUS_IO || code == EVBUS_CONFLICT || code == EVBUS_UNAVAILABLE);
	}
	return code;
}

/* Behind all that is there. */
static void publish_one(struct log_writer *writer)
{
	CLEANUP(group_release) struct group group = { .atomic = false };
	struct line_body body = { .payload = SLICE("{\"last\":1}") };
	struct cell expected = writer->expected;
	struct evbus_err err;
	struct mark mark;

	MUST(group_add(&group, &body, expected.next, NOW_US, &err) == EVBUS_OK);
	MUST(writer_append(writer, &group, expected.next, &mark, &err) == EVBUS_OK);
	MUST(writer_commit(writer, &mark, &group, &err) == EVBUS_OK && mark.first == expected.next);
}

/* Opened once more, on this machine or after a restart: nothing changes. */
static void open_again(void)
{
	CLEANUP(files_cleanup) struct files before;
	struct log_writer writer;

	files_read(&before);
	if (open_writer(&writer) == EVBUS_OK)
		writer_close(&writer);
	else
		MUST(wild);
	must_be_unchanged(&before, false);
}

static void use(struct log_writer *writer, uint64_t pick)
{
	static struct reading before, after;

	writer_close(writer);
	open_again();
	if (!look_at_all(pick, &before) || wild)
		return;
	boot = 'c';
	open_again();
	/* Where a log begins of which nothing is left, the page alone knows. */
	if (pick & 1 && before.count)
		MUST(!unlinkat(topic.fd, LOCK, 0));
	open_again();
	MUST(open_writer(writer) == EVBUS_OK);
	publish_one(writer);
	writer_close(writer);
	MUST(look_at_all(pick, &after) && after.count == before.count + 1 && after.first == before.first);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct image image;
	static struct reading reading;
	struct input input = { data, data + size };
	struct log_writer writer;

	uint64_t pick = input_number(&input, 2);
	bus_begin();
	image_make(&image, &input);
	wild = image.wild;
	set_up(&image);
	look_at_all(pick, &reading);
	CLEANUP(files_cleanup) struct files before, after;
	files_read(&before);
	enum evbus_code code = open_writer(&writer);
	files_read(&after);
	if (code)
		must_be_unchanged(&before, false);
	else
		check_kept(&image, &before, &after);
	check_alone(&image, &before, &after, code);
	if (!code)
		use(&writer, pick);
	image_release(&image);
	return 0;
}

/* verify_read.c: a partition that is not files: what can be proved by reading it.
 *
 * Nothing is known of how it is kept, so there are no checksums, segments and batches to look at. Where lines are made of
 * messages the times are those of the publishers' clocks, and messages of others need not be JSON: of both it is told once
 * for each partition, as what is worth knowing. */
#include "verify.h"

#include <stdlib.h>

#define CHUNK_BYTES (512u * 1024)
#define PROGRESS_BYTES (4u * 1024 * 1024)

/* Records of one kind, and the first of them. */
struct odd {
	uint64_t count, first;
};

struct reading {
	struct verification *run;
	struct partition_reader *reader;
	uint64_t next;                   /* the least offset that may follow */
	int64_t time_us;
	struct odd early, not_json;
	uint64_t told;                   /* bytes at the last progress */
};

static void count_odd(struct odd *odd, uint64_t offset)
{
	if (!odd->count++)
		odd->first = offset;
}

static void tell_odd(struct reading *reading, const struct odd *odd, const char *what, const char *text)
{
	char message[200];

	if (!odd->count)
		return;
	snprintf(message, sizeof message, "%llu record%s from here on %s", (unsigned long long)odd->count,
		 odd->count == 1 ? "" : "s", text);
	verify_on_finding(&reading->run->log, EVBUS_NOTE, what, odd->first, 0, message);
}

static enum evbus_code check_line(struct reading *reading, const struct line *line, struct evbus_err *err)
{
	struct log_verify *log = &reading->run->log;
	char text[64 + 2 * EVBUS_OFFSET_MAX_BYTES], before[EVBUS_OFFSET_MAX_BYTES + 1];

	if (line->offset < reading->next) {
		TRY(partition_offset_text(reading->reader, reading->next - 1, before, err));
		snprintf(text, sizeof text, "offset %.*s stands behind offset %s", (int)line->offset_text.len,
			 line->offset_text.data, before);
		verify_on_finding(log, EVBUS_DAMAGE, "order", line->offset, 0, text);
	}
	reading->next = line->offset + 1;
	if (line->time_us < reading->time_us)
		count_odd(&reading->early, line->offset);
	else
		reading->time_us = line->time_us;
	log->records++;
	log->bytes += line->text.len + 1;
	if (!line->payload.data)
		count_odd(&reading->not_json, line->offset);
	if (log->record)
		TRY(log->record(log, line, 0, err));
	if (log->bytes - reading->told < PROGRESS_BYTES)
		return EVBUS_OK;
	reading->told = log->bytes;
	return log->progress(log, err);
}

static enum evbus_code read_all(struct reading *reading, uint64_t end, struct evbus_err *err)
{
	struct partition_reader *reader = reading->reader;
	struct evbus_err why;
	struct line line;
	bool got = true;

	while (got) {
		uint64_t at = reader->next;
		enum evbus_code code = partition_next(reader, end, &line, &got, &why);
		/* What is kept for a time only may go while it is read. */
		if (code == EVBUS_NONE && reader->first > at) {
			TRY(partition_seek(reader, reader->first, err));
			got = true;
			continue;
		}
		if (code != EVBUS_OK && err)
			*err = why;
		TRY(code);
		if (got)
			TRY(check_line(reading, &line, err));
	}
	return EVBUS_OK;
}

enum evbus_code verify_read(struct verification *run, struct evbus_err *err)
{
	CLEANUP(partition_close) struct partition_reader *reader = NULL;

	TRY(partition_open(run->home, run->log.partition, CHUNK_BYTES, true, &reader, err));
	struct reading reading = { .run = run, .reader = reader, .next = reader->first, .time_us = INT64_MIN };
	run->reader = reader;
	enum evbus_code code = read_all(&reading, reader->end, err);
	if (code == EVBUS_OK) {
		tell_odd(&reading, &reading.early, "order", "were published before one that stands before them");
		tell_odd(&reading, &reading.not_json, "payload",
			 "are no JSON objects, and are given out as payload_base64");
	}
	run->reader = NULL;
	TRY(code);
	return run->log.progress(&run->log, err);
}

/* line.h: one record as it lies in the log (evbus-log(5)).
 *
 *	{"crc32c":"9ae0daaf","offset":"42","published_at_utc":"2026-01-29T12:00:00.123456Z","partition_key":…,"payload":{…}}
 *
 * The checksum covers every byte from "offset" to the last brace, so a line is believed only as a whole. What others
 * have written to a server and is no JSON object has "payload":null,"payload_base64":"…"; a log of ours holds none. */
#ifndef EVBUS_LOG_LINE_H
#define EVBUS_LOG_LINE_H

#include "base/buf.h"
#include "base/clock.h"
#include "base/decimal.h"

#define LINE_MAX_BYTES (4u * 1024 * 1024)    /* with its newline */
#define LINE_CRC_AT 11u                      /* where the eight digits of the checksum stand */
#define LINE_MEMBERS_AT 21u                  /* where "offset" begins, and what the checksum covers */
#define LINE_HEAD_MAX 128u                   /* at most, up to and with "partition_key": */

struct line {
	struct evbus_slice text;             /* without the newline */
	uint64_t offset;
	int64_t time_us;
	struct evbus_slice offset_text, time_text, key, tenant_id, event_key, batch, origin;
	struct evbus_slice payload;          /* data NULL: it is no JSON object, and */
	struct evbus_slice payload_base64;   /* this is set: its bytes, without quotes */
	uint64_t batch_first, batch_last;    /* meaningful where batch.data is set */
	uint32_t returns;
};

/* Reads one line (text without its newline), checksum included. NULL: it is whole; else the reason why it is not. */
const char *line_parse(struct evbus_slice text, struct line *line);
/* The same, where many lines are read in order. minute: as in clock_parse_near. */
const char *line_parse_near(struct evbus_slice text, struct clock_minute *minute, struct line *line);

/* The same of a line that ends where text ends, and before which the newline was lost: false where there is none. */
bool line_parse_last(struct evbus_slice text, struct line *line);

/* The same of a line whose offset is any number of up to EVBUS_OFFSET_MAX_BYTES digits; line->offset becomes the position,
 * which whoever made it of what a server has (backend.h) knows. */
const char *line_parse_text(struct evbus_slice text, uint64_t position, struct line *line);

/* Only the offset and the time that the head of a line claims, unproved: for searching. false: it is no such head. */
bool line_peek(const char *text, size_t len, uint64_t *offset, int64_t *time_us);

/* The members behind published_at_utc, as text: what is encoded of them does not depend on where the line will stand. */
struct line_body {
	struct evbus_slice key;              /* data NULL: null */
	struct evbus_slice origin;           /* of this and the others: data NULL, no such member */
	uint32_t returns;
	struct evbus_slice payload;          /* one JSON object without a newline; data NULL: what is none, as */
	struct evbus_slice payload_base64;
	struct evbus_slice tenant_id, event_key;
	struct evbus_slice offset_text;      /* data NULL: the offset as a number, else these digits in its place */
};

/* Appends a whole line with a blank head to out; *split is where, relative to its beginning, "batch" would go. second: as
 * in clock_format_near. */
CHECKED enum evbus_code line_add_near(struct buf *out, const struct line_body *body, uint64_t offset, int64_t time_us,
				      struct clock_second *second, uint32_t *split, struct evbus_err *err);
CHECKED static inline enum evbus_code line_add(struct buf *out, const struct line_body *body, uint64_t offset,
					       int64_t time_us, uint32_t *split, struct evbus_err *why)
{
	struct clock_second second = { .us = 0 };

	return line_add_near(out, body, offset, time_us, &second, split, why);
}

/* Appends the line `old` (as line_add made it, with its newline) again with another offset, time and batch (last < first:
 * none). *split becomes that of the new line. */
CHECKED enum evbus_code line_readd(struct buf *out, struct evbus_slice old, uint32_t *split, uint64_t offset,
				   int64_t time_us, uint64_t batch_first, uint64_t batch_last, struct evbus_err *err);

/* The same with these digits as its offset, without a batch. */
CHECKED enum evbus_code line_readd_text(struct buf *out, struct evbus_slice old, uint32_t *split,
					struct evbus_slice offset_text, int64_t time_us, struct evbus_err *err);

/* The record of a line that was just made (line_add or line_readd), without reading it again. payload_len: of the base64
 * where the payload is no JSON object. */
void line_receipt(struct evbus_slice text, uint32_t split, uint32_t payload_len, struct evbus_slice topic,
		  int32_t partition, struct evbus_record *record);

/* What a record as printed or handed out is made of. */
void line_to_record(const struct line *line, struct evbus_slice topic, int32_t partition, struct evbus_record *record);

#endif

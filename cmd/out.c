/* out.c: the buffer in front of stdout, and records in it.
 *
 * A reader prints a million records a second or more, so a record in JSON costs two copies: a prefix that is constant
 * for a partition, and the stored line from "offset" on. The buffer is written between records: a line up to 256 KiB is
 * never torn over two writes. What is much and goes into a pipe is gathered in memory that the pipe is given (gift.c). */
#include "out.h"
#include "gift.h"
#include "template.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define WRITE_BYTES (256u * 1024u)
#define GIFT_AFTER_BYTES (4u * WRITE_BYTES) /* of output; for less it is not worth while */
#define GIFT_LEAST_BYTES (WRITE_BYTES / 4) /* a small one would take as much room in the pipe as a page */
#define PREFIXES 64u

struct prefix {
	const char *offset_kind;
	size_t len;
	size_t topic_len;
	int32_t partition_id;
	char text[EVBUS_TOPIC_MAX_BYTES + 128];
};

static char own[2 * WRITE_BYTES];
static struct prefix prefixes[PREFIXES];

static struct {
	char *data; /* `own`, or a block that is given */
	size_t size;
	size_t begin, len; /* what is not written yet stands from `begin` to `len` */
	size_t written; /* until a block was asked for */
	int failed; /* errno of the write that failed */
	enum { UNKNOWN, PLAIN, TERMINAL } device;
	enum record_form form;
	struct template template;
} out = { .data = own, .size = sizeof own };

bool out_is_terminal(void)
{
	if (out.device == UNKNOWN)
		out.device = isatty(STDOUT_FILENO) ? TERMINAL : PLAIN;
	return out.device == TERMINAL;
}

bool out_is_closed(void)
{
	return out.failed == EPIPE;
}

bool out_has_no_reader(void)
{
	struct pollfd fd = { .fd = STDOUT_FILENO };

	return poll(&fd, 1, 0) > 0 && fd.revents & POLLERR;
}

/* ---- bytes ----------------------------------------------------------------------------------------------------- */

/* Once we are asked to stop, a reader that stands still gets this long. */
#define STOP_PATIENCE_MS 1000

/* A stdout that whoever shares it made non-blocking is waited for. */
static bool can_be_written(void)
{
	struct pollfd fd = { .fd = STDOUT_FILENO, .events = POLLOUT };
	int n;

	do {
		n = poll(&fd, 1, stopped() ? STOP_PATIENCE_MS : -1);
	} while (n < 0 && errno == EINTR);
	errno = n ? errno : EINTR;
	return n > 0;
}

/* A write to a full pipe ends early or with EINTR where a signal comes. From then on only what a pipe that is ready
 * takes without blocking is written at a time. */
static void write_all(const char *data, size_t len, bool give)
{
	if (len && out_is_terminal())
		progress_clear();
	while (len && !out.failed) {
		bool careful = stopped() != 0;

		if (careful && !can_be_written()) {
			out.failed = errno;
			return;
		}
		ssize_t n = give && !careful ? gift_give(data, len)
					     : write(STDOUT_FILENO, data, careful && len > PIPE_BUF ? PIPE_BUF : len);
		if (n >= 0) {
			data += n;
			len -= (size_t)n;
		} else if (errno != EINTR && (errno != EAGAIN || !can_be_written())) {
			out.failed = errno;
		}
	}
}

/* Nothing is to be written now. A block is filled until there is room for only one more record of those that are not
 * to be torn. */
static void next_buffer(void)
{
	if (out.data != own && out.size - out.len >= 2 * WRITE_BYTES) {
		out.begin = out.len;
		return;
	}
	char *block = out.written >= GIFT_AFTER_BYTES ? gift_block() : NULL;

	out.data = block ? block : own;
	out.size = block ? GIFT_BLOCK_BYTES : sizeof own;
	out.begin = out.len = 0;
}

static void write_buffer(void)
{
	size_t len = out.len - out.begin;

	write_all(out.data + out.begin, len, out.data != own && len >= GIFT_LEAST_BYTES);
	if (out.written < GIFT_AFTER_BYTES)
		out.written += len;
	next_buffer();
}

static enum evbus_code code_of_writes(struct call *call)
{
	if (!out.failed)
		return EVBUS_OK;
	errno = out.failed;
	return fail_errno(call, EVBUS_IO, "cannot write to stdout");
}

enum evbus_code out_flush(struct call *call)
{
	write_buffer();
	return code_of_writes(call);
}

/* Some file systems tell of a full disk only now. */
enum evbus_code out_finish(struct call *call)
{
	bool printed = out.device != UNKNOWN;

	progress_clear();
	write_buffer();
	if (printed && close(STDOUT_FILENO) && !out.failed)
		out.failed = errno;
	return code_of_writes(call);
}

void out_bytes(const char *data, size_t len)
{
	/* NULL, where a receipt of a target has no offset. */
	if (!len)
		return;
	if (len > out.size - out.len)
		write_buffer();
	if (len > out.size - out.len) {
		write_all(data, len, false);
		return;
	}
	if (len) /* data is NULL where a record has no such thing */
		memcpy(out.data + out.len, data, len);
	out.len += len;
}

void out_text(const char *text)
{
	out_bytes(text, strlen(text));
}

void out_printf(const char *format, ...)
{
	va_list args;

	if (out.size - out.len < WRITE_BYTES)
		write_buffer();
	va_start(args, format);
	int n = vsnprintf(out.data + out.len, WRITE_BYTES, format, args);
	va_end(args);
	if (n > 0)
		out.len += (size_t)n < WRITE_BYTES ? (size_t)n : WRITE_BYTES - 1;
}

/* The length of a control character at data, 0 if there is none: C0 without the tab, DEL, and C1 in UTF-8. */
static size_t control_len(const unsigned char *data, size_t len)
{
	if ((data[0] < 0x20 && data[0] != '\t') || data[0] == 0x7f)
		return 1;
	return data[0] == 0xc2 && len > 1 && data[1] >= 0x80 && data[1] < 0xa0 ? 2 : 0;
}

static void out_visible(const char *data, size_t len)
{
	size_t plain = 0;

	for (size_t at = 0; at < len;) {
		size_t n = control_len((const unsigned char *)data + at, len - at);

		if (n) {
			out_bytes(data + plain, at - plain);
			out_printf("\\u%04x", (unsigned char)data[at + n - 1]);
			plain = at + n;
		}
		at += n ? n : 1;
	}
	out_bytes(data + plain, len - plain);
}

void out_data(const char *data, size_t len)
{
	if (out_is_terminal())
		out_visible(data, len);
	else
		out_bytes(data, len);
}

/* The letters that follow a backslash for these bytes, in pairs. */
static const char json_named[] = "\"\"\\\\\bb\ff\nn\rr\tt";
static const char copy_named[] = "\\\\\bb\ff\nn\rr\tt\vv";

static const char *escape_of(const char *named, char byte)
{
	for (; *named; named += 2)
		if (*named == byte)
			return named + 1;
	return NULL;
}

/* The length of the character at data, 0 where it is not UTF-8 (RFC 3629). */
static size_t character_len(const unsigned char *data, size_t len)
{
	unsigned char first = data[0];
	size_t n = first < 0x80 ? 1 : first < 0xc2 ? 0 : first < 0xe0 ? 2 : first < 0xf0 ? 3 : first < 0xf5 ? 4 : 0;

	if (n > len)
		return 0;
	for (size_t i = 1; i < n; i++)
		if ((data[i] & 0xc0) != 0x80)
			return 0;
	if ((first == 0xe0 && data[1] < 0xa0) || (first == 0xed && data[1] >= 0xa0) ||
	    (first == 0xf0 && data[1] < 0x90) || (first == 0xf4 && data[1] >= 0x90))
		return 0;
	return n;
}

/* How the character at data is written otherwise than it stands; 0: it is not. *len: of the character. */
static int json_replace(const unsigned char *data, size_t left, size_t *len, char escape[8])
{
	const char *letter = *data ? escape_of(json_named, (char)*data) : NULL;

	*len = character_len(data, left);
	if (*len && *data >= 0x20 && !letter)
		return 0;
	if (!*len) {
		*len = 1;
		return snprintf(escape, 8, "\\ufffd");
	}
	return letter ? snprintf(escape, 8, "\\%c", *letter) : snprintf(escape, 8, "\\u%04x", *data);
}

void json_escape(struct evbus_slice text, void (*put)(void *, const char *, size_t), void *context)
{
	size_t plain = 0, len;

	for (size_t at = 0; at < text.len; at += len) {
		char escape[8];
		int n = json_replace((const unsigned char *)text.data + at, text.len - at, &len, escape);

		if (n == 0)
			continue;
		put(context, text.data + plain, at - plain);
		put(context, escape, (size_t)n);
		plain = at + len;
	}
	put(context, text.data + plain, text.len - plain);
}

void out_copy(const char *data, size_t len)
{
	size_t plain = 0;

	for (size_t at = 0; at < len; at++) {
		const char *letter = escape_of(copy_named, data[at]);

		if (!letter)
			continue;
		out_data(data + plain, at - plain);
		out_bytes((const char[]){ '\\', *letter }, 2);
		plain = at + 1;
	}
	out_data(data + plain, len - plain);
}

void out_fail(int sys_errno)
{
	out.failed = out.failed ? out.failed : sys_errno;
}

/* ---- records --------------------------------------------------------------------------------------------------- */

static void make_prefix(struct prefix *prefix, const struct evbus_record *record)
{
	int n = snprintf(prefix->text, sizeof prefix->text,
			 "{\"topic\":\"%.*s\",\"partition_id\":%d,\"offset_kind\":\"%s\",", (int)record->topic.len,
			 record->topic.data, record->partition_id, record->offset_kind);

	prefix->len = (size_t)n;
	prefix->topic_len = record->topic.len;
	prefix->partition_id = record->partition_id;
	prefix->offset_kind = record->offset_kind;
}

struct evbus_slice record_prefix(const struct evbus_record *record)
{
	static const size_t topic_at = sizeof "{\"topic\":\"" - 1;
	struct evbus_slice topic = record->topic;
	unsigned hash = (unsigned)record->partition_id * 7u + (unsigned)topic.len;

	hash += topic.len ? (unsigned char)topic.data[topic.len - 1] * 3u : 0;
	struct prefix *prefix = &prefixes[hash % PREFIXES];
	if (!prefix->len || prefix->partition_id != record->partition_id || prefix->topic_len != topic.len ||
	    prefix->offset_kind != record->offset_kind || memcmp(prefix->text + topic_at, topic.data, topic.len) != 0)
		make_prefix(prefix, record);
	return (struct evbus_slice){ prefix->text, prefix->len };
}

void out_payload(const struct evbus_record *record)
{
	struct evbus_slice text = record->payload_base64;
	char bytes[3072];

	if (record->payload.data)
		out_data(record->payload.data, record->payload.len);
	else
		for (size_t at = 0, len; at < text.len; at += len) {
			len = text.len - at < 4096 ? text.len - at : 4096;
			size_t decoded = evbus_base64_decode((struct evbus_slice){ text.data + at, len }, bytes);
			if (decoded != SIZE_MAX)
				out_data(bytes, decoded);
		}
}

/* A target says no offset, and has no record that could be read. */
static void out_target_receipt(const struct evbus_record *record)
{
	out_text("\"offset\":null,\"published_at_utc\":\"");
	out_bytes(record->published_at_utc.data, record->published_at_utc.len);
	out_text("\"}");
}

/* members begins with "offset":"…","published_at_utc":"…" */
static size_t receipt_len(const struct evbus_record *record)
{
	return sizeof "\"offset\":\"" - 1 + record->offset.len + sizeof "\",\"published_at_utc\":\"" - 1 +
	       record->published_at_utc.len + 1;
}

static void out_json(const struct evbus_record *record, bool receipt)
{
	struct evbus_slice prefix = record_prefix(record);

	out_bytes(prefix.data, prefix.len);
	if (receipt && !record->members.data) {
		out_target_receipt(record);
	} else if (receipt) {
		out_bytes(record->members.data, receipt_len(record));
		out_text(record->duplicate ? ",\"duplicate\":true}" : "}");
	} else {
		out_data(record->members.data, record->members.len);
	}
}

static void out_tsv(const struct evbus_record *record, bool receipt)
{
	out_bytes(record->topic.data, record->topic.len);
	out_printf("\t%d\t%s\t", record->partition_id, record->offset_kind);
	out_bytes(record->offset.data, record->offset.len);
	out_text("\t");
	out_bytes(record->published_at_utc.data, record->published_at_utc.len);
	if (receipt)
		return;
	out_text("\t");
	out_value(record->partition_key, true);
	out_text("\t");
	out_value(record->payload, true);
}

static enum evbus_code print(struct call *call, const struct evbus_record *record, bool receipt)
{
	switch (out.form) {
	case FORM_JSON:
		out_json(record, receipt);
		break;
	case FORM_PAYLOAD:
		out_payload(record);
		break;
	case FORM_STORED:
		out_data(record->stored.data, record->stored.len);
		break;
	case FORM_PRETTY:
		pretty_print(record);
		break;
	case FORM_TSV:
		out_tsv(record, receipt);
		break;
	case FORM_TEMPLATE:
		template_print(&out.template, record);
		break;
	}
	if (out.form != FORM_TEMPLATE)
		out_text("\n");
	if (out.len - out.begin >= WRITE_BYTES)
		write_buffer();
	return code_of_writes(call);
}

enum evbus_code out_record(struct call *call, const struct evbus_record *record)
{
	return print(call, record, false);
}

enum evbus_code out_receipt(struct call *call, const struct evbus_record *receipt)
{
	return print(call, receipt, true);
}

void receipt_text(const struct evbus_record *receipt, char *text, size_t size)
{
	struct evbus_slice prefix = record_prefix(receipt), time = receipt->published_at_utc;
	const char *quote = receipt->offset.data ? "\"" : "";
	struct evbus_slice offset = receipt->offset.data ? receipt->offset : (struct evbus_slice){ "null", 4 };

	snprintf(text, size, "%.*s\"offset\":%s%.*s%s,\"published_at_utc\":\"%.*s\"}", (int)prefix.len, prefix.data,
		 quote, (int)offset.len, offset.data, quote, (int)time.len, time.data);
}

enum evbus_code out_format(struct call *call, struct record_format format)
{
	char why[320];

	if (record_format_parse(format.text, &out.form, &out.template, why, sizeof why))
		return EVBUS_OK;
	return fail(call, EVBUS_USAGE, "format '%s' %s", format.text, why);
}

enum evbus_code out_format_of(struct call *call, struct record_format format, const char *url)
{
	TRY(out_format(call, format));
	if (out.form != FORM_STORED)
		return EVBUS_OK;
	return refuse_of_target(call, url, "format stored", "there is no line that would be stored");
}

/* damage_help.c: making the log, reading what is left of it, and judging that. */
#include "damage.h"

#include "log/writer.h"

#include <dirent.h>
#include <errno.h>
#include <malloc.h>
#include <stdio.h>

#define SEGMENT_BYTES 6000u
#define ASIDE "page-aside" /* the page while there is none: another file would not be its own */
#define FRESH "{\"fresh\":true}"

struct whole whole;
uint64_t verdicts[VERDICTS];

static struct os real_os;
static char kept[PATH_MAX]; /* the copy of what was cut off, or "" */

/* ---- files ---- */

struct buf buf_of_file(const char *path)
{
	struct buf buf = { 0 };
	struct stat st;
	CLEANUP(os_close_cleanup) int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return buf;
	CHECK(!fstat(fd, &st), "fstat %s", path);
	CHECK_OK(buf_reserve(&buf, (size_t)st.st_size + 1, ERR));
	CHECK(os_read_at(fd, buf.data, (size_t)st.st_size, 0) == st.st_size, "read %s", path);
	buf.len = (size_t)st.st_size;
	return buf;
}

void file_put(const char *path, struct evbus_slice content)
{
	CLEANUP(os_close_cleanup) int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);

	CHECK(fd >= 0 && os_write_at(fd, content.data, content.len, 0) && !ftruncate(fd, (off_t)content.len), "%s: %s",
	      path, strerror(errno));
}

static struct evbus_slice slice_of(const struct buf *buf)
{
	return (struct evbus_slice){ buf->data, buf->len };
}

static bool is_same(struct evbus_slice a, struct evbus_slice b)
{
	return a.len == b.len && (a.len == 0 || memcmp(a.data, b.data, a.len) == 0);
}

/* ---- the log ---- */

/* What makes a newline with one bit flipped ('J', '*'), what looks like the end of a line, and nothing at all. */
static const char *const payloads[] = {
	"{}",
	"{\"id\":\"JJ**\"}",
	"{\"event_id\":\"0f\",\"amount\":12345678901234567890.10,\"note\":\"\\\"}\\\"\"}",
	"{\"a\":{\"crc32c\":\"00000000\",\"offset\":\"1\"}}",
	"{\"pad\":\"0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890\"}",
};

static struct line_body body_of(unsigned n)
{
	const char *payload = payloads[n % 11 == 4 ? 4 : n % 4];
	struct line_body body = { .payload = { payload, strlen(payload) } };

	if (n % 5 == 1)
		body.key = SLICE("m_\"17\\");
	if (n % 9 == 2) {
		body.origin = SLICE("orders/0/17");
		body.returns = 2;
	}
	if (n % 9 == 3) {
		body.tenant_id = SLICE("t");
		body.event_key = SLICE("k-\xc3\xa4");
	}
	return body;
}

static void add_lines(struct log_writer *writer, unsigned from, unsigned count)
{
	CLEANUP(group_release) struct group group = { .atomic = count > 1 };
	struct mark mark = { 0 };

	for (unsigned i = 0; i < count; i++) {
		struct line_body body = body_of(from + i);
		CHECK_OK(group_add(&group, &body, from + i, os_now_us(), ERR));
	}
	CHECK_OK(writer_append(writer, &group, UINT64_MAX, &mark, ERR));
	CHECK_OK(writer_commit(writer, &mark, &group, ERR));
}

static void write_log(uint64_t segment_max_bytes)
{
	struct evbus_topic_options options = { .segment_max_bytes = segment_max_bytes };
	struct root root = { .fd = -1, .file_mode = 0600, .dir_mode = 0700 };
	struct topic topic = { .fd = -1 };
	struct log_writer writer;
	bool created;

	CHECK_OK(root_open(&root, "bus", true, ERR));
	CHECK_OK(topic_create(&root, TOPIC, &options, &topic, &created, ERR));
	CHECK_OK(writer_open(&topic, 0, NULL, &writer, ERR));
	for (unsigned n = 0; n < LINES;) {
		unsigned count = n % 16 == 9 ? 3 : 1;
		add_lines(&writer, n, count);
		n += count;
	}
	writer_close(&writer);
	topic_close(&topic);
	root_close(&root);
}

/* Returns the number of the line behind the last. */
static unsigned take_lines(const struct buf *file, unsigned n)
{
	const char *at = file->data, *end = file->data + file->len;

	while (at < end) {
		const char *newline = memchr(at, '\n', (size_t)(end - at));
		CHECK(newline && n < LINES, "the log was written wrong at line %u", n);
		whole.lines[n++] = (struct evbus_slice){ at, (size_t)(newline + 1 - at) };
		at = newline + 1;
	}
	return n;
}

void damage_begin(enum shape shape)
{
	run_begin(IN_MEMORY);
	real_os = os;
	/* Half of the time would go into buffers that come from the kernel and go back to it. */
	mallopt(M_MMAP_THRESHOLD, 1 << 25);
	mallopt(M_TRIM_THRESHOLD, 1 << 26);
	write_log(shape == TWO_SEGMENTS ? SEGMENT_BYTES : 0);
	whole = (struct whole){ buf_of_file(LIVE), buf_of_file(OLDER), buf_of_file(PAGE), buf_of_file(TOPIC_JSON), 0,
				{ { 0 } } };
	whole.sealed = take_lines(&whole.older, 0);
	CHECK((shape == TWO_SEGMENTS) == (whole.sealed > 0) && take_lines(&whole.live, whole.sealed) == LINES,
	      "the log has other segments than it was to have");
}

void damage_end(void)
{
	os = real_os;
	buf_release(&whole.live);
	buf_release(&whole.older);
	buf_release(&whole.page);
	buf_release(&whole.topic_json);
	run_end();
}

unsigned damage_line_at(const struct buf *file, size_t byte, size_t *begins)
{
	unsigned n = file == &whole.live ? whole.sealed : 0;

	*begins = 0;
	while (*begins + whole.lines[n].len <= byte)
		*begins += whole.lines[n++].len;
	return n;
}

static int another_boot(char id[36])
{
	memset(id, '7', 36);
	return 0;
}

static void put_state(const struct hurt *hurt)
{
	os.boot_id = hurt->page == PAGE_OF_ANOTHER_BOOT ? another_boot : real_os.boot_id;
	if (hurt->page == NO_PAGE)
		CHECK(!rename(PAGE, ASIDE), "rename: %s", strerror(errno));
	if (hurt->path)
		file_put(hurt->path, hurt->with);
}

static void put_back(const struct hurt *hurt)
{
	if (hurt->page == NO_PAGE)
		CHECK(!rename(ASIDE, PAGE), "rename: %s", strerror(errno));
	file_put(LIVE, slice_of(&whole.live));
	file_put(PAGE, slice_of(&whole.page));
	if (hurt->path && strcmp(hurt->path, LIVE) != 0 && strcmp(hurt->path, PAGE) != 0)
		file_put(hurt->path, strcmp(hurt->path, OLDER) ? slice_of(&whole.topic_json) : slice_of(&whole.older));
	if (*kept)
		CHECK(!unlink(kept), "unlink %s: %s", kept, strerror(errno));
	os.boot_id = real_os.boot_id;
}

/* ---- who comes along ---- */

struct reading {
	enum evbus_code code;
	struct evbus_err err;
	uint64_t count; /* records that were given out, all of them right */
};

struct verifying {
	uint64_t damages, notes, records;
	uint64_t offset, byte; /* of the first damage */
	char text[256];
};

struct publishing {
	enum evbus_code code;
	struct evbus_err err;
	uint64_t offset;
	unsigned notices;
};

/* fresh: where FRESH was published since, or UINT64_MAX. */
static struct reading read_all(struct evbus *bus, uint64_t fresh)
{
	const struct evbus_selection all = { .topic = TOPIC, .partition_id = EVBUS_PARTITION_ALL };
	struct reading reading = { 0 };
	struct evbus_reader *reader = NULL;
	const struct evbus_record *record;
	uint64_t offset;

	reading.code = evbus_reader_open(bus, &all, &reader, &reading.err);
	while (!reading.code) {
		reading.code = evbus_reader_next(reader, 0, &record, &reading.err);
		if (reading.code || !record)
			break;
		CHECK(decimal_parse(record->offset, &offset) && offset == reading.count,
		      "offset %.*s is given out where %llu is due", (int)record->offset.len, record->offset.data,
		      (unsigned long long)reading.count);
		bool right = offset == fresh  ? is_same(record->payload, SLICE(FRESH))
			     : offset < LINES ? record->stored.len + 1 == whole.lines[offset].len &&
							memcmp(record->stored.data, whole.lines[offset].data,
							       record->stored.len) == 0
					      : false;
		CHECK(right, "a wrong line is given out at offset %llu: %.*s", (unsigned long long)offset,
		      (int)record->stored.len, record->stored.data);
		reading.count++;
	}
	evbus_reader_close(reader);
	return reading;
}

static void take_finding(void *context, const struct evbus_finding *finding)
{
	struct verifying *verifying = context;

	if (finding->severity == EVBUS_NOTE || verifying->damages++)
		return;
	verifying->offset = finding->offset;
	verifying->byte = finding->byte;
	snprintf(verifying->text, sizeof verifying->text, "%s", finding->text);
}

static struct verifying verify_all(struct evbus *bus)
{
	struct verifying verifying = { 0 };
	const struct evbus_verify_options options = { .partition_id = EVBUS_PARTITION_ALL,
						      .finding = take_finding,
						      .context = &verifying };
	struct evbus_verify_result result;

	CHECK_OK(evbus_verify(bus, TOPIC, &options, &result, ERR));
	verifying.notes = result.notes;
	verifying.records = result.records;
	return verifying;
}

static void take_notice(void *context, const char *text)
{
	const char *name = strstr(text, "kept as '");

	++*(unsigned *)context;
	if (name)
		snprintf(kept, sizeof kept, "bus/%.*s", (int)strcspn(name + 9, "'"), name + 9);
}

static struct publishing publish_one(void)
{
	struct publishing publishing = { 0 };
	const struct evbus_options options = { .notice = take_notice, .notice_context = &publishing.notices };
	const struct evbus_record *receipt;
	struct evbus *bus;

	CHECK_OK(evbus_open("file:bus", &options, &bus, ERR));
	publishing.code = evbus_publish(bus, TOPIC, FRESH, &receipt, &publishing.err);
	if (!publishing.code)
		CHECK(decimal_parse(receipt->offset, &publishing.offset), "the receipt has no offset");
	evbus_close(bus);
	return publishing;
}

/* ---- what is to be made of it ---- */

static void check_text(const struct hurt *hurt, enum evbus_code code, const char *text)
{
	char place[96];

	CHECK(code == EVBUS_IO || code == EVBUS_CONFLICT, "%d is not the code of damage: %s", (int)code, text);
	CHECK(strstr(text, "'" TOPIC), "no topic is named: %s", text);
	if (hurt->line == LINES)
		return;
	snprintf(place, sizeof place, "at offset %u, byte %zu of '", hurt->line, hurt->byte);
	CHECK(strstr(text, place), "'%s' is not said: %s", place, text);
}

static void check_reading(const struct hurt *hurt, const struct reading *reading)
{
	if (reading->code) {
		check_text(hurt, reading->code, reading->err.text);
		CHECK(hurt->line == LINES || reading->count == hurt->line,
		      "%llu lines are read, and line %u is damaged", (unsigned long long)reading->count, hurt->line);
		return;
	}
	CHECK(reading->count == LINES || hurt->may_end, "only %llu lines are read, and nothing is said",
	      (unsigned long long)reading->count);
	/* Nothing that is whole is passed over, but what is left of a batch. */
	for (uint64_t n = reading->count; n < LINES; n++)
		CHECK(memmem(whole.lines[n].data, whole.lines[n].len, "\"batch\"", 7) ||
			      !memmem(hurt->with.data, hurt->with.len, whole.lines[n].data, whole.lines[n].len),
		      "%llu lines are read, and line %llu is there", (unsigned long long)reading->count,
		      (unsigned long long)n);
}

/* verify knows no less than the reader. */
static void check_verifying(const struct hurt *hurt, const struct reading *reading, const struct verifying *verifying)
{
	size_t older = hurt->path && strcmp(hurt->path, LIVE) == 0 ? whole.older.len : 0;

	if (!reading->code)
		CHECK(!verifying->damages && verifying->records == reading->count,
		      "what can be read is damaged for verify: %s", verifying->text);
	else {
		CHECK(verifying->damages, "verify finds nothing, and reading fails: %s", reading->err.text);
		CHECK(hurt->line == LINES || (verifying->offset == hurt->line && verifying->byte == older + hurt->byte),
		      "verify names offset %llu, byte %llu, and not %u, %zu: %s", (unsigned long long)verifying->offset,
		      (unsigned long long)verifying->byte, hurt->line, older + hurt->byte, verifying->text);
	}
}

/* Nothing of what stood there is gone: it stands there still, or up to where it was cut, and the rest in the copy. */
static void check_bytes(const struct hurt *hurt, const struct publishing *publishing)
{
	struct evbus_slice before = hurt->path && strcmp(hurt->path, LIVE) == 0 ? hurt->with : slice_of(&whole.live);
	CLEANUP(buf_release) struct buf after = buf_of_file(LIVE), copy = { 0 };
	size_t same = 0;

	if (publishing->code) {
		CHECK(is_same(before, slice_of(&after)), "publishing fails and has changed the log");
		return;
	}
	if (*kept)
		copy = buf_of_file(kept);
	same = before.len - (copy.len < before.len ? copy.len : before.len);
	CHECK(after.len > same && memcmp(after.data, before.data, same) == 0,
	      "bytes of the log were changed before byte %zu", same);
	CHECK(is_same((struct evbus_slice){ before.data + same, before.len - same }, slice_of(&copy)),
	      "what was cut off is not in the copy");
	CHECK(!copy.len || publishing->notices, "what was cut off was not told");
}

static void check_publishing(const struct hurt *hurt, const struct reading *reading,
			     const struct publishing *publishing)
{
	check_bytes(hurt, publishing);
	if (publishing->code) {
		CHECK(publishing->code == EVBUS_IO || publishing->code == EVBUS_CONFLICT,
		      "%d is not the code of damage: %s", (int)publishing->code, publishing->err.text);
		CHECK(strstr(publishing->err.text, "'" TOPIC), "no topic is named: %s", publishing->err.text);
		return;
	}
	CHECK(hurt->page == NO_PAGE || !hurt->path || strcmp(hurt->path, LIVE) != 0 || hurt->with.len >= whole.live.len,
	      "an event is published behind a log that was cut");
	bool at_end = publishing->offset == LINES;
	CHECK(at_end || (hurt->may_end && !reading->code && publishing->offset == reading->count),
	      "published at offset %llu, and there were %u", (unsigned long long)publishing->offset, LINES);
	struct evbus *bus = open_bus();
	struct reading again = read_all(bus, publishing->offset);
	evbus_close(bus);
	CHECK(reading->code ? again.count >= reading->count : !again.code && again.count == publishing->offset + 1,
	      "after publishing %llu lines are read: %s", (unsigned long long)again.count,
	      again.code ? again.err.text : "");
}

enum verdict damage_judge(const struct hurt *hurt)
{
	put_state(hurt);
	*kept = '\0';
	struct evbus *bus = open_bus();
	struct reading reading = read_all(bus, UINT64_MAX);
	check_reading(hurt, &reading);
	struct verifying verifying = verify_all(bus);
	check_verifying(hurt, &reading, &verifying);
	evbus_close(bus);
	struct publishing publishing = publish_one();
	check_publishing(hurt, &reading, &publishing);
	put_back(hurt);
	enum verdict verdict = reading.code ? DETECTED : reading.count < LINES ? INTERRUPTED : HARMLESS;
	CHECK(!hurt->is_harmless || (verdict == HARMLESS && !publishing.code), "it should be harmless: %s%s",
	      reading.code ? reading.err.text : "", publishing.code ? publishing.err.text : "");
	return verdict;
}

/* ---- many of them ---- */

size_t damage_step(void)
{
	return run_count(1, 101);
}

size_t damage_first(void)
{
	return run.seed % damage_step();
}

uint64_t damage_share(uint64_t of)
{
	return of > damage_first() ? (of - damage_first() + damage_step() - 1) / damage_step() : 0;
}

void damage_try(const struct hurt *hurt, const char *what, size_t at)
{
	static const char *const pages[PAGES] = { "the page of this boot", "the page of another boot", "no page" };

	snprintf(run.where, sizeof run.where, "%s %zu of '%s', %s: ", what, at, hurt->path, pages[hurt->page]);
	verdicts[damage_judge(hurt)]++;
	run.where[0] = '\0';
}

void damage_tell(const char *what, uint64_t of)
{
	uint64_t ran = verdicts[HARMLESS] + verdicts[DETECTED] + verdicts[INTERRUPTED];

	fprintf(stderr, "%s: %llu detected, %llu harmless, %llu taken for an interrupted write\n", what,
		(unsigned long long)verdicts[DETECTED], (unsigned long long)verdicts[HARMLESS],
		(unsigned long long)verdicts[INTERRUPTED]);
	memset(verdicts, 0, sizeof verdicts);
	run_ran(what, ran, of);
}

/* clients.c: the writers and readers of the tests, and the oracle that holds the log against what they noted. */
#include "fault.h"

#include "event/partition.h"

#include <errno.h>
#include <glob.h>

struct plan plan;

/* ---- events ---- */

static uint64_t hash_of(unsigned writer, uint64_t event)
{
	uint64_t state = run.seed ^ (uint64_t)writer << 40 ^ event;

	return random_next(&state);
}

size_t payload_make(char *to, unsigned writer, uint64_t event, unsigned at, unsigned of)
{
	uint64_t hash = hash_of(writer, event);
	size_t pad = hash % 64 == 0 ? 8192 : hash / 64 % 160;
	int head = snprintf(to, PAYLOAD_MAX, "{\"writer\":%u,\"event\":%llu,\"at\":%u,\"of\":%u,\"pad\":\"", writer,
			    (unsigned long long)event, at, of);
	size_t len = (size_t)head;

	for (size_t i = 0; i < pad; i++)
		to[len++] = (char)('a' + (hash >> i % 32) % 26);
	to[len++] = '"';
	to[len++] = '}';
	to[len] = '\0';
	return len;
}

bool payload_parse(struct evbus_slice payload, unsigned *writer, uint64_t *event, unsigned *at, unsigned *of)
{
	char head[100], expected[PAYLOAD_MAX];
	unsigned long long number;

	snprintf(head, sizeof head, "%.*s", (int)(payload.len < sizeof head ? payload.len : sizeof head - 1), payload.data);
	if (sscanf(head, "{\"writer\":%u,\"event\":%llu,\"at\":%u,\"of\":%u,", writer, &number, at, of) != 4)
		return false;
	*event = number;
	return payload_make(expected, *writer, *event, *at, *of) == payload.len &&
	       memcmp(expected, payload.data, payload.len) == 0;
}

size_t key_make(char *to, unsigned writer, uint64_t event)
{
	return (size_t)snprintf(to, 32, "k_%llu", (unsigned long long)(hash_of(writer, event) >> 32) % 97);
}

/* ---- writers ---- */

struct writer {
	unsigned index;
	struct evbus *bus;
	struct evbus_publisher *publisher;
	uint64_t next_receipt;           /* the event that the publisher's next receipt is for */
	uint64_t random;
};

struct evbus *open_bus(void)
{
	struct evbus *bus;

	CHECK_OK(evbus_open("file:bus", NULL, &bus, ERR));
	return bus;
}

void make_topic(unsigned lanes, uint64_t segment_max_bytes)
{
	struct evbus_topic_options options = { .partitions = lanes, .segment_max_bytes = segment_max_bytes };
	struct evbus *bus = open_bus();
	bool created;

	CHECK_OK(evbus_topic_create(bus, TOPIC, &options, &created, ERR));
	evbus_close(bus);
}

static void take_receipts(struct writer *writer)
{
	const struct evbus_record *receipt;
	unsigned index, at, of;
	uint64_t event;

	while ((receipt = evbus_publisher_next(writer->publisher))) {
		CHECK(payload_parse(receipt->payload, &index, &event, &at, &of) && index == writer->index &&
			      event == writer->next_receipt,
		      "writer %u: a receipt with the payload %.*s where event %llu was expected", writer->index,
		      (int)receipt->payload.len, receipt->payload.data, (unsigned long long)writer->next_receipt);
		note_receipt(writer->index, writer->next_receipt++, receipt);
	}
}

static bool add(struct writer *writer, unsigned at, unsigned of, struct evbus_err *err)
{
	char payload[PAYLOAD_MAX], key[32];
	uint64_t event = atomic_fetch_add(&notes->submitted[writer->index], 1);
	struct evbus_event made = { .topic = TOPIC, .partition_id = EVBUS_PARTITION_ANY };

	made.payload = (struct evbus_slice){ payload, payload_make(payload, writer->index, event, at, of) };
	/* A batch goes to one partition: all of it gets the key of its first. */
	if (plan.keyed)
		made.key = (struct evbus_slice){ key, key_make(key, writer->index, event - at) };
	enum evbus_code code = evbus_publisher_add(writer->publisher, &made, err);
	take_receipts(writer);
	return code == EVBUS_OK;
}

/* One flush: a single event, some thousand (which is several slots of the publisher), or a batch. */
static bool publish_some(struct writer *writer, enum way way, struct evbus_err *err)
{
	uint64_t left = notes->events - atomic_load(&notes->submitted[writer->index]);
	uint64_t most = way == SINGLES ? 1 : way == STREAM && !plan.may_fail && !plan.pause_us ? 12000 : BATCH_MAX;
	uint64_t count = 1 + random_next(&writer->random) % most;

	count = count < left ? count : left;
	for (unsigned i = 0; i < count; i++)
		if (!add(writer, way == BATCHES ? i : 0, way == BATCHES ? (unsigned)count : 1, err))
			return false;
	enum evbus_code code = evbus_publisher_flush(writer->publisher, err);
	take_receipts(writer);
	return code == EVBUS_OK;
}

static bool publish_bare(struct writer *writer, struct evbus_err *err)
{
	char payload[PAYLOAD_MAX];
	const struct evbus_record *receipt;
	uint64_t event = atomic_fetch_add(&notes->submitted[writer->index], 1);

	payload_make(payload, writer->index, event, 0, 1);
	enum evbus_code code = evbus_publish(writer->bus, TOPIC, payload, &receipt, err);
	if (code == EVBUS_OK)
		note_receipt(writer->index, event, receipt);
	return code == EVBUS_OK;
}

static void open_publisher(struct writer *writer, enum way way)
{
	struct evbus_publisher_options options = { .atomic = way == BATCHES };

	writer->next_receipt = atomic_load(&notes->submitted[writer->index]);
	CHECK_OK(evbus_publisher_open(writer->bus, &options, &writer->publisher, ERR));
}

static void count_failure(struct writer *writer, const struct evbus_err *err, enum way way)
{
	bool allowed = err->code == EVBUS_IO || err->code == EVBUS_AGAIN || err->code == EVBUS_CONFLICT;

	CHECK(plan.may_fail && allowed, "writer %u failed with %d: %s", writer->index, (int)err->code, err->text);
	atomic_fetch_add(&notes->failures[err->code], 1);
	if (getenv("EVBUS_TEST_TELL"))
		fprintf(stderr, "writer %u: %s\n", writer->index, err->text);
	if (writer->publisher) {
		evbus_publisher_close(writer->publisher);
		open_publisher(writer, way);
	}
}

void write_events(unsigned index)
{
	struct writer writer = { .index = index, .bus = open_bus(), .random = run.seed + index };
	enum way way = plan.way == MIXED ? (enum way)(index % 3) : plan.way;
	bool bare = way == SINGLES && !plan.keyed;
	struct evbus_err err;

	if (!bare)
		open_publisher(&writer, way);
	while (atomic_load(&notes->submitted[index]) < notes->events && !atomic_load(&notes->stop)) {
		if (!(bare ? publish_bare(&writer, &err) : publish_some(&writer, way, &err)))
			count_failure(&writer, &err, way);
		pause_us(plan.pause_us);
	}
	evbus_publisher_close(writer.publisher);
	evbus_close(writer.bus);
}

enum evbus_code try_one(struct evbus *bus, unsigned index, uint64_t event, struct evbus_err *err)
{
	struct writer writer = { .index = index, .bus = bus, .next_receipt = event };

	atomic_store(&notes->submitted[index], event);
	enum evbus_code code = evbus_publisher_open(bus, NULL, &writer.publisher, err);
	if (code != EVBUS_OK)
		return code;
	if (!add(&writer, 0, 1, err))
		code = err->code;
	else
		code = evbus_publisher_flush(writer.publisher, err);
	take_receipts(&writer);
	evbus_publisher_close(writer.publisher);
	return code;
}

uint64_t event_for_lane(unsigned writer, unsigned lane, uint64_t from)
{
	char key[32];

	while (notes->lanes > 1 &&
	       partition_of_key(key, key_make(key, writer, from), notes->lanes) != (int32_t)lane)
		from++;
	return from;
}

/* ---- readers ---- */

static void see(unsigned reader, const struct evbus_record *record)
{
	struct seen *seen = &notes->seen[reader][record->partition_id];
	uint64_t offset, count = atomic_load(&seen->count);

	CHECK(decimal_parse(record->offset, &offset) && offset == count, "reader %u got offset %.*s, not %llu", reader,
	      (int)record->offset.len, record->offset.data, (unsigned long long)count);
	CHECK(count < (uint64_t)notes->writers * notes->events, "reader %u got more than was published", reader);
	seen->crcs[count] = (uint32_t)strtoul(record->stored.data + LINE_CRC_AT, NULL, 16);
	atomic_store(&seen->count, count + 1);
}

/* From what the reader saw last. */
static void open_reader(struct evbus *bus, unsigned index, struct evbus_reader **reader)
{
	struct evbus_selection selection = { .topic = TOPIC, .partition_id = EVBUS_PARTITION_ALL, .follow = true };
	char from[24];

	evbus_reader_close(*reader);
	*reader = NULL;
	snprintf(from, sizeof from, "%llu", (unsigned long long)atomic_load(&notes->seen[index][0].count));
	selection.from = notes->lanes == 1 ? from : NULL;
	CHECK_OK(evbus_reader_open(bus, &selection, reader, ERR));
}

static bool read_next(struct evbus *bus, unsigned index, struct evbus_reader **reader)
{
	const struct evbus_record *record;
	struct evbus_err err;
	enum evbus_code code = evbus_reader_next(*reader, 200, &record, &err);

	if (code == EVBUS_OK && record)
		see(index, record);
	if (code == EVBUS_OK)
		return record != NULL;
	CHECK(plan.may_fail && (code == EVBUS_CONFLICT || code == EVBUS_IO), "reader %u failed with %d: %s", index,
	      (int)code, err.text);
	if (getenv("EVBUS_TEST_TELL"))
		fprintf(stderr, "reader %u: %s\n", index, err.text);
	atomic_fetch_add(&notes->reopened, 1);
	pause_us(10000);
	open_reader(bus, index, reader);
	return false;
}

void follow_events(unsigned index)
{
	struct evbus *bus = open_bus();
	struct evbus_reader *reader = NULL;
	int64_t last_us = now_us();
	uint64_t got = 0, goal;

	/* One that comes after another was killed goes on where that was. */
	for (unsigned lane = 0; lane < notes->lanes; lane++)
		got += atomic_load(&notes->seen[index][lane].count);
	open_reader(bus, index, &reader);
	while (goal = atomic_load(&notes->goal), !goal || got < goal) {
		if (read_next(bus, index, &reader)) {
			got++;
			last_us = now_us();
		}
		CHECK(!goal || now_us() - last_us < 10000000,
		      "reader %u got %llu of %llu records, and then none for 10 s", index, (unsigned long long)got,
		      (unsigned long long)goal);
	}
	evbus_reader_close(reader);
	evbus_close(bus);
}

/* ---- the log as it lies ---- */

static void read_line(struct log_image *log, struct evbus_slice text, const char *path, int64_t *time_us)
{
	struct log_line *to = &log->lines[log->count];
	struct line line;
	const char *why = line_parse(text, &line);

	CHECK(!why, "%s, offset %llu: %s", path, (unsigned long long)log->count, why);
	CHECK(line.offset == log->count, "%s: offset %llu stands where %llu should", path,
	      (unsigned long long)line.offset, (unsigned long long)log->count);
	CHECK(line.time_us >= *time_us, "%s, offset %llu: its time is before the last", path,
	      (unsigned long long)log->count);
	*time_us = line.time_us;
	CHECK(payload_parse(line.payload, &to->writer, &to->event, &to->at, &to->of),
	      "%s, offset %llu: its payload is not what was published", path, (unsigned long long)log->count);
	CHECK(line.batch.data || to->of == 1, "%s, offset %llu: a line of a batch does not say so", path,
	      (unsigned long long)log->count);
	if (line.batch.data)
		CHECK(line.batch_first == log->count - to->at && line.batch_last == line.batch_first + to->of - 1,
		      "%s, offset %llu: it is %u of %u and says batch %.*s", path, (unsigned long long)log->count,
		      to->at, to->of, (int)line.batch.len, line.batch.data);
	to->crc = (uint32_t)strtoul(text.data + LINE_CRC_AT, NULL, 16);
	log->count++;
}

static void read_segment(struct log_image *log, const char *path, size_t *room, int64_t *time_us)
{
	FILE *file = fopen(path, "r");
	struct stat st;
	char *text = NULL;
	size_t size = 0;
	ssize_t len;

	CHECK(file && !fstat(fileno(file), &st), "%s: %s", path, strerror(errno));
	for (uint64_t at = 0; (len = getline(&text, &size, file)) > 0;) {
		CHECK(text[len - 1] == '\n', "%s: half a line at its end", path);
		if (log->count == *room) {
			*room = *room ? *room * 2 : 1024;
			log->lines = realloc(log->lines, *room * sizeof *log->lines);
			CHECK(log->lines, "no memory");
		}
		read_line(log, (struct evbus_slice){ text, (size_t)len - 1 }, path, time_us);
		at += (uint64_t)len;
		log->lines[log->count - 1].end = at;
		log->lines[log->count - 1].ino = st.st_ino;
	}
	free(text);
	fclose(file);
	log->files++;
}

void log_read(unsigned lane, struct log_image *log)
{
	char pattern[128];
	glob_t found;
	size_t room = 0;
	int64_t time_us = 0;

	*log = (struct log_image){ 0 };
	snprintf(pattern, sizeof pattern, "bus/" TOPIC "/partition=%u/*.jsonl", lane);
	if (glob(pattern, 0, NULL, &found) == 0) {
		for (size_t i = 0; i < found.gl_pathc; i++)
			read_segment(log, found.gl_pathv[i], &room, &time_us);
		globfree(&found);
	}
	snprintf(pattern, sizeof pattern, "bus/" TOPIC "/partition=%u.jsonl", lane);
	if (access(pattern, F_OK) == 0)
		read_segment(log, pattern, &room, &time_us);
}

/* ---- the oracle ---- */

static void check_batches(const struct log_image *log)
{
	for (uint64_t i = 0; i < log->count; i += log->lines[i].of) {
		const struct log_line *first = &log->lines[i];
		CHECK(first->at == 0 && first->of && i + first->of <= log->count,
		      "the batch at offset %llu is not whole", (unsigned long long)i);
		for (unsigned k = 1; k < first->of; k++)
			CHECK(first[k].writer == first->writer && first[k].event == first->event + k &&
				      first[k].at == k && first[k].of == first->of && first[k].ino == first->ino,
			      "the batch at offset %llu is not contiguous", (unsigned long long)i);
	}
}

/* Each event at most once, in the writer's order, in the partition of its key. */
static void check_lines(unsigned lane, const struct log_image *log, uint64_t *places)
{
	uint64_t next[WRITERS_MAX] = { 0 };

	for (uint64_t i = 0; i < log->count; i++) {
		const struct log_line *line = &log->lines[i];
		CHECK(line->writer < notes->writers && line->event < notes->events, "an event that nobody published");
		uint64_t *place = &places[(size_t)line->writer * notes->events + line->event];
		CHECK(*place == 0, "event %u/%llu is there twice", line->writer, (unsigned long long)line->event);
		*place = place_of((int32_t)lane, i) + 1;
		CHECK(line->event >= next[line->writer], "event %u/%llu overtook another", line->writer,
		      (unsigned long long)line->event);
		next[line->writer] = line->event + 1;
		char key[32];
		size_t len = key_make(key, line->writer, line->event - line->at);
		CHECK(notes->lanes == 1 || partition_of_key(key, len, notes->lanes) == (int32_t)lane,
		      "event %u/%llu is in partition %u, where its key does not belong", line->writer,
		      (unsigned long long)line->event, lane);
	}
}

static void check_seen(unsigned lane, const struct log_image *log)
{
	for (unsigned r = 0; r < notes->readers; r++) {
		const struct seen *seen = &notes->seen[r][lane];
		uint64_t count = atomic_load(&seen->count);
		CHECK(count <= log->count && (!atomic_load(&notes->goal) || count == log->count),
		      "reader %u saw %llu records of partition %u, and there are %llu", r, (unsigned long long)count,
		      lane, (unsigned long long)log->count);
		for (uint64_t i = 0; i < count; i++)
			CHECK(seen->crcs[i] == log->lines[i].crc, "reader %u saw another record at offset %llu", r,
			      (unsigned long long)i);
	}
}

uint64_t check_everything(void)
{
	size_t all = (size_t)notes->writers * notes->events;
	uint64_t *places = calloc(all, sizeof *places), lines = 0;
	struct log_image log;

	CHECK(places, "no memory");
	for (unsigned lane = 0; lane < notes->lanes; lane++) {
		log_read(lane, &log);
		check_batches(&log);
		check_lines(lane, &log, places);
		check_seen(lane, &log);
		lines += log.count;
		free(log.lines);
	}
	for (size_t i = 0; i < all; i++) {
		uint64_t acked = atomic_load(&notes->places[i]);
		CHECK(!acked || acked == places[i],
		      "event %zu/%zu was acknowledged at partition %llu, offset %llu, and is %s", i / notes->events,
		      i % notes->events, (unsigned long long)(acked - 1) >> 48,
		      (unsigned long long)(acked - 1) & 0xffffffffffff, places[i] ? "elsewhere" : "not there");
	}
	free(places);
	return lines;
}

/* seek_reads.c: how many reads a search takes in a log of 10 GB, of which only what is read is ever made. */
#include "log/seek.h"
#include "log_helpers.h"

TestSuite(seek_reads, .timeout = 120);

#define PATTERN 4096u /* lines, of which the sizes come again and again */
#define QUESTIONS (300u / sweep_step())
#define FIRST_US 1769688000000000

static uint64_t pattern_at[PATTERN + 1], count;
static int64_t (*time_of)(uint64_t n);
static int reads;

/* Numbers that look random and repeat. */
static uint64_t seed = 4711;

static uint64_t any(uint64_t below)
{
	seed = seed * 6364136223846793005u + 1442695040888963407u;
	return (seed >> 33) % below;
}

/* ---- the log ---- */

static uint64_t begin_of(uint64_t n)
{
	return n / PATTERN * pattern_at[PATTERN] + pattern_at[n % PATTERN];
}

static uint64_t line_at_byte(uint64_t byte)
{
	uint64_t low = byte / pattern_at[PATTERN] * PATTERN, high = low + PATTERN;

	while (high - low > 1) {
		uint64_t middle = low + (high - low) / 2;
		*(begin_of(middle) <= byte ? &low : &high) = middle;
	}
	return low;
}

static ssize_t make_pread(int fd, void *data, size_t len, off_t at)
{
	uint64_t from = (uint64_t)at, end = begin_of(count), until = from + len < end ? from + len : end;
	char head[LINE_HEAD_MAX + 1], time[TIME_TEXT_LEN + 1];

	(void)fd;
	reads++;
	memset(data, 'x', len);
	for (uint64_t n = line_at_byte(from); n < count && begin_of(n) < until; n++) {
		uint64_t begin = begin_of(n), newline = begin_of(n + 1) - 1;
		evbus_time_format(time_of(n), time);
		size_t size =
			(size_t)snprintf(head, sizeof head,
					 "{\"crc32c\":\"00000000\",\"offset\":\"%ju\",\"published_at_utc\":\"%.27s\",\"partition_key\":",
					 (uintmax_t)n, time);
		for (size_t i = 0; i < size; i++)
			if (begin + i >= from && begin + i < until)
				((char *)data)[begin + i - from] = head[i];
		if (newline >= from && newline < until)
			((char *)data)[newline - from] = '\n';
	}
	return (ssize_t)(until > from ? until - from : 0);
}

/* ---- what is asked ---- */

static void assert_found(enum seek_by by, uint64_t value, int reads_max)
{
	CLEANUP(buf_release) struct buf buf = { 0 };
	uint64_t at, first = by == SEEK_TIME ? (uint64_t)time_of(0) : 0;
	uint64_t last = by == SEEK_TIME ? (uint64_t)time_of(count - 1) + 1 : count;
	struct seek seek = {
		.fd = -1, .name = "10 GB", .size = begin_of(count), .by = by, .low = first, .high = last, .buf = &buf
	};

	reads = 0;
	os.pread = make_pread;
	cr_assert_eq(seek_find(&seek, value, &at, &err), EVBUS_OK, "%s", err.text);
	os.pread = real_os.pread;
	uint64_t n = at < seek.size ? line_at_byte(at) : count;
	cr_assert(at == seek.size || begin_of(n) == at);
	cr_assert(n == count || (by == SEEK_OFFSET ? n : (uint64_t)time_of(n)) >= value);
	cr_assert(n == 0 || (by == SEEK_OFFSET ? n - 1 : (uint64_t)time_of(n - 1)) < value);
	cr_assert_leq(reads, reads_max, "%s %ju took %d reads", by == SEEK_OFFSET ? "offset" : "time", (uintmax_t)value,
		      reads);
}

static void make_log(uint64_t bytes, size_t (*size)(void))
{
	for (size_t i = 0; i < PATTERN; i++)
		pattern_at[i + 1] = pattern_at[i] + 200 + size();
	count = bytes / (pattern_at[PATTERN] / PATTERN);
}

/* Times that records have, and times between them. */
static void assert_all_found(int64_t (*time)(uint64_t n), int reads_max)
{
	time_of = time;
	int64_t span = time(count - 1) - time(0);
	for (unsigned i = 0; i < QUESTIONS; i++) {
		assert_found(SEEK_TIME, (uint64_t)time(any(count)), reads_max);
		assert_found(SEEK_TIME,
			     (uint64_t)time(0) + ((uint64_t)any(1u << 31) << 31 | any(1u << 31)) % (uint64_t)span,
			     reads_max);
	}
}

/* ---- sizes and times ---- */

static size_t about_200(void)
{
	return 180 + any(40);
}

static size_t up_to_4_kib(void)
{
	return any(4096 - 200);
}

static int64_t evenly(uint64_t n)
{
	return FIRST_US + (int64_t)n * 1000;
}

/* Files that were published one after the other: each in no time, and then a pause. */
static int64_t in_batches(uint64_t n)
{
	return FIRST_US + (int64_t)(n / 2500 * 5000 + n % 2500);
}

static int64_t in_bursts(uint64_t n)
{
	return FIRST_US + (int64_t)(n / 100000 * 3600000000 + n % 100000 * 10);
}

/* Half of the lines in half of the time, the next quarter in as much, and so on: a search that only aims never ends. */
static int64_t ever_faster(uint64_t n)
{
	uint64_t left = count - n, half = 0;

	while (left < count >> half)
		half++;
	return FIRST_US + (int64_t)(half * 86400000000 + n);
}

/* With what a reader reads beside that (topic.json, the page, the end of the segment before, the heads of four segments,
 * the line itself) that makes 20 in ten segments of 1 GiB. */
Test(seek_reads, are_few_whatever_the_size_and_however_the_times_lie)
{
	static size_t (*const sizes[])(void) = { about_200, up_to_4_kib };

	for (unsigned gib = 1; gib <= 10; gib += 9)
		for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
			make_log(((uint64_t)gib << 30) + (1u << 20), sizes[i]);
			time_of = evenly;
			for (unsigned n = 0; n < QUESTIONS; n++)
				assert_found(SEEK_OFFSET, any(count), 8);
			assert_all_found(evenly, 8);
			assert_all_found(in_batches, gib == 1 ? 12 : 16);
			assert_all_found(in_bursts, gib == 1 ? 12 : 16);
			assert_all_found(ever_faster, gib == 1 ? 12 : 16);
		}
}

/* log/verify.c: a whole log has no findings, also while it is written; each kind of damage is named where it is. */
#include "log/verify.h"
#include "faulty.h"
#include "log_helpers.h"

TestSuite(log_verify, .init = enter, .fini = leave, .timeout = 60);

#define FINDINGS_MAX 64

struct finding {
	enum evbus_severity severity;
	char what[16];
	uint64_t offset, byte;
};

static struct finding findings[FINDINGS_MAX];
static int finding_count, progressed;
static struct log_writer writer;
static void (*meanwhile)(void);

static void on_finding(struct log_verify *verify, enum evbus_severity severity, const char *what, uint64_t offset,
		       uint64_t byte, const char *text)
{
	(void)verify;
	cr_assert(finding_count < FINDINGS_MAX && strlen(text) > 8);
	struct finding *finding = &findings[finding_count++];
	*finding = (struct finding){ .severity = severity, .offset = offset, .byte = byte };
	snprintf(finding->what, sizeof finding->what, "%s", what);
}

static enum evbus_code on_progress(struct log_verify *verify, struct evbus_err *error)
{
	(void)verify;
	(void)error;
	progressed++;
	if (meanwhile)
		meanwhile();
	return EVBUS_OK;
}

static struct log_verify verify_log(void)
{
	struct log_verify verify = { .topic = &topic, .finding = on_finding, .progress = on_progress };

	finding_count = progressed = 0;
	cr_assert_eq(log_verify(&verify, &err), EVBUS_OK, "%s", err.text);
	return verify;
}

static bool was_found(const char *what, uint64_t offset, uint64_t byte)
{
	for (int i = 0; i < finding_count; i++)
		if (findings[i].severity == EVBUS_DAMAGE && !strcmp(findings[i].what, what) &&
		    findings[i].offset == offset && findings[i].byte == byte)
			return true;
	return false;
}

/* One finding, and it is damage. */
static void assert_damage(const char *what, uint64_t offset, uint64_t byte)
{
	verify_log();
	cr_assert(finding_count == 1 && was_found(what, offset, byte), "%d findings; %s at offset %ju, byte %ju",
		  finding_count, finding_count ? findings[0].what : "none", (uintmax_t)findings[0].offset,
		  (uintmax_t)findings[0].byte);
}

static void assert_none(uint64_t records)
{
	struct log_verify verify = verify_log();

	cr_assert_eq(finding_count, 0, "%s at offset %ju", findings[0].what, (uintmax_t)findings[0].offset);
	cr_assert_eq(verify.records, records);
	cr_assert(progressed || records == 0);
}

/* ---- whole logs ---- */

Test(log_verify, finds_nothing_in_logs_that_are_whole)
{
	assert_none(0);
	must_publish(0, 5);
	must_open(&writer);
	cr_assert_eq(publish_group(&writer, 5, 3, true, 0), EVBUS_OK);
	cr_assert_eq(publish_group(&writer, 8, 1, true, 0), EVBUS_OK);
	writer_close(&writer);
	assert_none(9);
	cr_assert(!unlink(LOCK));
	assert_none(9);
	open_rolling(300);
	must_publish(0, 20);
	assert_none(20);
}

Test(log_verify, finds_nothing_in_a_log_that_is_being_written)
{
	must_open(&writer);
	cr_assert_eq(publish(&writer, 0), EVBUS_OK);
	append_only(&writer, 1);
	assert_none(1);
	writer_close(&writer);
}

static void publish_one_meanwhile(void)
{
	meanwhile = NULL;
	must_publish(13, 1);
}

Test(log_verify, finds_nothing_in_a_log_whose_writer_has_ended_meanwhile)
{
	open_rolling(1000);
	must_publish(0, 13);
	meanwhile = publish_one_meanwhile;
	assert_none(13);
	cr_assert_null(meanwhile);
}

static void publish_meanwhile(void)
{
	static uint64_t next = 12;

	must_publish(next, 6);
	next += 6;
}

/* It looks at the log as it was when it began. */
Test(log_verify, finds_nothing_in_a_log_that_is_rolled_meanwhile)
{
	open_rolling(400);
	must_publish(0, 12);
	meanwhile = publish_meanwhile;
	assert_none(12);
}

static void roll_in_between(void)
{
	struct os mine = os;

	os = faulty.real;
	must_publish(12, 6);
	os = mine;
}

Test(log_verify, finds_nothing_in_a_log_that_is_rolled_between_any_two_calls)
{
	unsigned at = 0;

	do {
		open_rolling(500);
		must_publish(0, 12);
		faulty_begin(++at, 0);
		faulty.instead = roll_in_between;
		struct log_verify verify = verify_log();
		faulty_end();
		for (int i = 0; i < finding_count; i++)
			cr_assert_eq(findings[i].severity, EVBUS_NOTE, "call %u: %s", at, findings[i].what);
		cr_assert(verify.records == 12 || verify.records == 18, "call %u: %ju", at, (uintmax_t)verify.records);
		cr_assert(!fchdir(root.fd));
		topic_close(&topic);
		scratch_remove("rolling");
	} while (faulty.failed);
	cr_assert_gt(at, 30u);
	open_topic("t", NULL);
}

/* ---- damage ---- */

static struct buf whole;

static void write_log(void)
{
	must_publish(0, 4);
	must_open(&writer);
	cr_assert_eq(publish_group(&writer, 4, 3, true, 0), EVBUS_OK);
	cr_assert_eq(publish(&writer, 7), EVBUS_OK);
	writer_close(&writer);
	whole = load(LIVE);
}

Test(log_verify, names_the_line_whatever_byte_of_it_is_damaged)
{
	write_log();
	for (size_t at = 0; at < whole.len; at++) {
		whole.data[at] ^= 1;
		store_buf(LIVE, &whole);
		whole.data[at] ^= 1;
		size_t line = 0;
		while (line < 7 && line_at(&whole, line + 1) <= at)
			line++;
		verify_log();
		cr_assert(was_found("checksum", line, line_at(&whole, line)) ||
				  was_found("shape", line, line_at(&whole, line)),
			  "byte %zu: %d findings, %s at offset %ju", at, finding_count, findings[0].what,
			  (uintmax_t)findings[0].offset);
	}
	buf_release(&whole);
}

/* Without a page, for one of that length would say that the log was cut. */
static void store_lines(const int *lines, size_t count)
{
	CLEANUP(buf_release) struct buf file = { 0 };

	for (size_t i = 0; i < count; i++)
		add(&file, whole.data + line_at(&whole, (size_t)lines[i]),
		    line_at(&whole, (size_t)lines[i] + 1) - line_at(&whole, (size_t)lines[i]));
	store_buf(LIVE, &file);
	unlink(LOCK);
}

Test(log_verify, names_lines_that_are_missing_twice_or_out_of_order)
{
	write_log();
	store_lines((int[]){ 0, 1, 3, 4, 5, 6, 7 }, 7);
	verify_log();
	cr_assert(was_found("gap", 2, line_at(&whole, 2)), "%s", findings[0].what);
	store_lines((int[]){ 0, 1, 1, 2, 3, 4, 5, 6, 7 }, 9);
	verify_log();
	cr_assert(was_found("order", 2, line_at(&whole, 2)), "%s", findings[0].what);
	store_lines((int[]){ 0, 2, 1, 3, 4, 5, 6, 7 }, 8);
	verify_log();
	cr_assert(was_found("gap", 1, line_at(&whole, 1)), "%s", findings[0].what);
	buf_release(&whole);
}

Test(log_verify, names_a_batch_that_is_not_whole)
{
	write_log();
	store_lines((int[]){ 0, 1, 2, 3, 4, 5, 7 }, 7);
	verify_log();
	cr_assert(was_found("batch", 4, line_at(&whole, 4)), "%s", findings[0].what);
	store_lines((int[]){ 0, 1, 2, 3, 5, 6, 7 }, 7);
	verify_log();
	cr_assert(was_found("gap", 4, line_at(&whole, 4)), "%s", findings[0].what);
	buf_release(&whole);
}

Test(log_verify, notes_an_interrupted_write_and_does_not_call_it_damage)
{
	write_log();
	size_t len = whole.len;
	add(&whole, "{\"crc32c\":\"0000", 15);
	store_buf(LIVE, &whole);
	for (int i = 0; i < 3; i++) {
		verify_log();
		cr_assert(finding_count == 1 && findings[0].severity == EVBUS_NOTE && !strcmp(findings[0].what, "tail"),
			  "%s", findings[0].what);
		cr_assert(findings[0].offset == 8 && findings[0].byte == len);
		if (i == 0)
			unlink(LOCK);
		else
			restart_machine();
	}
	buf_release(&whole);
}

/* After a power cut: a hole before good lines is a tail, as long as it lies behind what was durable. */
Test(log_verify, notes_a_hole_behind_what_was_durable_before_a_restart)
{
	write_log();
	struct cell durable = cell_at(&whole, line_at(&whole, 3));
	cr_assert(!unlink(LOCK));
	make_page(&durable, &durable);
	restart_machine();
	memset(whole.data + line_at(&whole, 3) + 10, 0, 40);
	store_buf(LIVE, &whole);
	verify_log();
	cr_assert(finding_count == 1 && findings[0].severity == EVBUS_NOTE && !strcmp(findings[0].what, "tail"), "%s",
		  findings[0].what);
	buf_release(&whole);
}

Test(log_verify, names_what_was_acknowledged_and_is_cut_off)
{
	write_log();
	cr_assert(!truncate(LIVE, (off_t)line_at(&whole, 5)));
	verify_log();
	cr_assert(was_found("segment", 5, line_at(&whole, 5)), "%s", findings[0].what);
	buf_release(&whole);
}

/* A reader looks for one more, and says that verify knows more. */
Test(log_verify, names_lines_that_are_whole_and_not_all_that_were_acknowledged)
{
	write_log();
	struct cell cell = cell_at(&whole, whole.len);
	cell.next++;
	make_page(&cell, &cell);
	assert_damage("segment", cell.next - 1, whole.len);
	buf_release(&whole);
}

Test(log_verify, names_a_line_that_is_too_long_and_goes_on_behind_it)
{
	CLEANUP(buf_release) struct buf file = { 0 };

	write_log();
	add(&file, whole.data, line_at(&whole, 2));
	cr_assert_eq(buf_reserve(&file, 5000000, &err), EVBUS_OK);
	memset(file.data + file.len, 'x', 4999999);
	file.data[file.len + 4999999] = '\n';
	file.len += 5000000;
	add(&file, whole.data + line_at(&whole, 3), whole.len - line_at(&whole, 3));
	store_buf(LIVE, &file);
	unlink(LOCK);
	struct log_verify verify = verify_log();
	cr_assert(finding_count == 1 && was_found("shape", 2, line_at(&whole, 2)), "%s", findings[0].what);
	cr_assert_eq(verify.records, 7);
	buf_release(&whole);
}

/* ---- segments ---- */

static void segment_file(size_t i, char path[SEGMENT_PATH_MAX])
{
	struct segments older;

	cr_assert_eq(segments_list(&topic, 0, &older, &err), EVBUS_OK);
	cr_assert_lt(i, older.count);
	segment_path(0, older.bases[i], path);
	segments_release(&older);
}

static uint64_t segment_begin(size_t i)
{
	char path[SEGMENT_PATH_MAX];

	segment_file(i, path);
	return strtoull(path + strlen("partition=0/"), NULL, 10);
}

static uint64_t size_of(const char *path)
{
	struct stat st;

	cr_assert(!stat(path, &st));
	return (uint64_t)st.st_size;
}

Test(log_verify, names_a_segment_that_is_missing_cut_or_damaged)
{
	char path[SEGMENT_PATH_MAX];
	uint64_t before = 0;

	open_rolling(400);
	must_publish(0, 20);
	for (size_t i = 0; i < 2; i++) {
		segment_file(i, path);
		before += size_of(path);
	}
	uint64_t base = segment_begin(2), next = segment_begin(3);
	segment_file(2, path);
	CLEANUP(buf_release) struct buf segment = load(path);
	cr_assert(!truncate(path, (off_t)line_at(&segment, 1)));
	assert_damage("segment", base + 1, before + line_at(&segment, 1));
	cr_assert(!unlink(path));
	assert_damage("segment", base, before);
	segment.data[segment.len - 1] = 'x';
	store_buf(path, &segment);
	verify_log();
	cr_assert(was_found("shape", next - 1, before + line_at(&segment, 2)), "%s", findings[0].what);
}

/* It used to keep everybody from opening the log. */
Test(log_verify, names_damage_in_the_last_line_of_the_newest_older_segment)
{
	char path[SEGMENT_PATH_MAX];
	struct segments older;

	open_rolling(400);
	must_publish(0, 20);
	cr_assert_eq(segments_list(&topic, 0, &older, &err), EVBUS_OK);
	segment_path(0, older.bases[older.count - 1], path);
	uint64_t live = older.bases[older.count - 1] + 3;
	segments_release(&older);
	CLEANUP(buf_release) struct buf segment = load(path);
	segment.data[segment.len - 3] ^= 1;
	store_buf(path, &segment);
	for (int i = 0; i < 2; i++) {
		verify_log();
		cr_assert(finding_count == 1 && findings[0].severity == EVBUS_DAMAGE && findings[0].offset == live - 1,
			  "%s %ju", findings[0].what, (uintmax_t)findings[0].offset);
		unlink(LOCK);
	}
}

/* ---- faults ---- */

Test(log_verify, says_so_when_it_cannot_read)
{
	unsigned at = 0;

	open_rolling(400);
	must_publish(0, 12);
	do {
		struct log_verify verify = { .topic = &topic, .finding = on_finding, .progress = on_progress };
		int files = open_files();
		finding_count = 0;
		faulty_begin(++at, EIO);
		enum evbus_code code = log_verify(&verify, &err);
		faulty_end();
		cr_assert_eq(open_files(), files, "call %u", at);
		cr_assert_eq(finding_count, 0, "call %u, %s", at, faulty.failed);
		cr_assert(code != EVBUS_OK || verify.records == 12, "call %u, %s", at, faulty.failed);
	} while (faulty.failed);
	cr_assert_gt(at, 30u);
}

/* ---- whoever looks on ---- */

static uint64_t ends_at;
static unsigned asked;

static enum evbus_code end_at(struct log_verify *verify, const struct line *line, uint64_t byte,
			      struct evbus_err *error)
{
	(void)verify;
	(void)byte;
	return line->offset == ends_at ? err_set(error, EVBUS_DATA, 0, "enough") : EVBUS_OK;
}

static enum evbus_code end_later(struct log_verify *verify, struct evbus_err *error)
{
	(void)verify;
	return ++asked == ends_at ? err_set(error, EVBUS_DATA, 0, "enough") : EVBUS_OK;
}

Test(log_verify, ends_where_it_is_told_to)
{
	struct log_verify verify = {
		.topic = &topic, .finding = on_finding, .progress = on_progress, .record = end_at
	};

	must_publish(0, 8);
	for (ends_at = 0; ends_at < 8; ends_at++) {
		verify.records = 0;
		cr_assert_eq(log_verify(&verify, &err), EVBUS_DATA);
		cr_assert_str_eq(err.text, "enough");
		cr_assert_eq(verify.records, ends_at + 1);
	}
	verify.record = NULL;
	verify.progress = end_later;
	must_open(&writer);
	cr_assert_eq(publish_group(&writer, 8, 12, false, 900000), EVBUS_OK, "%s", err.text);
	writer_close(&writer);
	/* Every 4 MiB, and at the end. */
	for (ends_at = 1; ends_at <= 3; ends_at++) {
		asked = 0;
		cr_assert_eq(log_verify(&verify, &err), EVBUS_DATA);
		cr_assert_eq(asked, ends_at);
	}
	ends_at = 0;
	asked = 0;
	cr_assert_eq(log_verify(&verify, &err), EVBUS_OK, "%s", err.text);
	cr_assert_eq(asked, 3u);
	cr_assert_eq(finding_count, 0);
}

/* position.c: ways to name a position. */
#include "delivery/position.h"

#include "log/line.h"

#include <string.h>

static enum evbus_code not_a_position(const char *text, struct evbus_err *err)
{
	return err_set(err, EVBUS_USAGE, 0,
		       "'%s' is not a position: use N, beginning, end, -N (before the end), @TIME or stored (the group's "
		       "checkpoint)",
		       text);
}

/* Whether a bus could have it. */
static bool is_offset(const char *text)
{
	size_t len = strspn(text, "0123456789");

	return len && !text[len] && len <= EVBUS_OFFSET_MAX_BYTES && (text[0] != '0' || len == 1);
}

enum evbus_code position_parse(const char *text, struct position *position, struct evbus_err *err)
{
	static const struct {
		const char *word;
		enum position_kind kind;
	} words[] = { { "beginning", POSITION_BEGINNING }, { "end", POSITION_END }, { "stored", POSITION_STORED } };
	struct position parsed = { 0 };

	for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
		if (strcmp(text, words[i].word) == 0) {
			*position = (struct position){ .kind = words[i].kind };
			return EVBUS_OK;
		}
	}
	if (text[0] == '@') {
		parsed.kind = POSITION_TIME;
		TRY(evbus_time_parse(text + 1, os_now_us(), &parsed.time_us, err));
		*position = parsed;
		return EVBUS_OK;
	}
	if (is_offset(text)) {
		*position = (struct position){ .kind = POSITION_OFFSET, .text = text };
		return EVBUS_OK;
	}
	parsed.kind = POSITION_BEFORE_END;
	if (text[0] != '-' || !decimal_parse((struct evbus_slice){ text + 1, strlen(text + 1) }, &parsed.number))
		return not_a_position(text, err);
	*position = parsed;
	return EVBUS_OK;
}

/* The position of the record that comes after so many from here on, or stop. *passed: how many there were. */
static enum evbus_code pass(struct partition_reader *reader, uint64_t start, uint64_t stop, uint64_t most,
			    uint64_t *passed, uint64_t *offset, struct evbus_err *err)
{
	struct line line;
	bool got = true;

	TRY(partition_seek(reader, start, err));
	for (*passed = 0;; ++*passed) {
		TRY(partition_next(reader, stop, &line, &got, err));
		*offset = got ? line.offset : stop;
		if (!got || *passed == most)
			return EVBUS_OK;
	}
}

enum evbus_code position_count(struct partition_reader *reader, uint64_t start, uint64_t stop, uint64_t *count,
			       struct evbus_err *err)
{
	uint64_t offset;

	*count = start < stop ? stop - start : 0;
	if (reader->ops->keeps_lines || !*count)
		return EVBUS_OK;
	return pass(reader, start, stop, UINT64_MAX, count, &offset, err);
}

enum evbus_code position_before(struct partition_reader *reader, uint64_t stop, uint64_t n, uint64_t *offset,
				uint64_t *count, struct evbus_err *err)
{
	uint64_t first = reader->first, there, skipped, back = n, start = stop, found = 0;

	/* So many positions back stand at most so many records: where some are left out, twice as far, and so on. */
	while (found < n && start > first) {
		uint64_t end = start;
		start = back < stop - first ? stop - back : first;
		TRY(position_count(reader, start, end, &there, err));
		found += there;
		back = back > UINT64_MAX / 2 ? UINT64_MAX : back * 2;
	}
	*count = found < n ? found : n;
	*offset = start;
	if (reader->ops->keeps_lines || start == stop)
		return EVBUS_OK;
	return pass(reader, start, stop, found - *count, &skipped, offset, err);
}

static enum evbus_code find_offset(const char *text, struct partition_reader *reader, uint64_t *offset,
				   struct evbus_err *err)
{
	enum evbus_code code = partition_offset_find(reader, (struct evbus_slice){ text, strlen(text) }, offset, err);

	if (code != EVBUS_DATA)
		return code;
	return err_set(err, EVBUS_USAGE, 0, "'%s' is not an offset that topic '%s' can have", text, reader->topic->name);
}

enum evbus_code position_resolve(const struct position *position, struct partition_reader *reader, uint64_t *offset,
				 struct evbus_err *err)
{
	uint64_t first = reader->first, next = reader->end, count;

	switch (position->kind) {
	case POSITION_OFFSET:
		return find_offset(position->text, reader, offset, err);
	case POSITION_BEGINNING:
		*offset = first;
		return EVBUS_OK;
	case POSITION_END:
		*offset = next;
		return EVBUS_OK;
	case POSITION_BEFORE_END:
		return position_before(reader, next, position->number, offset, &count, err);
	case POSITION_TIME:
		TRY(partition_seek_time(reader, position->time_us, err));
		*offset = reader->next;
		return EVBUS_OK;
	default:
		return err_set(err, EVBUS_USAGE, 0, "'stored' needs a group: say which with --group");
	}
}

enum evbus_code position_check(const struct partition_reader *reader, uint64_t position, struct evbus_err *err)
{
	char text[EVBUS_OFFSET_MAX_BYTES + 1], first[EVBUS_OFFSET_MAX_BYTES + 1], end[EVBUS_OFFSET_MAX_BYTES + 1];

	if (position >= reader->first && position <= reader->end)
		return EVBUS_OK;
	TRY(partition_offset_text(reader, position, text, err));
	TRY(partition_offset_text(reader, reader->first, first, err));
	TRY(partition_offset_text(reader, reader->end, end, err));
	return err_set(err, EVBUS_CONFLICT, 0,
		       "offset %s is not in topic '%s', partition %d, which goes from %s to %s (exclusive)", text,
		       reader->topic->name, reader->partition, first, end);
}

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
	bool back = text[0] == '-';
	parsed.kind = back ? POSITION_BEFORE_END : POSITION_OFFSET;
	if (!decimal_parse((struct evbus_slice){ text + back, strlen(text + back) }, &parsed.number))
		return not_a_position(text, err);
	*position = parsed;
	return EVBUS_OK;
}

enum evbus_code position_resolve(const struct position *position, struct partition_reader *reader, uint64_t *offset,
				 struct evbus_err *err)
{
	uint64_t first = reader->first, next = reader->end;

	switch (position->kind) {
	case POSITION_OFFSET:
		*offset = position->number;
		return EVBUS_OK;
	case POSITION_BEGINNING:
		*offset = first;
		return EVBUS_OK;
	case POSITION_END:
		*offset = next;
		return EVBUS_OK;
	case POSITION_BEFORE_END:
		*offset = position->number < next - first ? next - position->number : first;
		return EVBUS_OK;
	case POSITION_TIME:
		TRY(partition_seek_time(reader, position->time_us, err));
		*offset = reader->next;
		return EVBUS_OK;
	default:
		return err_set(err, EVBUS_USAGE, 0, "'stored' needs a group: say which with --group");
	}
}

/* What the tests over a backend with gaps have in common: a bus of it with the topic t, and the helpers of the consumer. */
#ifndef EVBUS_TESTS_GAPS_HELPERS_H
#define EVBUS_TESTS_GAPS_HELPERS_H

#define STATE "state.db"
#include "gaps.h"
#include "consumer_helpers.h"

static inline struct evbus *open_gaps(void)
{
	const struct evbus_options options = { .store = stored_url("sqlite:" STATE), .notice = take_notice };
	struct evbus *opened;

	OK(evbus_open("memory:gaps", &options, &opened, &err));
	gaps_wrap(opened, modules);
	return opened;
}

static inline void enter_gaps(void)
{
	real_os = os;
	scratch_find_modules(modules);
	scratch_enter(scratch);
	bus = open_gaps();
	make_topic("t", 1);
}

static inline int offset_of(int n)
{
	return (int)(GAPS_FIRST + GAPS_STEP * (unsigned)n);
}

/* The numbers that a selection has, as "3 4 ". */
static inline const char *numbers(const struct evbus_selection *selection)
{
	static char text[4096];
	const struct evbus_record *record;
	struct evbus_reader *reader;
	size_t len = 0;

	OK(evbus_reader_open(bus, selection, &reader, &err));
	for (text[0] = '\0';;) {
		OK(evbus_reader_next(reader, 0, &record, &err));
		if (!record)
			break;
		const struct evbus_delivery delivery = { .record = record };
		len += (size_t)snprintf(text + len, sizeof text - len, "%d ", number_of(&delivery));
	}
	evbus_reader_close(reader);
	return text;
}

#define NUMBERS(...) numbers(&(struct evbus_selection){ .topic = "t", .partition_id = 0, __VA_ARGS__ })

#endif

/* Many processes make one topic, or a whole bus, at the same time: it is one topic, made once. */
#include "fault.h"

#include <criterion/criterion.h>
#include <sched.h>

#define PROCESSES 16u

static void setup(void)
{
	run_begin(IN_MEMORY);
	plan = (struct plan){ .way = SINGLES };
}

TestSuite(create, .init = setup, .fini = run_end, .timeout = 120);

static char (*log_ids)[33];              /* by process */
static const struct evbus_topic_options *wanted;     /* two of them, taken in turn */

/* All start at once: each waits until all are there. */
static void meet(void)
{
	atomic_fetch_add(&notes->counters[0], 1);
	while (atomic_load(&notes->counters[0]) < PROCESSES)
		sched_yield();
}

static void create_topic(unsigned index)
{
	struct evbus *bus = open_bus();
	const struct evbus_topic_options *options = wanted ? &wanted[index % 2] : NULL;
	struct evbus_partition_info info;
	struct evbus_err err;
	bool created = false;

	meet();
	enum evbus_code code = evbus_topic_create(bus, TOPIC, options, &created, &err);
	CHECK(code == EVBUS_OK || (options && code == EVBUS_CONFLICT), "%d: %s", (int)code, err.text);
	CHECK(code == EVBUS_OK || !created, "it made a topic and says that it conflicts");
	atomic_fetch_add(&notes->counters[1], created);
	atomic_fetch_add(&notes->counters[2], code == EVBUS_OK);
	CHECK_OK(evbus_topic_describe(bus, TOPIC, 0, &info, ERR));
	CHECK(!options || (code == EVBUS_OK) == (info.partitions == options->partitions), "it has %u partitions",
	      info.partitions);
	memcpy(log_ids[index], info.log_id, sizeof info.log_id);
	evbus_close(bus);
}

static void race(void (*body)(unsigned index))
{
	pid_t racers[PROCESSES];

	notes_new(PROCESSES, 2, 0, 1);
	log_ids = notes_share(PROCESSES * sizeof *log_ids);
	for (unsigned i = 0; i < PROCESSES; i++)
		racers[i] = child_start(body, i);
	for (unsigned i = 0; i < PROCESSES; i++)
		child_join(racers[i]);
}

static void race_to_create(const char *what, bool have_bus)
{
	unsigned rounds = run_count(40, 10), ran = 0;

	for (; ran < rounds; ran++) {
		if (have_bus)
			CHECK(!mkdir("bus", 0700), "mkdir");
		race(create_topic);
		CHECK(atomic_load(&notes->counters[1]) == 1, "%llu processes made the topic",
		      (unsigned long long)atomic_load(&notes->counters[1]));
		CHECK(wanted ? atomic_load(&notes->counters[2]) == PROCESSES / 2 :
			       atomic_load(&notes->counters[2]) == PROCESSES,
		      "%llu succeeded", (unsigned long long)atomic_load(&notes->counters[2]));
		for (unsigned i = 0; i < PROCESSES; i++)
			CHECK(strlen(log_ids[i]) == 32 && strcmp(log_ids[i], log_ids[0]) == 0, "log ids %s and %s",
			      log_ids[i], log_ids[0]);
		run_remove("bus");
	}
	run_ran(what, ran, rounds);
}

Test(create, of_one_topic_by_16_processes_has_one_log_id_and_one_creator)
{
	race_to_create("creations", true);
}

Test(create, of_one_topic_and_its_bus_by_16_processes_has_one_log_id_and_one_creator)
{
	race_to_create("creations of a bus", false);
}

Test(create, of_one_topic_with_two_numbers_of_partitions_refuses_half_of_them)
{
	static const struct evbus_topic_options options[2] = { { .partitions = 2 }, { .partitions = 3 } };

	wanted = options;
	race_to_create("creations that differ", true);
}

static void publish_first(unsigned index)
{
	struct evbus *bus = open_bus();
	struct evbus_err err;

	meet();
	for (uint64_t event = 0; event < 2; event++)
		CHECK(try_one(bus, index, event, &err) == EVBUS_OK, "%d: %s", (int)err.code, err.text);
	evbus_close(bus);
}

Test(create, by_the_first_events_of_16_processes_makes_one_log_of_all)
{
	unsigned rounds = run_count(40, 10);
	uint64_t lines = 0;

	for (unsigned i = 0; i < rounds; i++) {
		race(publish_first);
		CHECK(atomic_load(&notes->acked) == 2 * PROCESSES, "receipts are missing");
		lines += check_everything();
		run_remove("bus");
	}
	run_ran("first events", lines, 2ull * PROCESSES * rounds);
}

/* At each place at which a publisher can be stopped, something happens, another one publishes meanwhile as far as it can,
 * and the first one goes on or is killed: whatever comes of it, the receipts are true, and the next one can publish.
 *
 * How many places there are is counted by letting one publish that nobody stops. */
#include "harm.h"
#include "points.h"

#include "base/points.h"

#include <criterion/criterion.h>
#include <signal.h>
#include <sys/stat.h>

#define LIVE "bus/" TOPIC "/partition=0.jsonl"
#define LINES 3u
#define QUICK_STEP 60u
#define NEXT_US 1000000 /* after a holder's death the next one proceeds within this time */

enum { FIRST = 1, SECOND, HOLDER };
enum counter { FORKED, OPENED };

static void setup(void)
{
	run_begin(IN_MEMORY);
}

TestSuite(schedules_sweep, .init = setup, .fini = run_end, .timeout = 300);

/* ---- who publishes, and what was before ---------------------------------------------------------------------------- */

/* Its handles are where a process that it forks finds them. */
static struct evbus *bus;
static struct evbus_publisher *publisher;

static enum evbus_code publish_one(unsigned index, unsigned n, unsigned failing, struct evbus_err *err)
{
	char payload[PAYLOAD_MAX];
	struct evbus_event event = { .topic = TOPIC, .partition_id = EVBUS_PARTITION_ANY };
	const struct evbus_record *receipt;

	event.payload = (struct evbus_slice){ payload, payload_make(payload, index, n, 0, 1) };
	atomic_store(&notes->submitted[index], n + 1);
	platter_fail_syncs(failing);
	enum evbus_code code = evbus_publisher_add(publisher, &event, err);
	if (index == FIRST)
		atomic_store(&notes->counters[OPENED], 1);
	if (!code)
		code = evbus_publisher_flush(publisher, err);
	while ((receipt = evbus_publisher_next(publisher)))
		note_receipt(index, n, receipt);
	return code;
}

/* The sync of the last of them fails, if one does. */
static enum evbus_code publish(unsigned index, unsigned events, unsigned failing, struct evbus_err *err)
{
	enum evbus_code code = EVBUS_OK;

	bus = open_bus();
	CHECK_OK(evbus_publisher_open(bus, NULL, &publisher, ERR));
	for (unsigned n = 0; n < events && !code; n++)
		code = publish_one(index, n, n == events - 1 ? failing : 0, err);
	if (index == HOLDER)
		os.point("holder");
	evbus_publisher_close(publisher);
	evbus_close(bus);
	return code;
}

static enum evbus_code publish_well(unsigned index, struct evbus_err *err)
{
	return publish(index, 1, 0, err);
}

static enum evbus_code publish_badly(unsigned index, struct evbus_err *err)
{
	return publish(index, 1, 1, err);
}

/* Behind its own event it takes itself for alone, and takes both locks at once. */
static enum evbus_code publish_alone(unsigned index, struct evbus_err *err)
{
	return publish(index, 2, 0, err);
}

static int another_boot(char id[36])
{
	memset(id, 'b', 36);
	return 0;
}

static enum evbus_code publish_under_another_boot(unsigned index, struct evbus_err *err)
{
	os.boot_id = another_boot;
	return publish(index, 1, 0, err);
}

static struct actor *holder;

static void prepare_nothing(void)
{
	case_begin(0, 0);
	run_remove("bus");
}

static void prepare_log(void)
{
	case_begin(0, LINES);
}

static void prepare_log_and_holder(void)
{
	case_begin(0, LINES);
	holder = actor_start(publish_well, HOLDER, "holder");
	actor_stands(holder);
}

static struct actor *waiter;

/* It goes on to its sync when the first one has stopped. The page that is put back later is from before that: one that
 * was copied between an append and a sync that fails, and put back behind that, nobody can tell from the true one. */
static void prepare_waiter(void)
{
	case_begin(0, LINES);
	take_copy();
	waiter = actor_start(publish_well, SECOND, "append/done");
	actor_stands(waiter);
}

static void prepare_roll(void)
{
	case_begin(1, LINES);
}

/* Somebody died while he wrote. */
static void prepare_torn(void)
{
	static const char half[] = "{\"crc32c\":\"9ae0daaf\",\"offset\":\"3\",\"publ";
	FILE *file;

	case_begin(0, LINES);
	file = fopen(LIVE, "a");
	CHECK(file && fputs(half, file) >= 0 && !fclose(file), "cannot tear the log");
}

static const struct scenario {
	const char *what;
	void (*prepare)(void);
	actor_act *act;
	bool fails;
} scenarios[] = {
	{ "the first event of a bus", prepare_nothing, publish_well, false },
	{ "an event", prepare_log, publish_well, false },
	{ "an event beside another writer", prepare_log_and_holder, publish_well, false },
	{ "an event behind one that is not synced", prepare_waiter, publish_well, false },
	{ "two events of one that is alone", prepare_log, publish_alone, false },
	{ "an event that needs a roll", prepare_roll, publish_well, false },
	{ "an event behind half a line", prepare_torn, publish_well, false },
	{ "an event whose sync fails", prepare_log, publish_badly, true },
	{ "an event whose sync fails, beside another writer", prepare_log_and_holder, publish_badly, true },
	{ "an event whose sync fails, and that of one before it", prepare_waiter, publish_badly, true },
};
#define SCENARIOS (sizeof scenarios / sizeof *scenarios)

/* ---- what happens -------------------------------------------------------------------------------------------------- */

enum event {
	NOTHING_HAPPENS = (int)HARMS, /* below that: something is done to the lock file */
	OTHER_BOOT, /* the second one is of another machine */
	FORK, /* the first one is forked where it stands, and the child lives on */
	EVENTS,
};

/* The handles are not its own: it is refused, closes them, and has no lock of the one that it was forked from. */
static void live_on(void)
{
	struct evbus_event event = { .topic = TOPIC, .payload = { "{}", 2 }, .partition_id = EVBUS_PARTITION_ANY };
	struct evbus_err err;

	alarm(20);
	if (publisher) {
		enum evbus_code code = evbus_publisher_add(publisher, &event, &err);
		CHECK(code != EVBUS_OK, "a forked child has published");
		evbus_publisher_close(publisher);
		evbus_close(bus);
	}
	atomic_fetch_add(&notes->counters[FORKED], 1);
	while (!atomic_load(&notes->stop))
		pause_us(500);
	_exit(0);
}

static void fork_here(void)
{
	pid_t child = fork();

	CHECK(child >= 0, "cannot fork");
	if (child == 0)
		live_on();
	while (!atomic_load(&notes->counters[FORKED]) && !atomic_load(&notes->failed))
		pause_us(50);
}

static bool is_made(void)
{
	return access("bus/" TOPIC "/topic.json", F_OK) == 0;
}

static bool is_harm(enum event event)
{
	return event < NOTHING_HAPPENS;
}

static void happen(enum event event)
{
	if (is_harm(event) && is_made())
		do_harm((enum harm)event);
}

/* ---- a case -------------------------------------------------------------------------------------------------------- */

struct a_case {
	const struct scenario *scenario;
	enum event event;
	bool kill;
	unsigned pass; /* at which the first one is stopped, */
	char place[32]; /* and where that was */
};

/* Before it has said that it is there, it is not. */
static bool is_present(const struct a_case *run_)
{
	return strcmp(run_->place, "open/files") != 0 && strcmp(run_->place, "topic/written") != 0;
}

static struct actor *release_waiter(void)
{
	struct actor *released = waiter;

	waiter = NULL;
	actor_go(released, NULL);
	return released;
}

static struct actor *let_second_in(const struct a_case *run_)
{
	if (waiter) {
		struct actor *released = release_waiter();
		actor_rest(released);
		return released;
	}
	bool other = run_->event == OTHER_BOOT;
	struct actor *second = actor_start(other ? publish_under_another_boot : publish_well, SECOND, NULL);

	if (actor_rest(second) == ACTOR_ENDED && other && is_present(run_))
		CHECK(second->code == EVBUS_UNAVAILABLE, "two kernels on one directory: %d: %s", (int)second->code,
		      second->err.text);
	return second;
}

/* Whose event was cut off, while a page from before that was put back, is told to try again. */
static void check_code(const struct a_case *run_, const char *who, const struct actor *actor)
{
	bool fails = run_->scenario->fails;
	bool ok = actor->code == EVBUS_OK || (fails && actor->code == EVBUS_IO) ||
		  (fails && is_harm(run_->event) && actor->code == EVBUS_AGAIN) ||
		  (run_->event == OTHER_BOOT && actor->code == EVBUS_UNAVAILABLE);

	CHECK(ok, "%s: %d: %s", who, (int)actor->code, actor->err.text);
}

/* The oracle cannot read half a line. */
static bool is_whole(void)
{
	FILE *file = fopen(LIVE, "r");
	int last = '\n';

	if (file && !fseek(file, -1, SEEK_END))
		last = getc(file);
	if (file)
		fclose(file);
	return last == '\n';
}

/* A reader that finds no page syncs for itself, and cannot know that a sync failed before: with a sync that fails and a
 * lock file that is gone at once it is not asked until somebody has written. */
static void look(const struct a_case *run_)
{
	if (is_made() && is_whole() && !(run_->scenario->fails && is_harm(run_->event)))
		case_look();
}

static void release_holder(void)
{
	if (!holder)
		return;
	actor_go(holder, NULL);
	enum evbus_code code = actor_end(holder);
	CHECK(code == EVBUS_OK, "the holder: %d: %s", (int)code, holder->err.text);
	holder = NULL;
}

static void run_case(struct a_case *run_)
{
	run_->scenario->prepare();
	if (!waiter)
		take_copy();
	actor_on_stop = run_->event == FORK ? fork_here : NULL;
	struct actor *first = actor_start_nth(run_->scenario->act, FIRST, "", run_->pass);
	actor_on_stop = NULL;
	actor_stands(first);
	memcpy(run_->place, first->passed[run_->pass - 1], sizeof run_->place);
	size_t len = strlen(run.where);
	snprintf(run.where + len, sizeof run.where - len, "%s: ", run_->place);
	happen(run_->event);
	look(run_);
	struct actor *second = let_second_in(run_);
	look(run_);
	int64_t since_us = now_us();
	if (run_->kill)
		actor_kill(first);
	/* What is being opened has no handle yet that a forked child could close: the child has to end, or to exec. */
	if (!atomic_load(&notes->counters[OPENED]))
		atomic_store(&notes->stop, true);
	if (!run_->kill)
		actor_go(first, NULL);
	actor_end(second);
	CHECK(!run_->kill || now_us() - since_us < NEXT_US, "the next one waited for %lld us",
	      (long long)(now_us() - since_us));
	check_code(run_, "the second", second);
	if (!run_->kill) {
		actor_end(first);
		check_code(run_, "the first", first);
	}
	atomic_store(&notes->stop, true);
	release_holder();
	case_end();
}

/* ---- all of them --------------------------------------------------------------------------------------------------- */

static unsigned passes_of(const struct scenario *scenario)
{
	scenario->prepare();
	struct actor *actor = actor_start(scenario->act, FIRST, NULL);
	actor_end(actor);
	release_holder();
	if (waiter)
		actor_end(release_waiter());
	return atomic_load(&actor->passes);
}

/* Those that a publisher alone comes to: commit/waits needs two, and is in schedules.c. */
#define PLACES (sizeof point_names / sizeof *point_names)
static bool was_at[PLACES];

static bool is_for_one(const char *place)
{
	return strncmp(place, "keys/", 5) != 0 && strncmp(place, "outbox/", 7) != 0 &&
	       strncmp(place, "consume/", 8) != 0 && strcmp(place, "commit/waits") != 0;
}

static void note_place(const char *place)
{
	for (size_t i = 0; i < PLACES; i++)
		was_at[i] = was_at[i] || strcmp(point_names[i], place) == 0;
}

static void check_places(void)
{
	unsigned wanted = 0, found = 0;

	for (size_t i = 0; i < PLACES; i++) {
		wanted += is_for_one(point_names[i]);
		found += is_for_one(point_names[i]) && was_at[i];
		if (is_for_one(point_names[i]) && !was_at[i])
			fprintf(stderr, "nobody was stopped at '%s'\n", point_names[i]);
	}
	run_ran("places", found, wanted);
}

static void sweep_one(size_t s, unsigned passes, struct a_case run_)
{
	snprintf(run.where, sizeof run.where, "%s, place %u of %u, event %d, %s: ", scenarios[s].what, run_.pass,
		 passes, (int)run_.event, run_.kill ? "kill" : "go on");
	run_case(&run_);
	note_place(run_.place);
	run.where[0] = '\0';
}

Test(schedules_sweep, who_stands_at_any_place_while_another_one_publishes_and_then_goes_on)
{
	uint64_t ran = 0, expected = 0;

	for (size_t s = 0; s < SCENARIOS; s++) {
		unsigned passes = passes_of(&scenarios[s]);
		CHECK(passes > 8 && passes < PASSES_MAX, "%s: %u places", scenarios[s].what, passes);
		expected += passes;
		for (unsigned pass = 1; pass <= passes; pass++, ran++)
			sweep_one(s, passes, (struct a_case){ &scenarios[s], NOTHING_HAPPENS, false, pass, "" });
	}
	check_places();
	run_ran("stops at each place", ran, expected);
}

/* All of them, or with EVBUS_TEST_QUICK some, by the seed. */
Test(schedules_sweep, whatever_happens_at_any_place_no_receipt_is_a_lie)
{
	uint64_t number = 0, ran = 0;

	for (size_t s = 0; s < SCENARIOS; s++) {
		unsigned passes = passes_of(&scenarios[s]);
		for (unsigned i = 0; i < passes * EVENTS * 2; i++, number++) {
			if (!case_is_wanted(number, QUICK_STEP))
				continue;
			enum event event = (enum event)(i / 2 % EVENTS);
			sweep_one(s, passes,
				  (struct a_case){ &scenarios[s], event, i % 2, i / 2 / (unsigned)EVENTS + 1, "" });
			ran++;
		}
	}
	run_ran("schedules at each place", ran, cases_wanted(number, QUICK_STEP));
}

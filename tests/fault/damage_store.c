/* The store is damaged: each bit of the database's header, and bits all over its pages.
 *
 * SQLite keeps no checksums of its pages. So what a page holds may be read wrong; what must hold is that nothing crashes,
 * that no event is passed over, and that what a handler gets is what was published, for that comes from the log. */
#include "fault.h"

#include <criterion/criterion.h>
#include <errno.h>

TestSuite(damage_store, .timeout = 600);

#define STORE "bus/.evbus/state.db"
#define GROUP "ledger"
#define EVENTS 16u
#define DONE 12u /* of which every fourth is a dead letter */
#define HEADER_BYTES 100u
#define PAGE_FLIPS 6000u

static char *whole;
static size_t whole_len;
static uint64_t detected, harmless, repeated, altered;

/* ---- the store as it was ---- */

/* No id of an event that is done becomes that of another by one bit: the inbox would believe it. */
static size_t payload_of(uint64_t n, char text[64])
{
	return (size_t)snprintf(text, 64, "{\"event_id\":\"%s%llu\",\"amount\":%llu}", n < DONE ? "done" : "todo",
				(unsigned long long)n, (unsigned long long)n * 1000003);
}

static enum evbus_code open_consumer(struct evbus *bus, struct evbus_consumer **consumer, struct evbus_err *err)
{
	const struct evbus_consumer_options options = {
		.group = GROUP, .topic = TOPIC, .inbox = true, .retry = EVBUS_RETRY_DEFAULT
	};

	return evbus_consumer_open(bus, &options, consumer, err);
}

static void consume_some(struct evbus *bus)
{
	struct evbus_consumer *consumer;
	struct evbus_delivery *delivery;

	CHECK_OK(open_consumer(bus, &consumer, ERR));
	for (unsigned n = 0; n < DONE; n++) {
		CHECK_OK(evbus_consumer_next(consumer, 0, &delivery, ERR));
		CHECK(delivery, "there is no event %u", n);
		if (n % 4 == 3)
			CHECK_OK(evbus_consumer_refused(consumer, delivery, EVBUS_REASON_REFUSED, SLICE("no"), ERR));
		else
			CHECK_OK(evbus_consumer_done(consumer, delivery, ERR));
	}
	CHECK_OK(evbus_consumer_commit(consumer, ERR));
	evbus_consumer_close(consumer);
}

static void setup(void)
{
	char text[64];

	run_begin(IN_MEMORY);
	struct evbus *bus = open_bus();
	for (uint64_t n = 0; n < EVENTS; n++) {
		payload_of(n, text);
		CHECK_OK(evbus_publish(bus, TOPIC, text, NULL, ERR));
	}
	consume_some(bus);
	evbus_close(bus);
	int fd = open(STORE, O_RDONLY);
	whole_len = (size_t)lseek(fd, 0, SEEK_END);
	whole = malloc(whole_len);
	CHECK(whole && os_read_at(fd, whole, whole_len, 0) == (ssize_t)whole_len, "read: %s", strerror(errno));
	close(fd);
	detected = harmless = repeated = altered = 0;
}

static void teardown(void)
{
	free(whole);
	run_end();
}

static void put_store(size_t bit)
{
	int fd = open(STORE, O_WRONLY);

	whole[bit / 8] ^= (char)(1 << bit % 8);
	CHECK(fd >= 0 && os_write_at(fd, whole, whole_len, 0) && !ftruncate(fd, (off_t)whole_len), "%s",
	      strerror(errno));
	close(fd);
	whole[bit / 8] ^= (char)(1 << bit % 8);
	unlink(STORE "-journal");
}

/* ---- who uses it ---- */

struct sight {
	bool failed;
	bool wrong; /* something is read that was not stored */
	unsigned letters;
	uint64_t next; /* of the first event that is delivered */
};

static void take_failure(struct sight *sight, enum evbus_code code, const struct evbus_err *err)
{
	CHECK(code == EVBUS_IO || code == EVBUS_CONFLICT || code == EVBUS_CONFIG || code == EVBUS_PERMISSION,
	      "%d is not the code of a damaged store: %s", (int)code, err->text);
	CHECK(strchr(err->text, '\''), "nothing is named: %s", err->text);
	sight->failed = true;
}

static enum evbus_code look_at_letter(void *context, const struct evbus_letter *letter, struct evbus_err *err)
{
	struct sight *sight = context;
	char text[64];
	uint64_t n = sight->letters++ * 4 + 3;
	size_t len = payload_of(n, text);

	(void)err;
	if (n >= DONE || number_at(letter->offset.data) != n || letter->payload.len != len ||
	    memcmp(letter->payload.data, text, len) != 0)
		sight->wrong = true;
	return EVBUS_OK;
}

static void look_at_letters(struct evbus *bus, struct sight *sight)
{
	const struct evbus_letter_filter any = { .reason = -1, .state = -1 };
	struct evbus_err err;

	enum evbus_code code = evbus_letter_list(bus, NULL, 0, &any, look_at_letter, sight, &err);
	if (code)
		take_failure(sight, code, &err);
	else if (sight->letters != DONE / 4)
		sight->wrong = true;
}

static void look_at_checkpoint(struct evbus *bus, struct sight *sight)
{
	struct evbus_checkpoint checkpoint;
	struct evbus_err err;

	enum evbus_code code = evbus_checkpoint_get(bus, GROUP, TOPIC, 0, &checkpoint, &err);
	if (code == EVBUS_NONE || (!code && strtoull(checkpoint.next_offset, NULL, 10) != DONE))
		sight->wrong = true;
	else if (code)
		take_failure(sight, code, &err);
}

/* What comes next is no later than what was not done, and is what was published. */
static enum evbus_code consume_one(struct evbus_consumer *consumer, struct sight *sight, struct evbus_err *err)
{
	struct evbus_delivery *delivery;
	char text[64];

	enum evbus_code code = evbus_consumer_next(consumer, 0, &delivery, err);
	if (code)
		return code;
	CHECK(delivery, "no event is delivered, and nothing is said");
	sight->next = number_at(delivery->record->offset.data);
	CHECK(sight->next <= DONE, "events %u to %llu are passed over", DONE, (unsigned long long)sight->next - 1);
	size_t len = payload_of(sight->next, text);
	CHECK(delivery->record->payload.len == len && !memcmp(delivery->record->payload.data, text, len),
	      "event %llu is delivered as %.*s", (unsigned long long)sight->next, (int)delivery->record->payload.len,
	      delivery->record->payload.data);
	code = evbus_consumer_done(consumer, delivery, err);
	return code ? code : evbus_consumer_commit(consumer, err);
}

static void consume_on(struct evbus *bus, struct sight *sight)
{
	struct evbus_consumer *consumer = NULL;
	struct evbus_err err;

	enum evbus_code code = open_consumer(bus, &consumer, &err);
	if (!code)
		code = consume_one(consumer, sight, &err);
	evbus_consumer_close(consumer);
	if (code)
		take_failure(sight, code, &err);
}

static void try_bit(size_t bit)
{
	struct sight sight = { 0 };

	snprintf(run.where, sizeof run.where, "bit %zu of the store: ", bit);
	put_store(bit);
	struct evbus *bus = open_bus();
	look_at_checkpoint(bus, &sight);
	look_at_letters(bus, &sight);
	consume_on(bus, &sight);
	evbus_close(bus);
	if (sight.failed)
		detected++;
	else if (sight.next != DONE)
		repeated++;
	else if (sight.wrong)
		altered++;
	else
		harmless++;
	run.where[0] = '\0';
}

static void tell(const char *what, uint64_t of)
{
	fprintf(stderr, "%s: %llu detected, %llu harmless, %llu have events repeated, %llu show another letter\n", what,
		(unsigned long long)detected, (unsigned long long)harmless, (unsigned long long)repeated,
		(unsigned long long)altered);
	run_ran(what, detected + harmless + repeated + altered, of);
}

Test(damage_store, of_each_bit_of_the_header_is_told_or_harmless, .init = setup, .fini = teardown)
{
	size_t step = run_count(1, 7), first = run.seed % step;

	for (size_t bit = first; bit < HEADER_BYTES * 8; bit += step)
		try_bit(bit);
	CHECK(!repeated && !altered, "%llu bits of the header went unseen", (unsigned long long)(repeated + altered));
	tell("bits of the store's header", (HEADER_BYTES * 8 - first + step - 1) / step);
}

Test(damage_store, of_any_page_passes_over_no_event, .init = setup, .fini = teardown)
{
	unsigned tries = run_count(PAGE_FLIPS, 100);
	uint64_t state = run.seed;

	for (unsigned i = 0; i < tries; i++) {
		uint64_t pages = whole_len / 4096, page = i % pages;
		try_bit((page * 4096 + random_next(&state) % 4096) * 8 + random_next(&state) % 8);
	}
	tell("bits of the store's pages", tries);
}

/* Consumers of a group share its partitions, one has each at a time, and who dies is followed within a second. */
#include "consumer_helpers.h"

#include <signal.h>
#include <sys/time.h>

TestSuite(consumer_claims, .init = enter, .fini = leave, .timeout = 30);

/* ---- in one process: claims of two consumers exclude each other as well ---- */

Test(consumer_claims, of_two_partitions_are_shared_by_two)
{
	struct evbus_consumer_options options = OPTIONS(.topic = "two", .no_wait = true);

	make_topic("two", 2);
	publish_many("two", 0, 0, 5, 0);
	publish_many("two", 1, 10, 5, 0);
	options.partition_id = 1;
	struct evbus_consumer *second = consumer_with(options);
	struct evbus_consumer *first = CONSUMER(.topic = "two", .no_wait = true);
	cr_assert(strstr(noticed, "on partition 1 of the topic 'two': leaving it alone"), "%s", noticed);
	cr_assert_eq(finish(first), 5);
	cr_assert(stored_of("two", 0) == 5 && stored_of("two", 1) == -1);
	cr_assert_eq(finish(second), 5);
}

Test(consumer_claims, that_are_all_taken_are_told_to_who_does_not_wait)
{
	struct evbus_consumer *first = CONSUMER();

	cr_assert_eq(OPENING(.no_wait = true), EVBUS_AGAIN);
	cr_assert(strstr(err.text,
			 stored_on_server() ? "is being consumed by this process" : "is being consumed by process"),
		  "%s", err.text);
	cr_assert_eq(OPENING(.no_wait = true, .group = "h"), EVBUS_OK);
	cr_assert_eq(OPENING(.no_wait = true, .topic = "none.>"), EVBUS_OK);
	evbus_consumer_close(first);
	cr_assert_eq(OPENING(.no_wait = true), EVBUS_OK);
}

Test(consumer_claims, are_waited_for_and_work_goes_on_where_it_was)
{
	publish(0, 3);
	struct evbus_consumer *first = CONSUMER();
	struct evbus_consumer *second = CONSUMER();

	cr_assert(strstr(noticed, ": waiting"), "%s", noticed);
	done(first, expect(first, 0, 1));
	cr_assert_null(next_within(second, 100));
	cr_assert(!evbus_consumer_finished(second));
	done(first, expect(first, 1, 1));
	OK(evbus_consumer_commit(first, &err));
	evbus_consumer_close(first);
	int64_t start = now_ms();
	done(second, expect(second, 2, 1));
	cr_assert(now_ms() - start < 1000);
	expect_end(second);
	evbus_consumer_close(second);
}

Test(consumer_claims, need_not_be_had_for_what_the_other_has_done)
{
	publish(0, 3);
	struct evbus_consumer *first = CONSUMER(.follow = true);
	struct evbus_consumer *second = CONSUMER();

	/* What comes later is none of its business. */
	publish(3, 1);
	for (int i = 0; i < 3; i++)
		done(first, expect(first, i, 1));
	OK(evbus_consumer_commit(first, &err));
	expect_end(second);
	evbus_consumer_close(second);
	evbus_consumer_close(first);
}

Test(consumer_claims, taken_over_see_what_came_in_between)
{
	publish(0, 2);
	struct evbus_consumer *first = CONSUMER(.follow = true);
	struct evbus_consumer *second = CONSUMER(.follow = true, .from = "end");

	publish(2, 3);
	for (int i = 0; i < 4; i++)
		done(first, expect(first, i, 1));
	OK(evbus_consumer_commit(first, &err));
	evbus_consumer_close(first);
	done(second, expect(second, 4, 1));
	evbus_consumer_close(second);
}

Test(consumer_claims, that_wait_mean_the_end_as_it_was_when_they_began)
{
	publish(0, 2);
	struct evbus_consumer *first = CONSUMER(.follow = true);
	struct evbus_consumer *second = CONSUMER(.follow = true, .from = "end");

	publish(2, 1);
	evbus_consumer_close(first);
	done(second, expect(second, 2, 1));
	evbus_consumer_close(second);
}

/* ---- a claim that is taken away ---- */

Test(consumer_claims, that_were_removed_save_nothing)
{
	OF_FILES;
	publish(0, 3);
	struct evbus_consumer *first = CONSUMER(.inbox = true, .commit_every = 100);
	done(first, expect(first, 0, 1));
	OK(evbus_consumer_commit(first, &err));
	done(first, expect(first, 1, 1));
	cr_assert(!unlink("bus/.evbus/claims/g/t=0"));
	cr_assert_eq(evbus_consumer_commit(first, &err), EVBUS_CONFLICT);
	cr_assert(strstr(err.text, "claims/g/t=0"), "%s", err.text);
	struct evbus_delivery *delivery = expect(first, 2, 1);
	bool dead;
	cr_assert_eq(evbus_consumer_failed(first, delivery, EVBUS_REASON_RETRIES, SLICE(""), &dead, &err),
		     EVBUS_CONFLICT);
	struct evbus_consumer *second = CONSUMER(.inbox = true);
	cr_assert_eq(evbus_consumer_commit(first, &err), EVBUS_CONFLICT, "the file is another one");
	evbus_consumer_close(first);
	done(second, expect(second, 1, 1));
	cr_assert_eq(finish(second), 1);
	cr_assert(count_of("inbox") == 3 && count_of("retries") == 0);
}

/* ---- processes ---- */

/* Takes the first event and holds it. */
static pid_t start_holder(void)
{
	int ready[2];
	char byte;

	cr_assert(!pipe(ready));
	pid_t child = fork();
	if (!child) {
		struct evbus *own = open_bus();
		struct evbus_consumer_options options = OPTIONS(.follow = true);
		struct evbus_consumer *consumer;
		struct evbus_delivery *delivery;
		bool out = !evbus_consumer_open(own, &options, &consumer, &err) &&
			   !evbus_consumer_next(consumer, 1000, &delivery, &err) && delivery;
		_exit(write(ready[1], "", 1) != 1 || !out || pause());
	}
	cr_assert_eq(read(ready[0], &byte, 1), 1);
	close(ready[0]);
	close(ready[1]);
	return child;
}

Test(consumer_claims, of_who_is_killed_are_taken_over_within_a_second)
{
	publish(0, 1);
	for (int i = 0; i < 3; i++) {
		pid_t holder = start_holder();
		struct evbus_consumer *consumer = CONSUMER(.follow = true);
		cr_assert_null(next_within(consumer, 50 + 170 * i));
		cr_assert(!kill(holder, SIGKILL) && waitpid(holder, NULL, 0) == holder);
		int64_t start = now_ms();
		evbus_consumer_give_back(consumer, expect(consumer, 0, 1));
		cr_assert(now_ms() - start < 1000, "after %lld ms", (long long)(now_ms() - start));
		evbus_consumer_close(consumer);
	}
}

static void nothing(int number)
{
	(void)number;
}

Test(consumer_claims, are_not_waited_for_beyond_a_signal)
{
	struct sigaction action = { .sa_handler = nothing };
	struct itimerval timer = { .it_value = { 0, 100000 } };
	struct evbus_delivery *delivery;

	publish(0, 1);
	struct evbus_consumer *first = CONSUMER(), *second = CONSUMER(),
			      *follower = CONSUMER(.group = "f", .follow = true);
	done(follower, expect(follower, 0, 1));
	OK(evbus_consumer_commit(follower, &err));
	sigaction(SIGALRM, &action, NULL);
	setitimer(ITIMER_REAL, &timer, NULL);
	int64_t start = now_ms();
	OK(evbus_consumer_next(second, -1, &delivery, &err));
	cr_assert(!delivery && now_ms() - start < 1000);
	setitimer(ITIMER_REAL, &timer, NULL);
	OK(evbus_consumer_next(follower, -1, &delivery, &err));
	cr_assert(!delivery && now_ms() - start < 1500);
	evbus_consumer_close(first);
	evbus_consumer_close(second);
	evbus_consumer_close(follower);
}

/* peer.c: the same events through another system.
 *
 *	peer NAME one WHERE PROCESSES N    N events by each process, each waiting for what acknowledges it
 *	peer NAME window WHERE N           one process, at most WINDOW events not acknowledged
 *	peer NAME wake WHERE N             one after the other, until a process that follows has it
 *
 * NAME is redis, nats, rabbitmq (WHERE is the port on 127.0.0.1) or sqlite (a file). Prints what was done, as measure.h
 * has it. */
#include "measure.h"
#include "peer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define WINDOW 500

static const struct peer *peer;
static const char *where;

struct sending {
	size_t count;
	double *times;
};

static void send_one(size_t i)
{
	char event[EVENT_MAX_BYTES];

	peer->send(event, event_make(event, i));
}

static void send_each(size_t process, void *context)
{
	struct sending *todo = context;
	double *times = todo->times + process * todo->count;

	peer->open(where);
	double before = now();
	for (size_t i = 0; i < todo->count; i++) {
		send_one(i);
		peer->settle(0);
		double after = now();
		times[i] = after - before;
		before = after;
	}
}

static void one(char **args)
{
	size_t processes = strtoull(args[0], NULL, 10);
	struct sending todo = { strtoull(args[1], NULL, 10), NULL };

	todo.times = shared(processes * todo.count * sizeof *todo.times);
	double seconds = in_processes(processes, send_each, &todo);
	tell(processes * todo.count, seconds, todo.times, 0);
}

static void window(char **args)
{
	size_t count = strtoull(args[0], NULL, 10), unsettled = 0;

	peer->open(where);
	double start = now();
	for (size_t i = 0; i < count; i++) {
		send_one(i);
		if (++unsettled == WINDOW) {
			peer->settle(WINDOW / 2);
			unsettled = WINDOW / 2;
		}
	}
	peer->settle(0);
	tell(count, now() - start, NULL, 0);
}

static void follow(void *context)
{
	(void)context;
	peer->open(where);
	peer->follow();
}

static void receive(void *context)
{
	(void)context;
	peer->receive();
}

static void wake(char **args)
{
	size_t count = strtoull(args[0], NULL, 10);
	struct wakes *wakes = wakes_begin(count, follow, receive, NULL);

	peer->open(where);
	for (size_t i = 0; i < count; i++) {
		wakes_send(wakes);
		send_one(i);
		peer->settle(0);
		wakes_wait(wakes);
	}
	wakes_end(wakes);
}

int main(int argc, char **argv)
{
	static const struct peer *const peers[] = { &peer_redis, &peer_nats, &peer_rabbitmq, &peer_sqlite };
	static const struct work works[] = {
		{ "one", 2, 2, one }, { "window", 1, 1, window }, { "wake", 1, 1, wake }, { 0 }
	};

	for (size_t i = 0; argc > 3 && i < sizeof peers / sizeof *peers; i++)
		if (!strcmp(peers[i]->name, argv[1]))
			peer = peers[i];
	if (peer) {
		where = argv[3];
		peer->reset(where);
		argv[3] = argv[2];
		argc -= 2;
	}
	return run_one(works, peer ? argc : 0, argv + 2);
}

/* outbox_clock.c: drains an outbox with a clock that gains an hour each time that it is read: outbox_clock BUS OUTBOX
 *
 * So whatever is worked out of a time that was read before is wrong by as much, as it is where answers come late. Prints how
 * many rows were claimed. */
#include "base/os.h"

#include <stdio.h>

#define GAIN_S 3600

static int read_hasty_clock(clockid_t clock, struct timespec *now)
{
	static time_t gained_s;
	int failed = clock_gettime(clock, now);

	if (clock == CLOCK_REALTIME)
		now->tv_sec += gained_s += GAIN_S;
	return failed;
}

int main(int argc, char **argv)
{
	struct evbus_drain_result result = { 0 };
	struct evbus *bus = NULL;
	struct evbus_outbox *outbox = NULL;
	struct evbus_err err = { 0 };

	if (argc != 3)
		return EVBUS_USAGE;
	os.clock_gettime = read_hasty_clock;
	enum evbus_code code = evbus_open(argv[1], NULL, &bus, &err);
	if (!code)
		code = evbus_outbox_open(bus, argv[2], NULL, &outbox, &err);
	if (!code)
		code = evbus_outbox_drain(outbox, NULL, &result, &err);
	/* What it claims it cannot publish: for its lease it is always too late. */
	if (code && code != EVBUS_AGAIN)
		fprintf(stderr, "outbox_clock: %s\n", err.text);
	else
		printf("%zu\n", (size_t)result.claimed);
	evbus_outbox_close(outbox);
	evbus_close(bus);
	return code == EVBUS_AGAIN ? EVBUS_OK : (int)code;
}

/* scenes.h: a command is killed at each of its calls of the system in turn: the real program, held by ptrace(2), with
 * nothing in its code for it.
 *
 * Calls that change nothing outside of the process are passed over, as a kill there leaves what it leaves at the next.
 * A round prepares something, runs the command and kills it, looks, runs it again, and looks again. After each kill the
 * logs and the store are whole and have all that the command had said to be there; the same command, run again, succeeds
 * within a second; and then everything is as it should be. */
#ifndef EVBUS_TESTS_FAULT_SCENES_H
#define EVBUS_TESTS_FAULT_SCENES_H

#include "program.h"
#include "stores.h"

#define EVENTS 4u /* of a round */
#define RECEIPT " --format {topic}/{partition_id}/{offset}/{/id}\\n "

struct scene {
	const char *name;
	bool fresh; /* each round finds no bus */
	bool all; /* memory is shared, or to be sure: CALLS_ALL */
	bool receipts; /* its stdout has the form RECEIPT */
	unsigned every; /* of a long course only one call of so many, the seed chooses from which on; at night, and 0: each */
	unsigned within_ms; /* when it is run again; 0: 1000 */
	void (*prepare)(unsigned round); /* rounds count from 1 */
	const char *words, *again; /* %u: the round; again NULL: the same words */
	const char *in;
	int status, other_status; /* of running it again; or that, if all was done already */
	void (*killed)(unsigned round); /* these two may be NULL */
	void (*done)(unsigned round);
};

/* The .init of a suite: a directory, or the tests are skipped. */
void scenes_begin(void);
/* quick: in the quick cut, one call of so many. */
void scene_run(const struct scene *scene, unsigned quick);

/* Proves that the logs and the store are whole, and reads the logs. */
void read_logs(void);
/* How often the i-th event of a round stands on a topic, when the logs were read last. */
unsigned on_log(const char *topic, unsigned round, unsigned i);
/* How many records there are, and the id of one of them. */
unsigned log_count(void);
const char *log_id_at(unsigned i);
/* What stdout said to be there is there. What has no newline was not said. Returns how many lines there are. */
unsigned check_receipts(const char *path);

void write_file(const char *path, const char *text);
/* Events with the ids "ROUND-0", "ROUND-1", … and the types t0, t1, … */
void write_ids(const char *path, unsigned round, unsigned count);
/* How often the id of an event stands in a file, into which handlers write what they did. */
unsigned in_file(const char *path, unsigned round, unsigned i);

/* Published to TOPIC, where each event then is once. */
void prepare_published(unsigned round);
void done_once(unsigned round);

#endif

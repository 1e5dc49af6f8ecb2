/* runs.c: lines that follow each other as they should.
 *
 * Lines are checked about as fast as they can be copied from the page cache, so a thread that only reads takes less than
 * half of the work off the one that checks, and what it has read has to come over from its processor's cache. Here each
 * thread, that of the caller among them, takes a chunk of the file, and both reads and checks it: all that goes over is
 * where its lines begin and end, what their first and last are, and that those between are as they should be. A line over
 * the end of a chunk is in none of them. Nor is anything else told of what is not so: the caller looks at that himself. */
#include "log/runs.h"

#include "base/os.h"
#include "base/thread.h"
#include "log/line.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#define CHUNK_BYTES ((size_t)256 * 1024) /* which a processor's cache has room for */
#define LEAST_BYTES (8u << 20) /* for less, starting threads is not worth while */
#define THREADS_MAX 4u /* with that of the caller */
#define ROOM 64u /* for runs that were found and not taken */

struct runs {
	int fd;
	uint64_t limit, chunks;
	pthread_t threads[THREADS_MAX - 1];
	unsigned started; /* of them */
	pthread_mutex_t mutex;
	pthread_cond_t changed;
	uint64_t begun, taken; /* chunks, counted from the beginning */
	unsigned working; /* threads that have a place in data */
	bool stop;
	struct {
		bool found;
		struct run run;
	} slots[ROOM];
	char data[THREADS_MAX][CHUNK_BYTES];
};

/* false: it does not go on there. */
static bool add_line(struct run *run, struct evbus_slice text, struct clock_minute *minute)
{
	struct line line;

	if (line_parse_near(text, minute, &line) || line.batch.data)
		return false;
	if (!run->count) {
		run->first = line.offset;
		run->first_us = line.time_us;
	} else if (line.offset != run->first + run->count || line.time_us < run->last_us) {
		return false;
	}
	run->last_us = line.time_us;
	run->count++;
	return true;
}

static void find_run(const struct runs *runs, uint64_t chunk, char *data, struct run *run)
{
	struct clock_minute minute = { .us = 0 };
	uint64_t at = chunk * CHUNK_BYTES, left = runs->limit - at;
	size_t len = left < CHUNK_BYTES ? (size_t)left : CHUNK_BYTES;
	const char *text = data, *newline;

	*run = (struct run){ .begin = at, .end = at };
	if (os_read_at(runs->fd, data, len, at) != (ssize_t)len)
		return;
	if (chunk && !(text = memchr(data, '\n', len)))
		return;
	text += chunk != 0;
	run->begin = run->end = at + (uint64_t)(text - data);
	while ((newline = memchr(text, '\n', (size_t)(data + len - text)))) {
		if (!add_line(run, (struct evbus_slice){ text, (size_t)(newline - text) }, &minute))
			return;
		text = newline + 1;
		run->end = at + (uint64_t)(text - data);
	}
	run->whole = true;
}

/* With the mutex, which is let go of meanwhile. false: there is none to be done now. */
static bool find_one(struct runs *runs, char *data)
{
	struct run run;

	if (runs->stop || runs->begun == runs->chunks || runs->begun == runs->taken + ROOM)
		return false;
	uint64_t chunk = runs->begun++;
	pthread_mutex_unlock(&runs->mutex);
	find_run(runs, chunk, data, &run);
	pthread_mutex_lock(&runs->mutex);
	runs->slots[chunk % ROOM].run = run;
	runs->slots[chunk % ROOM].found = true;
	pthread_cond_broadcast(&runs->changed);
	return true;
}

static void *work(void *context)
{
	struct runs *runs = context;

	pthread_mutex_lock(&runs->mutex);
	char *data = runs->data[runs->working++];
	while (!runs->stop && runs->begun < runs->chunks)
		if (!find_one(runs, data))
			pthread_cond_wait(&runs->changed, &runs->mutex);
	pthread_mutex_unlock(&runs->mutex);
	return NULL;
}

static bool start(struct runs *runs)
{
	unsigned processors = thread_processors(), threads = processors < THREADS_MAX ? processors : THREADS_MAX;

	while (runs->started + 1 < threads && thread_start(&runs->threads[runs->started], work, runs))
		runs->started++;
	return runs->started;
}

struct runs *runs_open(int fd, uint64_t limit)
{
	struct runs *runs = limit >= LEAST_BYTES && thread_processors() > 1 ? os.realloc(NULL, sizeof *runs) : NULL;

	if (!runs)
		return NULL;
	/* What is behind the slots is not cleared: that would be the memory of all threads. */
	memset(runs, 0, offsetof(struct runs, data));
	runs->fd = fd;
	runs->limit = limit;
	runs->chunks = (limit + CHUNK_BYTES - 1) / CHUNK_BYTES;
	runs->working = 1;
	pthread_mutex_init(&runs->mutex, NULL);
	pthread_cond_init(&runs->changed, NULL);
	if (start(runs))
		return runs;
	runs_close(runs);
	return NULL;
}

bool runs_next(struct runs *runs, struct run *run)
{
	uint64_t chunk = runs->taken;

	if (chunk == runs->chunks)
		return false;
	pthread_mutex_lock(&runs->mutex);
	while (!runs->slots[chunk % ROOM].found)
		if (!find_one(runs, runs->data[0]))
			pthread_cond_wait(&runs->changed, &runs->mutex);
	*run = runs->slots[chunk % ROOM].run;
	runs->slots[chunk % ROOM].found = false;
	runs->taken++;
	pthread_cond_broadcast(&runs->changed);
	pthread_mutex_unlock(&runs->mutex);
	return true;
}

void runs_close(struct runs *runs)
{
	if (!runs)
		return;
	pthread_mutex_lock(&runs->mutex);
	runs->stop = true;
	pthread_cond_broadcast(&runs->changed);
	pthread_mutex_unlock(&runs->mutex);
	for (unsigned i = 0; i < runs->started; i++)
		pthread_join(runs->threads[i], NULL);
	pthread_mutex_destroy(&runs->mutex);
	pthread_cond_destroy(&runs->changed);
	free(runs);
}

/* ahead.c: a thread that reads a file ahead of who looks at what was read.
 *
 * Copying lines from the page cache takes half as long as checking them, and coming by them from a disk longer than that:
 * the two go on side by side. The thread does nothing but read, and ends with the first read that fails or comes short. */
#include "log/ahead.h"

#include "base/os.h"
#include "base/thread.h"

#include <errno.h>
#include <unistd.h>

#define CHUNK_BYTES ((size_t)256 * 1024)
#define SLOTS 8u    /* two of them the caller's */
#define WAKE_AT 3u  /* are read and not taken: until then the thread sleeps, so that it need not do so often */

struct slot {
	char data[AHEAD_GAP_BYTES + CHUNK_BYTES];
	ssize_t len;                     /* -1: the read failed, with this errno */
	int failed;
};

struct ahead {
	pid_t pid;                       /* in a forked child there is no thread */
	int fd;
	uint64_t at, limit;              /* what is still to be read; the thread's */
	pthread_t thread;
	pthread_mutex_t mutex;
	pthread_cond_t changed;
	uint64_t filled, taken;          /* slots, counted from the beginning */
	bool stop, ended;
	struct slot slots[SLOTS];
};

static void fill(struct ahead *ahead, struct slot *slot)
{
	uint64_t left = ahead->limit - ahead->at;
	size_t want = left < CHUNK_BYTES ? (size_t)left : CHUNK_BYTES;

	slot->len = os_read_at(ahead->fd, slot->data + AHEAD_GAP_BYTES, want, ahead->at);
	slot->failed = errno;
	ahead->at += want;
}

static void *work(void *context)
{
	struct ahead *ahead = context;

	pthread_mutex_lock(&ahead->mutex);
	while (!ahead->stop && !ahead->ended) {
		/* The last two that were taken are the caller's. */
		if (ahead->filled + 2 >= ahead->taken + SLOTS) {
			pthread_cond_wait(&ahead->changed, &ahead->mutex);
			continue;
		}
		struct slot *slot = &ahead->slots[ahead->filled % SLOTS];
		pthread_mutex_unlock(&ahead->mutex);
		fill(ahead, slot);
		pthread_mutex_lock(&ahead->mutex);
		ahead->filled++;
		ahead->ended = slot->len < (ssize_t)CHUNK_BYTES;
		pthread_cond_signal(&ahead->changed);
	}
	pthread_mutex_unlock(&ahead->mutex);
	return NULL;
}

static void destroy(struct ahead *ahead)
{
	pthread_mutex_destroy(&ahead->mutex);
	pthread_cond_destroy(&ahead->changed);
}

struct ahead *ahead_open(int fd, uint64_t from, uint64_t limit)
{
	struct ahead *ahead = thread_processors() > 1 ? os.realloc(NULL, sizeof *ahead) : NULL;

	if (!ahead)
		return NULL;
	/* One by one: all at once would clear the slots as well. */
	ahead->pid = getpid();
	ahead->fd = fd;
	ahead->at = from;
	ahead->limit = limit;
	ahead->filled = ahead->taken = 0;
	ahead->stop = ahead->ended = false;
	pthread_mutex_init(&ahead->mutex, NULL);
	pthread_cond_init(&ahead->changed, NULL);
	if (thread_start(&ahead->thread, work, ahead))
		return ahead;
	destroy(ahead);
	free(ahead);
	return NULL;
}

ssize_t ahead_next(struct ahead *ahead, char **data)
{
	struct slot *slot = NULL;

	pthread_mutex_lock(&ahead->mutex);
	while (ahead->taken == ahead->filled && !ahead->ended)
		pthread_cond_wait(&ahead->changed, &ahead->mutex);
	if (ahead->taken < ahead->filled)
		slot = &ahead->slots[ahead->taken++ % SLOTS];
	if (ahead->filled - ahead->taken <= WAKE_AT)
		pthread_cond_signal(&ahead->changed);
	pthread_mutex_unlock(&ahead->mutex);
	if (!slot)
		return 0;
	*data = slot->data + AHEAD_GAP_BYTES;
	errno = slot->failed;
	return slot->len;
}

void ahead_close(struct ahead *ahead)
{
	if (!ahead)
		return;
	if (ahead->pid == getpid()) {
		pthread_mutex_lock(&ahead->mutex);
		ahead->stop = true;
		pthread_cond_signal(&ahead->changed);
		pthread_mutex_unlock(&ahead->mutex);
		pthread_join(ahead->thread, NULL);
		destroy(ahead);
	}
	free(ahead);
}

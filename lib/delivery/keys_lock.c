/* keys_lock.c: the lock of idempotent publishers, and waiting for it.
 *
 * Who waits must be able to give up, and a call that blocks until it has the lock cannot be left. So the lock is tried
 * over and over. Between two tries the waiter sleeps on a futex in the lock file, and who leaves the lock wakes all that
 * sleep there: else one that comes again at once would always be ahead of them. Nothing is ever written to the file; a
 * wake-up that came too early, or that a killed process owed, is made good by the next try. */
#include "delivery/keys.h"

#include <errno.h>
#include <sys/mman.h>

#define WORD_BYTES sizeof(uint32_t)
#define TELL_US 1000000
#define PAUSE_MIN_NS 1000000
#define PAUSE_MAX_NS 20000000

static const char lock_path[] = "keys.lock";

/* ---- the file -------------------------------------------------------------------------------------------------- */

void keys_lock_close(struct keys *keys)
{
	if (keys->word)
		munmap(keys->word, WORD_BYTES);
	keys->word = NULL;
	os_close_cleanup(&keys->lock_fd);
}

/* A futex can only be slept on within the file. */
static enum evbus_code map_word(struct keys *keys, const char *name, struct evbus_err *err)
{
	if (os.ftruncate(keys->lock_fd, WORD_BYTES))
		return err_set(err, EVBUS_IO, errno, "cannot set the size of '%s'", name);
	void *map = os.mmap(NULL, WORD_BYTES, PROT_READ, MAP_SHARED, keys->lock_fd, 0);
	if (map == MAP_FAILED)
		return err_set(err, EVBUS_IO, errno, "cannot map '%s'", name);
	keys->word = map;
	return EVBUS_OK;
}

static enum evbus_code open_lock(struct keys *keys, struct evbus_err *err)
{
	const struct topic *topic = keys->log;
	char name[NAME_IN_MESSAGE];
	struct evbus_err why;

	snprintf(name, sizeof name, "%s/%s", topic->name, lock_path);
	enum evbus_code code =
		os_open_file(topic->fd, lock_path, O_RDWR | O_CREAT, topic->file_mode, name, &keys->lock_fd, &why);
	/* It would be made if its directory were there. */
	if (code == EVBUS_CANTCREATE && why.sys_errno == ENOENT)
		return err_set(err, EVBUS_CONFLICT, 0, "topic '%s' was removed while it was open", topic->name);
	if (code != EVBUS_OK && err)
		*err = why;
	TRY(code);
	keys->lock.path = lock_path;
	code = file_id_of(keys->lock_fd, name, &keys->lock.id, err);
	if (code == EVBUS_OK)
		code = map_word(keys, name, err);
	if (code != EVBUS_OK)
		keys_lock_close(keys);
	return code;
}

bool keys_hold(const struct keys *keys)
{
	return file_is_at(keys->log, lock_path, &keys->lock.id, NULL);
}

/* ---- waiting --------------------------------------------------------------------------------------------------- */

struct wait_for_keys {
	bool begun, interrupted;
	int64_t since_us, asked_us;
	long pause_ns;
};

static enum evbus_code ask(const struct keys *keys, const struct waiter *waiter, struct evbus_err *err)
{
	if (!wait_has_end(waiter) || waiter->go_on(waiter->context))
		return EVBUS_OK;
	return err_set(err, EVBUS_AGAIN, EINTR,
		       "gave up waiting for another process that publishes idempotently to '%s'", keys->topic->name);
}

/* false: because of a signal. */
static bool pause_for(const struct keys *keys, long pause_ns)
{
	const struct timespec pause = { .tv_nsec = pause_ns };

	if (!os.futex_wait(keys->word, 0, &pause) || errno == ETIMEDOUT)
		return true;
	/* Somebody has changed the file. */
	return errno != EINTR && (nanosleep(&pause, NULL) == 0 || errno != EINTR);
}

static enum evbus_code sleep_a_little(struct keys *keys, const struct waiter *waiter, struct wait_for_keys *wait,
				      struct evbus_err *err)
{
	int64_t now_us = os_monotonic_us();

	if (!wait->begun)
		*wait = (struct wait_for_keys){ true, true, now_us, 0, PAUSE_MIN_NS };
	if (wait->interrupted || now_us - wait->asked_us >= WAIT_ASK_US) {
		TRY(ask(keys, waiter, err));
		wait->asked_us = now_us;
	}
	if (!keys->told && now_us - wait->since_us >= TELL_US) {
		keys->told = true;
		root_notice(keys->log->root, "waiting for another process that publishes idempotently to '%s'",
			    keys->topic->name);
	}
	wait->interrupted = !pause_for(keys, wait->pause_ns);
	wait->pause_ns = wait->pause_ns * 2 < PAUSE_MAX_NS ? wait->pause_ns * 2 : PAUSE_MAX_NS;
	return EVBUS_OK;
}

/* ---- taking and leaving ---------------------------------------------------------------------------------------- */

static enum evbus_code try_lock(struct keys *keys, struct evbus_err *err)
{
	/* Nobody is waited for who holds one that was removed. */
	if (keys->lock_fd >= 0 && !keys_hold(keys))
		keys_lock_close(keys);
	if (keys->lock_fd < 0)
		TRY(open_lock(keys, err));
	return control_try_lock(keys->lock_fd, LOCK_KEYS, F_WRLCK, lock_path, err);
}

enum evbus_code keys_lock_take(struct keys *keys, const struct waiter *waiter, struct evbus_err *err)
{
	struct wait_for_keys wait = { .begun = false };

	for (int removals = 0; removals < ATTEMPTS_MAX;) {
		enum evbus_code code = try_lock(keys, err);
		if (code == EVBUS_AGAIN) {
			TRY(sleep_a_little(keys, waiter, &wait, err));
			continue;
		}
		TRY(code);
		keys->locked = true;
		os.point("keys/locked");
		if (keys_hold(keys)) {
			keys->told = keys->told && wait.begun;
			keys->waited = wait.begun;
			return EVBUS_OK;
		}
		keys_lock_leave(keys);
		removals++;
	}
	return err_set(err, EVBUS_AGAIN, 0, "'%s/%s' is being removed over and over", keys->topic->name, lock_path);
}

enum evbus_code keys_lock_ask(const struct keys *keys, const struct waiter *waiter, struct evbus_err *err)
{
	return keys->waited ? ask(keys, waiter, err) : EVBUS_OK;
}

void keys_lock_leave(struct keys *keys)
{
	if (!keys->locked)
		return;
	keys->locked = false;
	control_unlock(keys->lock_fd, LOCK_KEYS);
	os.futex_wake(keys->word);
}

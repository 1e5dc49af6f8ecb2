/* points.c: processes that stop at named places, and a disk that knows what is on it. */
#include "points.h"

#include <errno.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>

#define LATE_US 20000000

/* ---- actors: in the child ------------------------------------------------------------------------------------------ */

static struct actor *self;
void (*actor_on_stop)(void);

static void stand(void)
{
	atomic_store(&self->state, ACTOR_STANDS);
	if (actor_on_stop)
		actor_on_stop();
	while (atomic_load(&self->state) == ACTOR_STANDS)
		pause_us(50);
}

static void pass(const char *name)
{
	int saved = errno;
	unsigned passes = atomic_fetch_add(&self->passes, 1);

	if (passes < PASSES_MAX)
		snprintf(self->passed[passes], sizeof self->passed[passes], "%s", name);
	bool here = atomic_load(&self->left) && (!self->point[0] || strcmp(self->point, name) == 0);
	if (here && atomic_fetch_sub(&self->left, 1) == 1)
		stand();
	errno = saved;
}

/* Says so before it waits for who has it. */
static int lock_and_tell(int fd, int cmd, struct flock *lock)
{
	struct flock tried = *lock;

	if (cmd != F_OFD_SETLKW)
		return fcntl(fd, cmd, lock);
	if (!fcntl(fd, F_OFD_SETLK, &tried))
		return 0;
	if (errno != EAGAIN && errno != EACCES)
		return -1;
	atomic_fetch_add(&self->waits, 1);
	int result = fcntl(fd, cmd, lock);
	atomic_fetch_add(&self->waits, 1);
	return result;
}

/* Where the cells of the control page end, with the selector and the futex word (evbus-log(5)). */
#define END_CELL_ENDS 256
#define DURABLE_CELL_ENDS 376
#define SELECTOR_BYTES 8u

static bool is_lock_file(int fd)
{
	char magic[8] = "";

	return pread(fd, magic, sizeof magic, 0) == (ssize_t)sizeof magic &&
	       memcmp(magic, "evbusct", sizeof magic) == 0;
}

static int (*sleep_on_word)(uint32_t *word, uint32_t value, const struct timespec *timeout);

/* Not where the word has changed: then it does not wait. And each for the same short time, because nobody wakes those that a
 * killed one leaves behind, and because actor_rest() has to see it: a wait may end early at any time, and late. */
static int wait_and_tell(uint32_t *word, uint32_t value, const struct timespec *timeout)
{
	struct timespec none = { 0 }, little = { .tv_nsec = 5000000 };

	int result = sleep_on_word(word, value, &none);
	if (result == 0 || errno != ETIMEDOUT)
		return result;
	atomic_fetch_add(&self->waits, 1);
	result = sleep_on_word(word, value, timeout->tv_sec || timeout->tv_nsec ? &little : timeout);
	int saved = errno;
	atomic_fetch_add(&self->waits, 1);
	errno = saved;
	return result;
}

static ssize_t (*write_on)(int fd, const void *data, size_t len, off_t at);

/* A cell is written by one call, of which a kill never leaves half: let it be two, with a place in between that no process
 * comes to, and what others make of it is seen as well. */
static ssize_t write_in_halves(int fd, const void *data, size_t len, off_t at)
{
	size_t first =
		at + (off_t)len == END_CELL_ENDS || at + (off_t)len == DURABLE_CELL_ENDS ? len - SELECTOR_BYTES : len;

	if (first == len || !is_lock_file(fd))
		return write_on(fd, data, len, at);
	ssize_t n = write_on(fd, data, first, at);
	if (n != (ssize_t)first)
		return n;
	pass("cell/copied");
	ssize_t rest = write_on(fd, (const char *)data + first, len - first, at + n);
	return rest < 0 ? rest : n + rest;
}

/* ---- actors: in the test ------------------------------------------------------------------------------------------- */

static struct actor *actors;
static unsigned actor_count;
static actor_act *to_act;

static void be_actor(unsigned slot)
{
	self = &actors[slot];
	sleep_on_word = os.futex_wait;
	os.point = pass;
	os.lock = lock_and_tell;
	os.futex_wait = wait_and_tell;
	write_on = os.pwrite;
	os.pwrite = write_in_halves;
	self->code = to_act(self->index, &self->err);
	atomic_store(&self->state, ACTOR_ENDED);
}

static void aim(struct actor *actor, const char *point, unsigned nth)
{
	snprintf(actor->point, sizeof actor->point, "%s", point ? point : "");
	atomic_store(&actor->left, point ? nth : 0);
}

struct actor *actor_start_nth(actor_act *act, unsigned index, const char *point, unsigned nth)
{
	CHECK(actors && actor_count < ACTORS_MAX, "too many actors");
	struct actor *actor = &actors[actor_count];
	memset(actor, 0, sizeof *actor);
	actor->index = index;
	aim(actor, point, nth);
	to_act = act;
	actor->pid = child_start(be_actor, actor_count++);
	return actor;
}

struct actor *actor_start(actor_act *act, unsigned index, const char *point)
{
	return actor_start_nth(act, index, point, 1);
}

/* A wait that was over at once was none. */
static bool waits(struct actor *actor)
{
	unsigned before = atomic_load(&actor->waits);

	if (before % 2 == 0)
		return false;
	pause_us(1000);
	return atomic_load(&actor->waits) == before;
}

enum actor_state actor_rest(struct actor *actor)
{
	int64_t since_us = now_us();

	while (atomic_load(&actor->state) == ACTOR_RUNS) {
		if (waits(actor))
			return ACTOR_WAITS;
		child_check();
		CHECK(now_us() - since_us < LATE_US, "actor %u does nothing", actor->index);
		pause_us(50);
	}
	return (enum actor_state)atomic_load(&actor->state);
}

void actor_stands(struct actor *actor)
{
	enum actor_state state = actor_rest(actor);
	unsigned passes = atomic_load(&actor->passes);

	CHECK(state == ACTOR_STANDS, "actor %u does not come to '%s': it %s behind '%s' (%d: %s)", actor->index,
	      actor->point, state == ACTOR_WAITS ? "waits" : "has ended", passes ? actor->passed[passes - 1] : "",
	      (int)actor->code, actor->err.text);
}

void actor_go(struct actor *actor, const char *point)
{
	aim(actor, point, 1);
	atomic_store(&actor->state, ACTOR_RUNS);
}

enum evbus_code actor_end(struct actor *actor)
{
	int64_t since_us = now_us();

	/* Who waits is let in by who ends, or is killed, now. */
	while (atomic_load(&actor->state) == ACTOR_RUNS) {
		child_check();
		CHECK(now_us() - since_us < LATE_US, "actor %u does not end", actor->index);
		pause_us(50);
	}
	CHECK(atomic_load(&actor->state) == ACTOR_ENDED, "actor %u stands at '%s'", actor->index, actor->point);
	child_join(actor->pid);
	return actor->code;
}

void actor_kill(struct actor *actor)
{
	kill(actor->pid, SIGKILL);
	child_reap(actor->pid);
	child_check();
}

void actor_kill_beside(struct actor *actor, struct actor *other)
{
	int status;

	if (other && atomic_load(&other->state) == ACTOR_ENDED)
		other = NULL;
	if (other)
		CHECK(!kill(other->pid, SIGSTOP) && waitpid(other->pid, &status, WUNTRACED) == other->pid &&
			      WIFSTOPPED(status),
		      "actor %u does not stop", other->index);
	actor_kill(actor);
	case_look();
	if (other)
		CHECK(!kill(other->pid, SIGCONT), "actor %u: %s", other->index, strerror(errno));
}

enum evbus_code actor_run(actor_act *act, unsigned index)
{
	return actor_end(actor_start(act, index, NULL));
}

/* ---- the platter --------------------------------------------------------------------------------------------------- */

#define FILES_MAX 64u
#define FILE_BYTES_MAX (256u * 1024)

enum { NOTHING, WRITTEN, IN_FLIGHT, ON_PLATTER, LOST };

struct platter {
	_Atomic unsigned files;
	struct platter_file {
		_Atomic ino_t ino;
		_Atomic uint64_t size; /* of what was written */
		_Atomic unsigned char bytes[FILE_BYTES_MAX];
	} file[FILES_MAX];
};

static struct platter *platter;
static unsigned syncs_to_fail;

static struct platter_file *file_with(ino_t ino)
{
	unsigned files = atomic_load(&platter->files);

	for (unsigned i = 0; i < files; i++)
		if (atomic_load(&platter->file[i].ino) == ino)
			return &platter->file[i];
	return NULL;
}

static struct platter_file *file_of(int fd, bool make)
{
	struct stat st;

	CHECK(!fstat(fd, &st), "fstat: %s", strerror(errno));
	struct platter_file *file = file_with(st.st_ino);
	if (file || !make)
		return file;
	unsigned i = atomic_fetch_add(&platter->files, 1);
	CHECK(i < FILES_MAX, "too many files");
	atomic_store(&platter->file[i].ino, st.st_ino);
	return &platter->file[i];
}

static ssize_t platter_pwrite(int fd, const void *data, size_t len, off_t at)
{
	static char before[FILE_BYTES_MAX];
	struct platter_file *file = file_of(fd, true);

	CHECK((uint64_t)at + len <= FILE_BYTES_MAX, "too long a file");
	ssize_t had = pread(fd, before, len, at);
	ssize_t done = pwrite(fd, data, len, at);
	/* What is on the platter, and written again as it is, cannot be lost by that. */
	for (ssize_t i = 0; i < done; i++)
		if (i >= had || before[i] != ((const char *)data)[i] || atomic_load(&file->bytes[at + i]) != ON_PLATTER)
			atomic_store(&file->bytes[at + i], WRITTEN);
	if (done > 0 && (uint64_t)(at + done) > atomic_load(&file->size))
		atomic_store(&file->size, (uint64_t)(at + done));
	return done;
}

static int platter_ftruncate(int fd, off_t size)
{
	int result = ftruncate(fd, size);
	struct platter_file *file = file_of(fd, false);

	for (uint64_t i = (uint64_t)size; !result && file && i < atomic_load(&file->size); i++)
		atomic_store(&file->bytes[i], NOTHING);
	return result;
}

static void change(struct platter_file *file, unsigned char from, unsigned char to)
{
	uint64_t size = file ? atomic_load(&file->size) : 0;

	for (uint64_t i = 0; i < size; i++) {
		unsigned char found = from;
		atomic_compare_exchange_strong(&file->bytes[i], &found, to);
	}
}

static int platter_sync(int fd)
{
	struct platter_file *file = file_of(fd, false);

	change(file, WRITTEN, IN_FLIGHT);
	int result = syncs_to_fail ? -1 : fdatasync(fd);
	change(file, IN_FLIGHT, result ? LOST : ON_PLATTER);
	if (!syncs_to_fail)
		return result;
	syncs_to_fail--;
	errno = EIO;
	return -1;
}

void platter_begin(void)
{
	if (platter)
		CHECK(!munmap(platter, sizeof *platter), "munmap: %s", strerror(errno));
	platter = notes_share(sizeof *platter);
	os.pwrite = platter_pwrite;
	os.ftruncate = platter_ftruncate;
	os.fdatasync = platter_sync;
}

void platter_fail_syncs(unsigned count)
{
	syncs_to_fail = count;
}

static bool is_on_platter(const struct log_image *log, uint64_t i)
{
	struct platter_file *file = file_with(log->lines[i].ino);
	uint64_t from = i && log->lines[i - 1].ino == log->lines[i].ino ? log->lines[i - 1].end : 0;

	for (; file && from < log->lines[i].end; from++)
		if (atomic_load(&file->bytes[from]) != ON_PLATTER)
			return false;
	return file;
}

/* ---- a case -------------------------------------------------------------------------------------------------------- */

#define CASE_WRITERS 16u
#define CASE_EVENTS 64u
#define LAST (CASE_WRITERS - 1)

bool case_is_wanted(uint64_t i, unsigned step)
{
	return !run.quick || i % step == run.seed % step;
}

uint64_t cases_wanted(uint64_t count, unsigned step)
{
	uint64_t first = run.seed % step;

	return !run.quick ? count : first < count ? (count - first - 1) / step + 1 : 0;
}

void case_begin(uint64_t segment_max_bytes, unsigned lines)
{
	if (access("bus", F_OK) == 0)
		run_remove("bus");
	notes_free();
	notes_new(CASE_WRITERS, CASE_EVENTS, 1, 1);
	if (!actors)
		actors = notes_share(ACTORS_MAX * sizeof *actors);
	actor_count = 0;
	platter_begin();
	make_topic(1, segment_max_bytes);
	struct evbus *bus = open_bus();
	for (unsigned i = 0; i < lines; i++)
		CHECK_OK(try_one(bus, 0, i, ERR));
	evbus_close(bus);
}

static enum evbus_code publish_more(unsigned index, unsigned events, unsigned failing, struct evbus_err *err)
{
	struct evbus *bus = open_bus();
	enum evbus_code code = EVBUS_OK;

	for (unsigned i = 0; i < events && !code; i++) {
		platter_fail_syncs(failing);
		code = try_one(bus, index, atomic_load(&notes->submitted[index]), err);
	}
	evbus_close(bus);
	return code;
}

enum evbus_code publish_next(unsigned index, struct evbus_err *err)
{
	return publish_more(index, 1, 0, err);
}

enum evbus_code publish_ten(unsigned index, struct evbus_err *err)
{
	return publish_more(index, 10, 0, err);
}

enum evbus_code publish_and_fail(unsigned index, struct evbus_err *err)
{
	return publish_more(index, 1, 1, err);
}

static uint64_t place_at(unsigned index, uint64_t event)
{
	return atomic_load(&notes->places[(size_t)index * notes->events + event]);
}

bool was_acknowledged(unsigned index, uint64_t event)
{
	return place_at(index, event) != 0;
}

uint64_t offset_of(unsigned index, uint64_t event)
{
	return was_acknowledged(index, event) ? place_at(index, event) - 1 : UINT64_MAX;
}

static void look_at(const struct log_image *log, const struct evbus_record *record, uint64_t i)
{
	struct seen *seen = &notes->seen[0][0];
	uint64_t offset;
	uint32_t crc = (uint32_t)strtoul(record->stored.data + LINE_CRC_AT, NULL, 16);

	CHECK(decimal_parse(record->offset, &offset) && offset == i, "a reader got offset %.*s, not %llu",
	      (int)record->offset.len, record->offset.data, (unsigned long long)i);
	CHECK(i < log->count && log->lines[i].crc == crc, "offset %llu that was shown is not in the log",
	      (unsigned long long)i);
	CHECK(is_on_platter(log, i), "offset %llu was shown, and is not durable", (unsigned long long)i);
	CHECK(i >= atomic_load(&seen->count) || seen->crcs[i] == crc, "offset %llu is another record than before",
	      (unsigned long long)i);
	seen->crcs[i] = crc;
}

uint64_t case_look(void)
{
	struct evbus_selection selection = { .topic = TOPIC, .partition_id = EVBUS_PARTITION_ALL };
	struct seen *seen = &notes->seen[0][0];
	struct evbus *bus = open_bus();
	const struct evbus_record *record;
	struct evbus_reader *reader;
	struct log_image log;
	uint64_t count = 0;

	CHECK_OK(evbus_reader_open(bus, &selection, &reader, ERR));
	log_read(0, &log);
	for (;;) {
		CHECK_OK(evbus_reader_next(reader, 0, &record, ERR));
		if (!record)
			break;
		look_at(&log, record, count++);
	}
	CHECK(count >= atomic_load(&seen->count), "a reader saw %llu records, and now %llu",
	      (unsigned long long)atomic_load(&seen->count), (unsigned long long)count);
	atomic_store(&seen->count, count);
	free(log.lines);
	evbus_reader_close(reader);
	evbus_close(bus);
	return count;
}

void case_end(void)
{
	struct log_image log;

	case_look();
	enum evbus_code code = actor_run(publish_next, LAST);
	CHECK(code == EVBUS_OK, "who comes last: %d: %s", (int)code, actors[actor_count - 1].err.text);
	uint64_t shown = case_look(), lines = check_everything();
	CHECK(shown == lines, "%llu of %llu lines are shown", (unsigned long long)shown, (unsigned long long)lines);
	log_read(0, &log);
	for (uint64_t i = 0; i < log.count; i++)
		CHECK(!was_acknowledged(log.lines[i].writer, log.lines[i].event) || is_on_platter(&log, i),
		      "event %u/%llu was acknowledged, and is not durable", log.lines[i].writer,
		      (unsigned long long)log.lines[i].event);
	free(log.lines);
}

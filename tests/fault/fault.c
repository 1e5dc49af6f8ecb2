/* fault.c: the run and its children, and what is noted of them. */
#include "fault.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <ftw.h>
#include <linux/magic.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/vfs.h>
#include <sys/wait.h>

#define CHILDREN_MAX 4096u

struct run run;
struct notes *notes;
void (*note_more)(unsigned writer, uint64_t event);
static pid_t children[CHILDREN_MAX];

/* ---- the run ---- */

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st;
	(void)type;
	(void)ftw;
	return remove(path);
}

void run_begin(enum where where)
{
	const char *seed = getenv("EVBUS_TEST_SEED"), *quick = getenv("EVBUS_TEST_QUICK");
	const char *dir = getenv("EVBUS_TEST_DIR"), *build = getenv("EVBUS_TEST_BUILD");

	run.seed = seed ? strtoull(seed, NULL, 0) : (uint64_t)os_now_us() * 1000 + (uint64_t)getpid();
	run.quick = quick && *quick == '1';
	run.parent = getpid();
	if (!dir && where == IN_MEMORY && access("/dev/shm", W_OK) == 0)
		dir = "/dev/shm";
	if (!dir)
		dir = build ? build : ".";
	char path[PATH_MAX];
	snprintf(run.dir, sizeof run.dir, "%s/evbus-fault-XXXXXX", realpath(dir, path) ? path : "/tmp");
	CHECK(mkdtemp(run.dir) && !chdir(run.dir), "cannot make %s", run.dir);
	notes_new(1, 1, 0, 1);
}

void run_remove(const char *path)
{
	CHECK(!nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS), "cannot remove %s: %s", path, strerror(errno));
}

void run_end(void)
{
	for (unsigned i = 0; i < CHILDREN_MAX; i++) {
		if (children[i] > 0) {
			kill(children[i], SIGKILL);
			waitpid(children[i], NULL, 0);
		}
	}
	CHECK(!chdir("/"), "chdir: %s", strerror(errno));
	run_remove(run.dir);
}

unsigned run_count(unsigned full, unsigned quick)
{
	return run.quick ? quick : full;
}

bool run_is_on_memory(void)
{
	struct statfs fs;

	CHECK(!statfs(".", &fs), "statfs: %s", strerror(errno));
	return fs.f_type == TMPFS_MAGIC || fs.f_type == RAMFS_MAGIC;
}

/* The choices that were made, whoever made them: the seed, how many, and at night all. */
static const char *repeat_by(void)
{
	static char text[128];
	const char *states = getenv("EVBUS_TEST_STATES");

	snprintf(text, sizeof text, "EVBUS_TEST_SEED=%llu%s%s%s", (unsigned long long)run.seed,
		 run.quick ? " EVBUS_TEST_QUICK=1" : "", states ? " EVBUS_TEST_STATES=" : "", states ? states : "");
	return text;
}

void run_failed(const char *file, int line, const char *format, ...)
{
	char text[800];
	va_list args;

	va_start(args, format);
	int len = snprintf(text, sizeof text, "%s", run.where);
	vsnprintf(text + len, sizeof text - (size_t)len, format, args);
	va_end(args);
	if (gettid() != run.parent) {
		if (atomic_fetch_add(&notes->failed, 1) == 0)
			snprintf(notes->why, sizeof notes->why, "%s:%d: %s", file, line, text);
		if (getpid() == run.parent)
			pthread_exit(NULL);
		_exit(1);
	}
	if (!run.bare)
		cr_assert_fail("%s:%d: %s (%s repeats it)", file, line, text, repeat_by());
	printf("Bail out! %s:%d: %s (%s repeats it)\n", file, line, text, repeat_by());
	exit(1);
}

uint64_t number_at(const char *digits)
{
	uint64_t number = 0;

	for (; *digits >= '0' && *digits <= '9'; digits++)
		number = number * 10 + (uint64_t)(*digits - '0');
	return number;
}

void run_ran(const char *what, uint64_t ran, uint64_t of)
{
	run_ran_most(what, ran, of, of);
}

void run_ran_most(const char *what, uint64_t ran, uint64_t of, uint64_t least)
{
	fprintf(stderr, "%s: ran %llu of %llu\n", what, (unsigned long long)ran, (unsigned long long)of);
	CHECK(ran >= least && ran <= of, "%s: ran %llu of %llu, and %llu are wanted", what, (unsigned long long)ran,
	      (unsigned long long)of, (unsigned long long)least);
}

static int64_t sync_us;

static int slow_sync(int fd)
{
	pause_us(sync_us);
	return fdatasync(fd);
}

void run_slow_syncs(int64_t us)
{
	sync_us = us;
	os.fdatasync = slow_sync;
}

/* splitmix64 */
uint64_t random_next(uint64_t *state)
{
	uint64_t z = *state += 0x9e3779b97f4a7c15u;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
	z = (z ^ z >> 27) * 0x94d049bb133111ebu;
	return z ^ z >> 31;
}

int64_t now_us(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

void pause_us(int64_t us)
{
	struct timespec left = { us / 1000000, us % 1000000 * 1000 };

	while (us > 0 && nanosleep(&left, &left) && errno == EINTR)
		continue;
}

/* ---- children ---- */

pid_t child_start(void (*body)(unsigned index), unsigned index)
{
	unsigned slot = 0;

	while (slot < CHILDREN_MAX && children[slot] > 0)
		slot++;
	CHECK(slot < CHILDREN_MAX, "too many children");
	pid_t pid = fork();
	CHECK(pid >= 0, "fork: %s", strerror(errno));
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (getppid() != run.parent)
			_exit(1);
		body(index);
		_exit(0);
	}
	children[slot] = pid;
	return pid;
}

void child_forget(pid_t pid)
{
	for (unsigned i = 0; i < CHILDREN_MAX; i++)
		if (children[i] == pid)
			children[i] = 0;
}

int child_reap(pid_t pid)
{
	int status;

	CHECK(waitpid(pid, &status, 0) == pid, "waitpid: %s", strerror(errno));
	child_forget(pid);
	return status;
}

void child_check(void)
{
	CHECK(atomic_load(&notes->failed) == 0, "in a child: %s", notes->why);
}

void child_join(pid_t pid)
{
	int status = child_reap(pid);

	child_check();
	CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0, "a child ended with status %x", (unsigned)status);
}

/* ---- what is noted ---- */

void *notes_share(size_t size)
{
	void *block = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	CHECK(block != MAP_FAILED, "mmap: %s", strerror(errno));
	return block;
}

void notes_new(unsigned writers, unsigned events, unsigned readers, unsigned lanes)
{
	notes = notes_share(sizeof *notes);
	notes->writers = writers;
	notes->events = events;
	notes->readers = readers;
	notes->lanes = lanes;
	notes->places = notes_share((size_t)writers * events * sizeof *notes->places);
	for (unsigned r = 0; r < readers; r++)
		for (unsigned l = 0; l < lanes; l++)
			notes->seen[r][l].crcs = notes_share((size_t)writers * events * sizeof(uint32_t));
}

void notes_free(void)
{
	size_t all = (size_t)notes->writers * notes->events;

	munmap(notes->places, all * sizeof *notes->places);
	for (unsigned r = 0; r < notes->readers; r++)
		for (unsigned l = 0; l < notes->lanes; l++)
			munmap(notes->seen[r][l].crcs, all * sizeof(uint32_t));
	munmap(notes, sizeof *notes);
}

uint64_t place_of(int32_t lane, uint64_t offset)
{
	return (uint64_t)lane << 48 | offset;
}

void note_receipt(unsigned writer, uint64_t event, const struct evbus_record *receipt)
{
	uint64_t offset;

	CHECK(event < notes->events, "a receipt too many");
	CHECK(decimal_parse(receipt->offset, &offset), "the receipt has the offset '%.*s'", (int)receipt->offset.len,
	      receipt->offset.data);
	uint64_t before = atomic_exchange(&notes->places[(size_t)writer * notes->events + event],
					  place_of(receipt->partition_id, offset) + 1);
	CHECK(before == 0, "event %u/%llu has two receipts", writer, (unsigned long long)event);
	if (note_more)
		note_more(writer, event);
	atomic_store(&notes->ack_at_us, now_us());
	atomic_fetch_add(&notes->acked, 1);
}

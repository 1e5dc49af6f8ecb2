/* Claims: one process, one handle at a time; gone with its holder; never kept out by a leftover. */
#include "store/claim.h"

#include "base/os.h"
#include "scratch.h"

#include <errno.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>

static char scratch[64];
static int state = -1;             /* the state directory */
static struct evbus_err err;
static struct os real;

static void setup(void)
{
	real = os;
	scratch_enter(scratch);
	state = open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	cr_assert_geq(state, 0);
}

static void teardown(void)
{
	os = real;
	close(state);
	scratch_leave(scratch);
}

TestSuite(claim, .init = setup, .fini = teardown, .timeout = 120);

static struct evbus_claim *take(const char *group, const char *topic, int32_t partition_id)
{
	struct evbus_claim *claim = NULL;

	cr_assert_eq(claim_take(state, 0, group, topic, partition_id, &claim, &err), EVBUS_OK, "%s", err.text);
	return claim;
}

static enum evbus_code take_code(const char *group, const char *topic)
{
	struct evbus_claim *claim = NULL;
	enum evbus_code code = claim_take(state, 0, group, topic, 0, &claim, &err);

	cr_assert_eq(code == EVBUS_OK, claim != NULL);
	evbus_claim_release(claim);
	return code;
}

static int mode_of(const char *path)
{
	struct stat st;

	cr_assert(!lstat(path, &st), "%s", path);
	return st.st_mode & 07777;
}

/* A child of this name that has claimed g on t and waits to be killed. */
static pid_t start_holder(const char *name)
{
	int ready[2];
	char c = 0;

	cr_assert(!pipe(ready));
	pid_t child = fork();
	if (!child) {
		struct evbus_claim *claim;
		prctl(PR_SET_NAME, name);
		if (claim_take(state, 0, "g", "t", 0, &claim, &err) || write(ready[1], &c, 1) != 1)
			_exit(1);
		for (;;)
			pause();
	}
	cr_assert_eq(read(ready[0], &c, 1), 1);
	close(ready[0]);
	close(ready[1]);
	return child;
}

static void end_holder(pid_t holder)
{
	cr_assert(!kill(holder, SIGKILL) && waitpid(holder, NULL, 0) == holder);
}

Test(claim, excludes_a_second_one_in_the_same_process)
{
	char expected[200];
	struct evbus_claim *claim = take("g", "t", 0);

	snprintf(expected, sizeof expected, "the group 'g' is being consumed by process %d (", (int)getpid());
	cr_assert_eq(take_code("g", "t"), EVBUS_AGAIN);
	cr_assert(!strncmp(err.text, expected, strlen(expected)), "%s", err.text);
	/* The failed one closed the file: an OFD lock stays. */
	cr_assert_eq(take_code("g", "t"), EVBUS_AGAIN);
	evbus_claim_release(claim);
	cr_assert_eq(take_code("g", "t"), EVBUS_OK, "%s", err.text);
	evbus_claim_release(NULL);
}

Test(claim, is_of_one_group_topic_and_partition)
{
	struct evbus_claim *claims[5] = { take("g", "t", 0), take("g", "t", 1), take("g", "t.x", 0),
					  take("G", "t", 0), take("t", "g", 0) };

	for (int i = 0; i < 5; i++)
		evbus_claim_release(claims[i]);
}

Test(claim, names_the_process_that_holds_it_and_ends_with_it)
{
	char expected[200];
	pid_t holder = start_holder("my\nworker");

	snprintf(expected, sizeof expected,
		 "the group 'g' is being consumed by process %d (my?worker) on partition 0 of the topic 't'",
		 (int)holder);
	cr_assert_eq(take_code("g", "t"), EVBUS_AGAIN);
	cr_assert_str_eq(err.text, expected);
	end_holder(holder);
	cr_assert_eq(take_code("g", "t"), EVBUS_OK, "%s", err.text);
}

Test(claim, survives_a_killed_holder_again_and_again)
{
	for (int i = 0; i < 30; i++) {
		pid_t holder = start_holder("worker");
		cr_assert_eq(take_code("g", "t"), EVBUS_AGAIN);
		end_holder(holder);
		cr_assert_eq(take_code("g", "t"), EVBUS_OK, "%s", err.text);
	}
}

Test(claim, whose_holder_cannot_be_told_says_another_process)
{
	static const char *const holders[] = { "", "x", "0\n", "-1\n", "999999999999999999999\n" };
	struct evbus_claim *claim = take("g", "t", 0);

	for (size_t i = 0; i < sizeof holders / sizeof *holders; i++) {
		FILE *file = fopen("claims/g/t=0", "w");
		cr_assert(file && fputs(holders[i], file) >= 0 && !fclose(file));
		cr_assert_eq(take_code("g", "t"), EVBUS_AGAIN);
		cr_assert(strstr(err.text, "by another process"), "%s", err.text);
	}
	evbus_claim_release(claim);
}

Test(claim, lets_one_of_many_processes_in_at_a_time)
{
	pid_t children[6];
	int status;

	for (int i = 0; i < 6; i++) {
		children[i] = fork();
		for (int rounds = 0; !children[i] && rounds < 100;) {
			struct evbus_claim *claim;
			enum evbus_code code = claim_take(state, 0, "g", "t", 0, &claim, &err);
			if (code == EVBUS_AGAIN)
				continue;
			/* O_EXCL fails where another one is in here, too. */
			int fd = code ? -1 : open("inside", O_CREAT | O_EXCL | O_WRONLY, 0600);
			if (fd < 0 || close(fd) || unlink("inside"))
				_exit(1);
			evbus_claim_release(claim);
			rounds++;
		}
		if (!children[i])
			_exit(0);
	}
	for (int i = 0; i < 6; i++) {
		cr_assert_eq(waitpid(children[i], &status, 0), children[i]);
		cr_assert_eq(status, 0);
	}
}

Test(claim, whose_file_was_removed_or_replaced_is_told)
{
	struct evbus_claim *claim = take("g", "t", 0);

	cr_assert_eq(claim_check(claim, state, &err), EVBUS_OK);
	cr_assert(!rename("claims/g/t=0", "claims/g/away"));
	cr_assert_eq(claim_check(claim, state, &err), EVBUS_CONFLICT);
	evbus_claim_release(take("g", "t", 0));
	cr_assert_eq(claim_check(claim, state, &err), EVBUS_CONFLICT);
	cr_assert(!rename("claims/g/away", "claims/g/t=0"));
	cr_assert_eq(claim_check(claim, state, &err), EVBUS_OK);
	cr_assert(!unlink("claims/g/t=0"));
	cr_assert_eq(claim_check(claim, state, &err), EVBUS_CONFLICT);
	cr_assert(strstr(err.text, "claims/g/t=0"), "%s", err.text);
	evbus_claim_release(claim);
}

static int looks;

static int counted_lock(int fd, int cmd, struct flock *lock)
{
	looks++;
	return real.lock(fd, cmd, lock);
}

Test(claim, that_is_only_tried_does_not_wait_to_learn_who_has_it)
{
	struct evbus_claim *claim, *other;

	cr_assert_eq(claim_try(state, 0, "g", "t", 0, &claim, &err), EVBUS_OK, "%s", err.text);
	cr_assert(!truncate("claims/g/t=0", 0));
	os.lock = counted_lock;
	cr_assert_eq(claim_try(state, 0, "g", "t", 0, &other, &err), EVBUS_AGAIN);
	cr_assert_eq(looks, 1);
	evbus_claim_release(claim);
	cr_assert_eq(claim_try(state, 0, "g", "t", 0, &claim, &err), EVBUS_OK, "%s", err.text);
	evbus_claim_release(claim);
}

Test(claim, is_for_us_alone_whatever_the_umask)
{
	struct evbus_claim *claim;

	umask(0);
	evbus_claim_release(take("g", "t", 0));
	cr_assert(mode_of("claims") == 0700 && mode_of("claims/g") == 0700 && mode_of("claims/g/t=0") == 0600);
	umask(0777);
	evbus_claim_release(take("h", "t", 0));
	cr_assert(mode_of("claims/h") == 0700 && mode_of("claims/h/t=0") == 0600);
	cr_assert_eq(claim_take(state, 0660, "i", "t", 0, &claim, &err), EVBUS_OK, "%s", err.text);
	evbus_claim_release(claim);
	cr_assert(mode_of("claims/i") == 0770 && mode_of("claims/i/t=0") == 0660);
}

Test(claim, takes_names_and_nothing_else)
{
	static const char *const bad[] = { "", ".", "..", "../x", "a/b", "a=b", "/x", "a b", ".x", "a..b", "*" };
	char longest[EVBUS_TOPIC_MAX_BYTES + 2];

	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
		cr_assert_eq(take_code(bad[i], "t"), EVBUS_USAGE, "%s", bad[i]);
		cr_assert_eq(take_code("g", bad[i]), EVBUS_USAGE, "%s", bad[i]);
	}
	cr_assert_neq(access("claims", F_OK), 0);
	memset(longest, 'x', sizeof longest);
	longest[sizeof longest - 1] = '\0';
	cr_assert_eq(take_code(longest, "t"), EVBUS_USAGE);
	longest[sizeof longest - 2] = '\0';
	struct evbus_claim *claim = take(longest, longest, EVBUS_PARTITIONS_MAX - 1);
	struct evbus_claim *second;
	cr_assert_eq(claim_take(state, 0, longest, longest, EVBUS_PARTITIONS_MAX - 1, &second, &err), EVBUS_AGAIN);
	cr_assert(strstr(err.text, "by process"), "%s", err.text);
	evbus_claim_release(claim);
}

Test(claim, follows_no_link_and_takes_no_directory_for_a_file)
{
	cr_assert(!mkdir("else", 0700) && !symlink("else", "claims"));
	cr_assert_eq(take_code("g", "t"), EVBUS_CONFLICT);
	cr_assert(!unlink("claims") && !mkdir("claims", 0700) && !symlink("../else", "claims/g"));
	cr_assert_eq(take_code("g", "t"), EVBUS_CONFLICT);
	cr_assert(!unlink("claims/g") && !mkdir("claims/g", 0700) && !symlink("../../else/t", "claims/g/t=0"));
	cr_assert_eq(take_code("g", "t"), EVBUS_CONFLICT);
	cr_assert(!unlink("claims/g/t=0") && !mkdir("claims/g/t=0", 0700));
	cr_assert_eq(take_code("g", "t"), EVBUS_CONFLICT);
	cr_assert(!rmdir("claims/g/t=0") && !mkfifo("claims/g/t=0", 0600));
	cr_assert_eq(take_code("g", "t"), EVBUS_CONFLICT);
	cr_assert(!unlink("claims/g/t=0") && !mknod("file", S_IFREG | 0600, 0) && !link("file", "claims/g/t=0"));
	cr_assert_eq(take_code("g", "t"), EVBUS_CONFLICT);
	cr_assert(!rmdir("else"), "nothing was made through a link");
}

Test(claim, stays_with_the_parent_when_a_child_releases_its_copy)
{
	int status;
	char expected[64];
	struct evbus_claim *claim = take("g", "t", 0);
	pid_t child = fork();

	if (!child) {
		evbus_claim_release(claim);
		_exit(0);
	}
	cr_assert(waitpid(child, &status, 0) == child && !status);
	cr_assert_eq(take_code("g", "t"), EVBUS_AGAIN);
	snprintf(expected, sizeof expected, "by process %d", (int)getpid());
	cr_assert(strstr(err.text, expected), "%s", err.text);
	evbus_claim_release(claim);
}

/* ---- somebody removes things under us -------------------------------------------------------------------------- */

static int removals;

static void remove_claims(void)
{
	if (removals > 0 && !access("claims", F_OK))
		scratch_remove("claims");
	removals--;
}

static int lock_after_removal(int fd, int cmd, struct flock *lock)
{
	remove_claims();
	return real.lock(fd, cmd, lock);
}

static int open_after_removal(int dir, const char *path, int flags, mode_t mode)
{
	if (strchr(path, '='))
		remove_claims();
	return real.openat(dir, path, flags, mode);
}

static void assert_in_place(void)
{
	struct evbus_claim *claim = take("g", "t", 0);

	cr_assert(!access("claims/g/t=0", F_OK));
	os = real;
	cr_assert_eq(take_code("g", "t"), EVBUS_AGAIN);
	evbus_claim_release(claim);
}

Test(claim, of_a_file_that_is_removed_before_it_is_locked_is_taken_on_the_next)
{
	removals = 3;
	os.lock = lock_after_removal;
	assert_in_place();
}

Test(claim, in_a_directory_that_is_removed_before_the_file_is_made_is_taken_in_the_next)
{
	removals = 3;
	os.openat = open_after_removal;
	assert_in_place();
}

Test(claim, that_is_removed_over_and_over_gives_up)
{
	removals = 1000000;
	os.lock = lock_after_removal;
	cr_assert_eq(take_code("g", "t"), EVBUS_AGAIN);
	cr_assert(strstr(err.text, "over and over"), "%s", err.text);
}

Test(claim, in_a_state_directory_that_is_gone_says_so)
{
	cr_assert(!mkdir("state", 0700));
	int gone = open("state", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	struct evbus_claim *claim;

	cr_assert(!rmdir("state"));
	cr_assert_neq(claim_take(gone, 0, "g", "t", 0, &claim, &err), EVBUS_OK);
	cr_assert(strstr(err.text, "No such file or directory"), "%s", err.text);
	close(gone);
}

/* ---- a failing system ------------------------------------------------------------------------------------------ */

static ssize_t full_disk(int fd, const void *data, size_t len, off_t at)
{
	(void)fd;
	(void)data;
	(void)len;
	(void)at;
	errno = ENOSPC;
	return -1;
}

static int no_locks(int fd, int cmd, struct flock *lock)
{
	(void)fd;
	(void)cmd;
	(void)lock;
	errno = ENOLCK;
	return -1;
}

Test(claim, holds_on_a_full_disk)
{
	os.pwrite = full_disk;
	struct evbus_claim *claim = take("g", "t", 0);
	cr_assert_eq(take_code("g", "t"), EVBUS_AGAIN);
	cr_assert(strstr(err.text, "by another process"), "%s", err.text);
	evbus_claim_release(claim);
}

Test(claim, that_cannot_be_locked_at_all_is_an_io_error)
{
	os.lock = no_locks;
	cr_assert_eq(take_code("g", "t"), EVBUS_IO);
	cr_assert_eq(err.sys_errno, ENOLCK);
}

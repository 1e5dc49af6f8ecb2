/* claim.c: a lock on a file of its own for each group and partition.
 *
 * An OFD lock belongs to the open file and not to the process: two handles in one process exclude each other, and
 * closing another descriptor of the file does not drop it. The holder writes its process id into the file once it has
 * the lock, so that those it keeps out can name it, and empties the file when it lets go. */
#include "store/claim.h"

#include "store/claim_shared.h"
#include "store/file.h"

#include "base/os.h"
#include "event/subject.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <unistd.h>

#define TRIES_MAX 100

/* What is asked for. */
struct wanted {
	int state_dir;
	mode_t mode;
	const char *group;
	const char *topic;
	int32_t partition_id;
	char place[CLAIM_PLACE_MAX];     /* below state_dir */
};

/* ---- the holder ------------------------------------------------------------------------------------------------ */

static pid_t read_holder(int fd)
{
	char text[16] = "";

	if (os_read_at(fd, text, sizeof text - 1, 0) <= 0)
		return 0;
	return (pid_t)strtol(text, NULL, 10);
}

/* The name of a running process; false where there is none of this id. */
static bool read_name(pid_t pid, char name[32])
{
	char path[40];

	snprintf(path, sizeof path, "/proc/%d/comm", (int)pid);
	CLEANUP(os_close_cleanup) int fd = os.openat(AT_FDCWD, path, O_RDONLY | O_CLOEXEC, 0);
	ssize_t len = fd < 0 ? -1 : os_read_at(fd, name, 31, 0);
	if (len <= 0)
		return false;
	name[name[len - 1] == '\n' ? len - 1 : len] = '\0';
	for (char *c = name; *c; c++)
		if ((unsigned char)*c < ' ' || *c == 0x7f)
			*c = '?';
	return true;
}

enum evbus_code claim_held(const char *group, const char *topic, int32_t partition_id, const char *who,
			   struct evbus_err *err)
{
	if (partition_id < 0)
		return err_set(err, EVBUS_AGAIN, 0, "the dead letters of '%s' are being retried by %s", group, who);
	return err_set(err, EVBUS_AGAIN, 0,
		       "the group '%s' is being consumed by %s on partition %" PRId32 " of the topic '%s'", group, who,
		       partition_id, topic);
}

/* Who has just taken it has not written its id yet: told is false until there is one of a living process. */
static enum evbus_code held(const struct wanted *wanted, int fd, bool *told, struct evbus_err *err)
{
	char name[32], who[64] = "another process";
	pid_t pid = read_holder(fd);

	*told = pid > 0 && read_name(pid, name);
	if (*told)
		snprintf(who, sizeof who, "process %d (%s)", (int)pid, name);
	return claim_held(wanted->group, wanted->topic, wanted->partition_id, who, err);
}

static void write_holder(int fd)
{
	char text[16];

	/* It is a courtesy: a full disk does not keep anybody from holding a lock. */
	int len = snprintf(text, sizeof text, "%d\n", (int)getpid());
	if (!os.ftruncate(fd, 0))
		(void)os_write_at(fd, text, (size_t)len, 0);
}

/* ---- taking it ------------------------------------------------------------------------------------------------- */

static enum evbus_code open_place(const struct wanted *wanted, int *fd, struct evbus_err *err)
{
	CLEANUP(os_close_cleanup) int claims = -1, group = -1;
	mode_t dir_mode = store_dir_mode(wanted->mode);
	const char *name = strrchr(wanted->place, '/') + 1;

	TRY(os_make_dir(wanted->state_dir, "claims", dir_mode, "claims", NULL, err));
	TRY(os_open_dir(wanted->state_dir, "claims", "claims", &claims, err));
	TRY(os_make_dir(claims, wanted->group, dir_mode, wanted->group, NULL, err));
	TRY(os_open_dir(claims, wanted->group, wanted->group, &group, err));
	return os_open_file(group, name, O_RDWR | O_CREAT, wanted->mode, wanted->place, fd, err);
}

static enum evbus_code look_in_place(int state_dir, const char *place, int fd, bool *in_place, struct evbus_err *err)
{
	struct stat ours, there;

	*in_place = false;
	if (os.fstat(fd, &ours))
		return err_set(err, err_code_of(errno), errno, "cannot look at '%s'", place);
	bool gone = os.fstatat(state_dir, place, &there, AT_SYMLINK_NOFOLLOW) != 0;
	if (gone && errno != ENOENT && errno != ENOTDIR)
		return err_set(err, err_code_of(errno), errno, "cannot look at '%s'", place);
	*in_place = !gone && ours.st_dev == there.st_dev && ours.st_ino == there.st_ino;
	return EVBUS_OK;
}

/* *again: it is worth another try, as somebody removed the file or its directory under us, or has just got the lock. */
static enum evbus_code try_take(const struct wanted *wanted, int *taken, bool *again, struct evbus_err *err)
{
	CLEANUP(os_close_cleanup) int fd = -1;
	struct flock whole = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
	bool told, in_place;

	*again = false;
	enum evbus_code code = open_place(wanted, &fd, err);
	if (code) {
		*again = code == EVBUS_NONE || err->sys_errno == ENOENT;
		return code;
	}
	if (os.lock(fd, F_OFD_SETLK, &whole)) {
		if (errno != EAGAIN && errno != EACCES)
			return err_set(err, EVBUS_IO, errno, "cannot lock '%s'", wanted->place);
		code = held(wanted, fd, &told, err);
		*again = !told;
		return code;
	}
	TRY(look_in_place(wanted->state_dir, wanted->place, fd, &in_place, err));
	if (!in_place) {
		*again = true;
		return err_set(err, EVBUS_AGAIN, 0, "'%s' is being removed over and over: try again", wanted->place);
	}
	write_holder(fd);
	*taken = fd;
	fd = -1;
	return EVBUS_OK;
}

static enum evbus_code keep_trying(const struct wanted *wanted, int tries, int *fd, struct evbus_err *err)
{
	const struct timespec pause = { .tv_nsec = 1000000 };
	struct evbus_err own;
	enum evbus_code code = EVBUS_BUG;
	bool again = true;

	for (int i = 0; i < tries && again; i++) {
		if (i)
			nanosleep(&pause, NULL);
		code = try_take(wanted, fd, &again, &own);
		if (!code)
			return EVBUS_OK;
	}
	if (err)
		*err = own;
	return code;
}

static enum evbus_code take(int state_dir, mode_t file_mode, const char *group, const char *topic,
			    int32_t partition_id, int tries, struct evbus_claim **claim, struct evbus_err *err)
{
	struct wanted wanted = { .state_dir = state_dir,
				 .mode = file_mode ? file_mode : 0600,
				 .group = group,
				 .topic = topic,
				 .partition_id = partition_id };

	TRY(subject_check_name("group", group, err));
	TRY(subject_check_name("topic", topic, err));
	snprintf(wanted.place, sizeof wanted.place, "claims/%s/%s=%" PRId32, group, topic, partition_id);
	size_t size = strlen(wanted.place) + 1;
	struct evbus_claim *taken = os.realloc(NULL, sizeof *taken + size);
	if (!taken)
		return err_set(err, EVBUS_IO, ENOMEM, "cannot claim '%s'", wanted.place);
	*taken = (struct evbus_claim){ .pid = getpid() };
	memcpy(taken->place, wanted.place, size);
	enum evbus_code code = keep_trying(&wanted, tries, &taken->fd, err);
	if (code) {
		free(taken);
		return code;
	}
	*claim = taken;
	return EVBUS_OK;
}

enum evbus_code claim_take(int state_dir, mode_t file_mode, const char *group, const char *topic, int32_t partition_id,
			   struct evbus_claim **claim, struct evbus_err *err)
{
	return take(state_dir, file_mode, group, topic, partition_id, TRIES_MAX, claim, err);
}

enum evbus_code claim_try(int state_dir, mode_t file_mode, const char *group, const char *topic, int32_t partition_id,
			  struct evbus_claim **claim, struct evbus_err *err)
{
	return take(state_dir, file_mode, group, topic, partition_id, 1, claim, err);
}

enum evbus_code claim_check(const struct evbus_claim *claim, int state_dir, struct evbus_err *err)
{
	bool in_place;

	/* That of a server was renewed when the transaction began, and ends with it. */
	if (claim->fd < 0)
		return EVBUS_OK;
	TRY(look_in_place(state_dir, claim->place, claim->fd, &in_place, err));
	if (in_place)
		return EVBUS_OK;
	return err_set(err, EVBUS_CONFLICT, 0, "the claim '%s' was taken away from us: its file was removed or replaced",
		       claim->place);
}

void evbus_claim_release(struct evbus_claim *claim)
{
	if (!claim)
		return;
	/* In a forked child the lock goes on to be the parent's. */
	if (claim->pid == getpid() && claim->fd < 0)
		claim_release_shared(claim);
	else if (claim->pid == getpid())
		(void)os.ftruncate(claim->fd, 0);
	os_close_cleanup(&claim->fd);
	free(claim);
}

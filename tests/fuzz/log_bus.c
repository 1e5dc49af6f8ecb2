/* log_bus.c: the partition that fuzz-log works on, and its machine. */
#include "log_bus.h"

#include "base/os.h"

#include <dirent.h>
#include <limits.h>
#include <unistd.h>

static struct root root;
static char scratch[PATH_MAX];

struct topic topic;
char boot = 'a';
char older_path[SEGMENT_PATH_MAX];

/* ---- a machine on which the same happens every time ---- */

static uint64_t random_state;

static ssize_t same_random(void *data, size_t len, unsigned flags)
{
	(void)flags;
	for (size_t i = 0; i < len; i++) {
		random_state = random_state * 6364136223846793005u + 1442695040888963407u;
		((uint8_t *)data)[i] = (uint8_t)(random_state >> 56);
	}
	return (ssize_t)len;
}

static int same_time(clockid_t clock, struct timespec *now)
{
	(void)clock;
	*now = (struct timespec){ NOW_US / 1000000, NOW_US % 1000000 * 1000 };
	return 0;
}

static int same_boot(char id[36])
{
	memset(id, boot, 36);
	return 0;
}

static DIR *open_dir(const char *path)
{
	int fd = openat(topic.fd, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	return fd < 0 ? NULL : fdopendir(fd);
}

static void clean_dir(const char *path)
{
	DIR *dir = open_dir(path);

	for (struct dirent *entry; dir && (entry = readdir(dir));) {
		bool keep = !strcmp(entry->d_name, ".") || !strcmp(entry->d_name, "..");
		if (!keep && strcmp(entry->d_name, "topic.json") != 0 && strcmp(entry->d_name, OLDER_DIR) != 0)
			MUST(!unlinkat(dirfd(dir), entry->d_name, 0));
	}
	if (dir)
		closedir(dir);
}

static void leave(void)
{
	char path[PATH_MAX + 8];

	clean_dir(OLDER_DIR);
	clean_dir(".");
	unlinkat(topic.fd, OLDER_DIR, AT_REMOVEDIR);
	unlinkat(topic.fd, "topic.json", 0);
	unlinkat(root.fd, "t", AT_REMOVEDIR);
	topic_close(&topic);
	root_close(&root);
	snprintf(path, sizeof path, "%s/bus", scratch);
	if (!rmdir(path))
		rmdir(scratch);
}

static void enter(void)
{
	char path[PATH_MAX + 8];
	struct evbus_err err;
	bool made;

	os.getrandom = same_random;
	os.clock_gettime = same_time;
	os.boot_id = same_boot;
	const char *dir = getenv("TMPDIR");
	snprintf(scratch, sizeof scratch, "%s/evbus-fuzz-XXXXXX",
		 dir                        ? dir
		 : access("/dev/shm", W_OK) ? "/tmp"
					    : "/dev/shm");
	MUST(mkdtemp(scratch) != NULL);
	snprintf(path, sizeof path, "%s/bus", scratch);
	root = (struct root){ .fd = -1, .file_mode = 0600, .dir_mode = 0700 };
	MUST(root_open(&root, path, true, &err) == EVBUS_OK);
	MUST(topic_create(&root, "t", NULL, &topic, &made, &err) == EVBUS_OK);
	MUST(!mkdirat(topic.fd, OLDER_DIR, 0700) && !atexit(leave));
}

void bus_begin(void)
{
	if (!scratch[0])
		enter();
	clean_dir(OLDER_DIR);
	clean_dir(".");
	boot = 'a';
	random_state = 1;
}

/* ---- files ---- */

void write_file(const char *path, const void *data, size_t len)
{
	int fd = openat(topic.fd, path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	MUST(fd >= 0 && write(fd, data, len) == (ssize_t)len && !close(fd));
}

/* No data: it is not there. */
static struct evbus_slice read_file(const char *path)
{
	int fd = openat(topic.fd, path, O_RDONLY | O_CLOEXEC);
	struct stat st;

	if (fd < 0)
		return (struct evbus_slice){ NULL, 0 };
	MUST(!fstat(fd, &st));
	char *data = fuzz_block((size_t)st.st_size);
	MUST(read(fd, data, (size_t)st.st_size) == st.st_size && !close(fd));
	return (struct evbus_slice){ data, (size_t)st.st_size };
}

void files_read(struct files *files)
{
	DIR *dir = open_dir(".");

	*files = (struct files){ .live = read_file(LIVE), .older = read_file(older_path), .lock = read_file(LOCK) };
	MUST(dir != NULL);
	for (struct dirent *entry; (entry = readdir(dir));)
		if (!strncmp(entry->d_name, "partition=0.torn-", 17) && !files->torn_count++)
			files->torn = read_file(entry->d_name);
	closedir(dir);
}

static void slice_free(struct evbus_slice slice)
{
	free((void *)(uintptr_t)slice.data);
}

void files_cleanup(struct files *files)
{
	slice_free(files->live);
	slice_free(files->older);
	slice_free(files->lock);
	slice_free(files->torn);
}

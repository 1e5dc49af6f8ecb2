/* topic.c: making, opening and listing topics. */
#include "log/topic.h"

#include "event/json.h"
#include "event/subject.h"
#include "log/line.h"

#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#define TOPIC_JSON_MAX_BYTES 4096u

/* ---- one topic ---- */

static void close_dir(DIR **dir)
{
	if (*dir)
		closedir(*dir);
}

/* Opens a directory for listing, apart from its descriptor, which has a position of its own. */
static enum evbus_code open_listing(int fd, const char *name, DIR **dir, struct evbus_err *err)
{
	int again = os.openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);

	*dir = again < 0 ? NULL : os.fdopendir(again);
	if (*dir)
		return EVBUS_OK;
	enum evbus_code code = err_set(err, err_code_of(errno), errno, "cannot list '%s'", name);
	os_close_cleanup(&again);
	return code;
}

/* Whether a directory holds files of partitions. */
static enum evbus_code has_log(int fd, const char *name, bool *has, struct evbus_err *err)
{
	CLEANUP(close_dir) DIR *dir = NULL;

	*has = false;
	TRY(open_listing(fd, name, &dir, err));
	for (struct dirent *entry; errno = 0, !*has && (entry = os.readdir(dir));)
		*has = strncmp(entry->d_name, "partition=", 10) == 0;
	return errno ? err_set(err, EVBUS_IO, errno, "cannot list '%s'", name) : EVBUS_OK;
}

static enum evbus_code bad_topic_json(const char *name, const char *why, struct evbus_err *err)
{
	return err_set(err, EVBUS_IO, 0, "'%s/topic.json' is damaged: %s", name, why);
}

static uint64_t number_of(const struct json_want *want)
{
	uint64_t value;

	return want->times == 1 && decimal_parse(want->value, &value) ? value : 0;
}

static enum evbus_code parse_topic_json(struct topic *topic, struct evbus_slice text, struct evbus_err *err)
{
	struct json_want want[] = { { .name = SLICE("log_id") },
				    { .name = SLICE("partitions") },
				    { .name = SLICE("segment_max_bytes") },
				    { .name = SLICE("file_mode") } };
	struct json_fault fault;
	char mode[5] = "";

	while (text.len && text.data[text.len - 1] == '\n')
		text.len--;
	if (!json_scan(text, want, 4, &fault))
		return bad_topic_json(topic->name, fault.reason, err);
	if (want[0].times != 1 || evbus_json_text(want[0].value, topic->log_id, LOG_ID_LEN) != LOG_ID_LEN)
		return bad_topic_json(topic->name, "it has no log_id of 32 digits", err);
	uint64_t partitions = number_of(&want[1]);
	if (partitions < 1 || partitions > EVBUS_PARTITIONS_MAX)
		return bad_topic_json(topic->name, "partitions is not a number from 1 to 1024", err);
	topic->partitions = (uint32_t)partitions;
	topic->segment_max_bytes = number_of(&want[2]);
	if (topic->segment_max_bytes == 0)
		return bad_topic_json(topic->name, "segment_max_bytes is not a number above 0", err);
	if (want[3].times != 1 || evbus_json_text(want[3].value, mode, 4) != 4 || strspn(mode, "01234567") != 4)
		return bad_topic_json(topic->name, "file_mode is not four octal digits", err);
	topic->file_mode = 0;
	for (const char *digit = mode; *digit; digit++)
		topic->file_mode = topic->file_mode * 8 + (mode_t)(*digit - '0');
	topic->dir_mode = topic->file_mode | (topic->file_mode & 0444) >> 2;
	return EVBUS_OK;
}

static enum evbus_code read_topic_json(struct topic *topic, struct evbus_err *err)
{
	char name[NAME_IN_MESSAGE];
	char text[TOPIC_JSON_MAX_BYTES];
	CLEANUP(os_close_cleanup) int fd = -1;
	struct stat st;

	snprintf(name, sizeof name, "%s/topic.json", topic->name);
	TRY(os_open_file(topic->fd, "topic.json", O_RDONLY, 0, name, &fd, err));
	if (os.fstat(fd, &st))
		return err_set(err, EVBUS_IO, errno, "cannot look at '%s'", name);
	ssize_t len = os_read_at(fd, text, (size_t)st.st_size < sizeof text ? (size_t)st.st_size : sizeof text, 0);
	if (len < 0)
		return err_set(err, EVBUS_IO, errno, "cannot read '%s'", name);
	return parse_topic_json(topic, (struct evbus_slice){ text, (size_t)len }, err);
}

/* EVBUS_NONE only where there is no log either. Files of partitions are made behind topic.json: where there are some it
 * has come just now, by a creator, or was removed. */
static enum evbus_code read_topic(struct topic *topic, struct evbus_err *err)
{
	enum evbus_code code = read_topic_json(topic, err);
	bool log;

	if (code != EVBUS_NONE)
		return code;
	TRY(has_log(topic->fd, topic->name, &log, err));
	if (!log)
		return EVBUS_NONE;
	code = read_topic_json(topic, err);
	if (code != EVBUS_NONE)
		return code;
	return err_set(err, EVBUS_CONFLICT, 0,
		       "topic '%s' has a log, but its topic.json was removed: put it back from a copy", topic->name);
}

void topic_close(struct topic *topic)
{
	os_close_cleanup(&topic->fd);
}

enum evbus_code topic_sync_names(const struct topic *topic, struct evbus_err *err)
{
	TRY(os_sync_dir(topic->fd, topic->name, err));
	TRY(os_sync_dir(topic->root->fd, topic->name, err));
	return os_sync_parent(topic->root->fd, topic->root->path, err);
}

static enum evbus_code no_topic(const struct root *root, const char *name, struct evbus_err *err)
{
	return err_set(err, EVBUS_NONE, 0, "there is no topic '%s' in '%s' (evbus topic-list shows those that are there)",
		       name, root->path);
}

static void name_topic(struct topic *topic, const struct root *root, const char *name)
{
	*topic = (struct topic){ .root = root, .fd = -1 };
	snprintf(topic->name, sizeof topic->name, "%s", name);
}

enum evbus_code topic_open(const struct root *root, const char *name, struct topic *topic, struct evbus_err *err)
{
	CLEANUP(topic_close) struct topic opened;

	name_topic(&opened, root, name);
	TRY(subject_check_name("topic", name, err));
	enum evbus_code code = os_open_dir(root->fd, name, name, &opened.fd, err);
	if (code == EVBUS_OK)
		code = read_topic(&opened, err);
	if (code == EVBUS_NONE)
		return no_topic(root, name, err);
	if (code != EVBUS_OK)
		return code;
	*topic = opened;
	opened.fd = -1;
	return EVBUS_OK;
}

static enum evbus_code random_hex(char text[LOG_ID_LEN + 1], struct evbus_err *err)
{
	unsigned char bytes[LOG_ID_LEN / 2];

	if (os.getrandom(bytes, sizeof bytes, 0) != (ssize_t)sizeof bytes)
		return err_set(err, EVBUS_IO, errno, "cannot get random bytes");
	for (size_t i = 0; i < sizeof bytes; i++)
		snprintf(text + 2 * i, 3, "%02x", bytes[i]);
	return EVBUS_OK;
}

/* Writes topic.json under a name of its own, whole and synced, and links it: the link is what creates the topic. */
static enum evbus_code link_topic_json(const struct topic *topic, const struct evbus_topic_options *options,
				       bool *created, struct evbus_err *err)
{
	char log_id[LOG_ID_LEN + 1], temporary[64], time[TIME_TEXT_LEN], text[512], name[NAME_IN_MESSAGE];
	CLEANUP(os_close_cleanup) int fd = -1;

	TRY(random_hex(log_id, err));
	clock_format(os_now_us(), time);
	int len = snprintf(text, sizeof text,
			   "{\"topic\":\"%s\",\"log_id\":\"%s\",\"partitions\":%u,\"segment_max_bytes\":%llu,"
			   "\"file_mode\":\"%04o\",\"created_at_utc\":\"%.27s\"}\n",
			   topic->name, log_id, options->partitions ? options->partitions : 1,
			   (unsigned long long)(options->segment_max_bytes ? options->segment_max_bytes :
									     EVBUS_SEGMENT_MAX_BYTES),
			   (unsigned)topic->root->file_mode, time);
	snprintf(temporary, sizeof temporary, ".topic.json.%s", log_id);
	snprintf(name, sizeof name, "%s/%s", topic->name, temporary);
	TRY(os_open_file(topic->fd, temporary, O_WRONLY | O_CREAT | O_EXCL, topic->root->file_mode, name, &fd, err));
	bool written = os_write_at(fd, text, (size_t)len, 0) && !os.fsync(fd);
	if (written)
		os.point("topic/written");
	bool linked = written && !os.linkat(topic->fd, temporary, topic->fd, "topic.json", 0);
	int saved = errno;
	os.unlinkat(topic->fd, temporary, 0);
	if (!linked && saved != EEXIST)
		return err_set(err, EVBUS_CANTCREATE, saved, "cannot make '%s/topic.json'", topic->name);
	*created = linked;
	return os_sync_dir(topic->fd, topic->name, err);
}

static enum evbus_code check_options(const struct topic *topic, const struct evbus_topic_options *options,
				     struct evbus_err *err)
{
	if (options->partitions && options->partitions != topic->partitions)
		return err_set(err, EVBUS_CONFLICT, 0, "topic '%s' is there with %u partition%s, not %u", topic->name,
			       topic->partitions, topic->partitions == 1 ? "" : "s", options->partitions);
	if (options->segment_max_bytes && options->segment_max_bytes != topic->segment_max_bytes)
		return err_set(err, EVBUS_CONFLICT, 0, "topic '%s' is there with a segment size of %llu bytes, not %llu",
			       topic->name, (unsigned long long)topic->segment_max_bytes,
			       (unsigned long long)options->segment_max_bytes);
	return EVBUS_OK;
}

enum evbus_code topic_create(const struct root *root, const char *name, const struct evbus_topic_options *options,
			     struct topic *topic, bool *created, struct evbus_err *err)
{
	struct evbus_topic_options none = { 0 };
	CLEANUP(topic_close) struct topic opened;

	options = options ? options : &none;
	name_topic(&opened, root, name);
	*created = false;
	TRY(subject_check_name("topic", name, err));
	if (options->partitions > EVBUS_PARTITIONS_MAX)
		return err_set(err, EVBUS_USAGE, 0, "a topic has at most %d partitions, not %u", EVBUS_PARTITIONS_MAX,
			       options->partitions);
	TRY(root_check_local(root, err));
	TRY(os_make_dir(root->fd, name, root->dir_mode, name, NULL, err));
	TRY(os_open_dir(root->fd, name, name, &opened.fd, err));
	enum evbus_code code = read_topic(&opened, err);
	if (code == EVBUS_NONE) {
		TRY(link_topic_json(&opened, options, created, err));
		code = read_topic_json(&opened, err);
	}
	if (code != EVBUS_OK)
		return code;
	TRY(check_options(&opened, options, err));
	if (*created)
		root_notice(root, "made topic '%s' with %u partition%s", name, opened.partitions,
			    opened.partitions == 1 ? "" : "s");
	*topic = opened;
	opened.fd = -1;
	return EVBUS_OK;
}

enum evbus_code topic_check_in_place(const struct topic *topic, const char *doing, struct evbus_err *err)
{
	struct stat ours, there;

	if (os.fstat(topic->fd, &ours))
		return err_set(err, EVBUS_IO, errno, "cannot look at topic '%s'", topic->name);
	bool gone = os.fstatat(topic->root->fd, topic->name, &there, AT_SYMLINK_NOFOLLOW) != 0;
	if (gone && errno != ENOENT)
		return err_set(err, EVBUS_IO, errno, "cannot look at topic '%s'", topic->name);
	if (gone || ours.st_dev != there.st_dev || ours.st_ino != there.st_ino)
		return err_set(err, EVBUS_CONFLICT, 0, "topic '%s' was removed or replaced while it was %s", topic->name,
			       doing);
	return EVBUS_OK;
}

enum evbus_code topic_check_partition(const struct topic *topic, int32_t partition, struct evbus_err *err)
{
	if (partition >= 0 && (uint32_t)partition < topic->partitions)
		return EVBUS_OK;
	return err_set(err, EVBUS_NONE, 0, "topic '%s' has no partition %d: it has %u, counted from 0", topic->name,
		       partition, topic->partitions);
}

enum evbus_code file_id_of(int fd, const char *name, struct file_id *id, struct evbus_err *err)
{
	struct stat st;

	if (os.fstat(fd, &st))
		return err_set(err, err_code_of(errno), errno, "cannot look at '%s'", name);
	*id = (struct file_id){ st.st_dev, st.st_ino };
	return EVBUS_OK;
}

bool file_is_at(const struct topic *topic, const char *path, const struct file_id *id, uint64_t *size)
{
	size_t name_len = strlen(topic->name), path_len = strlen(path);
	char full[NAME_IN_MESSAGE];
	struct statx stx;

	/* From the root, not from the topic's descriptor: a topic that was moved away is noticed too. */
	assert(name_len + 1 + path_len < sizeof full);
	memcpy(full, topic->name, name_len);
	full[name_len] = '/';
	memcpy(full + name_len + 1, path, path_len + 1);
	/* Not fstatat: who asks for a file's times makes the next write note a new one, each time. */
	if (os.statx(topic->root->fd, full, AT_SYMLINK_NOFOLLOW, STATX_INO | STATX_NLINK | STATX_SIZE, &stx)) {
		errno = errno == ENOTDIR ? ENOENT : errno;
		return false;
	}
	if (makedev(stx.stx_dev_major, stx.stx_dev_minor) != id->dev || stx.stx_ino != id->ino || stx.stx_nlink == 0) {
		errno = ENOENT;
		return false;
	}
	if (size)
		*size = stx.stx_size;
	return true;
}

/* ---- listing ---- */

static int by_name(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

/* *type: S_IFDIR …; 0 where it is not there, or may not be looked into, and then is none of ours. */
static enum evbus_code look_at(const struct root *root, const char *path, mode_t *type, struct evbus_err *err)
{
	struct stat st = { 0 };

	if (!os.fstatat(root->fd, path, &st, AT_SYMLINK_NOFOLLOW) || errno == ENOENT || errno == ENOTDIR ||
	    errno == ELOOP || errno == EACCES) {
		*type = st.st_mode & S_IFMT;
		return EVBUS_OK;
	}
	return err_set(err, EVBUS_IO, errno, "cannot look at '%s'", path);
}

static enum evbus_code is_topic(const struct root *root, const char *name, bool *is, struct evbus_err *err)
{
	char path[NAME_IN_MESSAGE];
	mode_t type;

	*is = false;
	if (subject_check_name("topic", name, NULL))
		return EVBUS_OK;
	TRY(look_at(root, name, &type, err));
	if (type != S_IFDIR)
		return EVBUS_OK;
	snprintf(path, sizeof path, "%s/topic.json", name);
	TRY(look_at(root, path, &type, err));
	*is = type != 0;
	return EVBUS_OK;
}

static enum evbus_code is_unusable(const struct root *root, const char *name, bool *is, struct evbus_err *err)
{
	CLEANUP(os_close_cleanup) int fd = -1;
	bool topic;
	mode_t type;

	*is = false;
	TRY(is_topic(root, name, &topic, err));
	if (topic || subject_check_name("topic", name, NULL))
		return EVBUS_OK;
	TRY(look_at(root, name, &type, err));
	*is = type == S_IFLNK;
	if (type != S_IFDIR)
		return EVBUS_OK;
	enum evbus_code code = os_open_dir(root->fd, name, name, &fd, err);
	if (code == EVBUS_NONE || code == EVBUS_CONFLICT || code == EVBUS_PERMISSION)
		return EVBUS_OK;
	TRY(code);
	return has_log(fd, name, is, err);
}

/* One block: the pointers, then the texts. */
static enum evbus_code to_names(const struct buf *texts, size_t count, char ***names, struct evbus_err *err)
{
	size_t head = (count + 1) * sizeof(char *);
	char **list = os.realloc(NULL, head + texts->len + 1);

	if (!list)
		return err_set(err, EVBUS_IO, ENOMEM, "cannot list the topics");
	char *text = (char *)list + head;
	if (texts->len)
		memcpy(text, texts->data, texts->len);
	for (size_t i = 0; i < count; i++, text += strlen(text) + 1)
		list[i] = text;
	list[count] = NULL;
	qsort(list, count, sizeof *list, by_name);
	*names = list;
	return EVBUS_OK;
}

static enum evbus_code list(const struct root *root, const char *pattern,
			    enum evbus_code (*is_wanted)(const struct root *root, const char *name, bool *is,
							 struct evbus_err *err),
			    char ***names, struct evbus_err *err)
{
	CLEANUP(buf_release) struct buf texts = { 0 };
	CLEANUP(close_dir) DIR *dir = NULL;
	size_t count = 0;
	bool wanted;

	TRY(open_listing(root->fd, root->path, &dir, err));
	for (struct dirent *entry; errno = 0, (entry = os.readdir(dir));) {
		if (pattern && !evbus_topic_matches(pattern, entry->d_name))
			continue;
		TRY(is_wanted(root, entry->d_name, &wanted, err));
		if (!wanted)
			continue;
		TRY(buf_add(&texts, entry->d_name, strlen(entry->d_name) + 1, err));
		count++;
	}
	if (errno)
		return err_set(err, EVBUS_IO, errno, "cannot list '%s'", root->path);
	return to_names(&texts, count, names, err);
}

enum evbus_code topic_names(const struct root *root, const char *pattern, char ***names, struct evbus_err *err)
{
	return list(root, pattern, is_topic, names, err);
}

enum evbus_code topic_unusable(const struct root *root, const char *pattern, char ***names, struct evbus_err *err)
{
	return list(root, pattern, is_unusable, names, err);
}

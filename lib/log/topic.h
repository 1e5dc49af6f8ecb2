/* topic.h: the directories of a file bus: the root, its topics, and the files of a partition. */
#ifndef EVBUS_LOG_TOPIC_H
#define EVBUS_LOG_TOPIC_H

#include "base/buf.h"
#include "base/os.h"

#define LOG_ID_LEN 32u
#define NAME_IN_MESSAGE 320u    /* "<topic>/partition=1023/00000000000000000000.jsonl" and room */

struct root {
	int fd;
	char *path;
	mode_t file_mode, dir_mode;
	void (*notice)(void *context, const char *text);
	void *notice_context;
};

/* Opens DIR; with `create` makes it, its missing parents and syncs them. EVBUS_NONE where it is not there. */
CHECKED enum evbus_code root_open(struct root *root, const char *path, bool create, struct evbus_err *err);
void root_close(struct root *root);
void root_notice(const struct root *root, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* A network or FUSE file system: its locks, syncs and shared pages are not those of one kernel. */
CHECKED enum evbus_code root_check_local(const struct root *root, struct evbus_err *err);

struct topic {
	const struct root *root;
	int fd;
	char name[EVBUS_TOPIC_MAX_BYTES + 1];
	char log_id[LOG_ID_LEN + 1];
	uint32_t partitions;
	uint64_t segment_max_bytes;
	mode_t file_mode, dir_mode;
};

/* EVBUS_NONE where it is not there (a directory without topic.json is none; with a log in it, EVBUS_CONFLICT). */
CHECKED enum evbus_code topic_open(const struct root *root, const char *name, struct topic *topic,
				   struct evbus_err *err);
/* topic.json is made whole and linked, so of racing creators one wins and all open the same log. */
CHECKED enum evbus_code topic_create(const struct root *root, const char *name,
				     const struct evbus_topic_options *options, struct topic *topic, bool *created,
				     struct evbus_err *err);
void topic_close(struct topic *topic);
/* Syncs the names of its files and of its directory, up to the root's own: whoever made them may have been killed before
 * he did, or not have come to it yet. */
CHECKED enum evbus_code topic_sync_names(const struct topic *topic, struct evbus_err *err);
/* Whether the directory is still at its name: who follows an empty log would not notice otherwise that it was made anew.
 * doing: "read", for the message. */
CHECKED enum evbus_code topic_check_in_place(const struct topic *topic, const char *doing, struct evbus_err *err);
CHECKED enum evbus_code topic_check_partition(const struct topic *topic, int32_t partition, struct evbus_err *err);

/* The names of all topics below root, sorted; NULL at the end; one block. */
CHECKED enum evbus_code topic_names(const struct root *root, const char *pattern, char ***names,
				    struct evbus_err *err);
/* The same of what is in the place of one: directories that hold a log and have lost their topic.json, and links, which
 * are not followed. */
CHECKED enum evbus_code topic_unusable(const struct root *root, const char *pattern, char ***names,
				       struct evbus_err *err);

/* Which file an open descriptor is; does not change while it is open. */
struct file_id {
	dev_t dev;
	ino_t ino;
};
CHECKED enum evbus_code file_id_of(int fd, const char *name, struct file_id *id, struct evbus_err *err);

/* Whether a path below the topic still leads to that file; *size (may be NULL) is then its size. errno: ENOENT, or why it
 * cannot be said. */
bool file_is_at(const struct topic *topic, const char *path, const struct file_id *id, uint64_t *size);

#endif

/* bus.c: opening a bus, and its topics. */
#include "bus.h"

#include "log/cursor.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#define PAYLOAD_LIMIT_BYTES (3u * 1024 * 1024)    /* a line, with its head and key, stays below LINE_MAX_BYTES */
#define DESCRIBE_CHUNK 65536u
#define ALIVE_BYTES 4096u

const char *evbus_version(void)
{
	return EVBUS_VERSION;
}

void evbus_free(void *block)
{
	free(block);
}

/* ---- open and close ---- */

/* The length of the scheme (RFC 3986) that a text begins with, 0 where it is a plain path. */
static size_t scheme_len(const char *url)
{
	const char *rest = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789+-.";
	size_t len = strspn(url, rest);
	bool letter = (url[0] >= 'a' && url[0] <= 'z') || (url[0] >= 'A' && url[0] <= 'Z');

	return letter && url[len] == ':' ? len : 0;
}

/* To look at the locale for four letters takes two pages of the C library at each start. */
static bool is_file(const char *scheme)
{
	return (scheme[0] | 32) == 'f' && (scheme[1] | 32) == 'i' && (scheme[2] | 32) == 'l' && (scheme[3] | 32) == 'e';
}

static enum evbus_code parse_url(const char *url, const char **path, struct evbus_err *err)
{
	size_t scheme = scheme_len(url);

	*path = scheme ? url + scheme + 1 : url;
	if (scheme && (scheme != 4 || !is_file(url)))
		return err_set(err, EVBUS_CONFIG, 0,
			       "there is no backend '%.*s': the bus is file:DIR, or a path (./%.*s:… for one with a colon)",
			       (int)scheme, url, (int)scheme, url);
	if (scheme && strncmp(*path, "///", 3) == 0)
		*path += 2;
	if (!**path)
		return err_set(err, EVBUS_CONFIG, 0, "the bus '%s' names no directory: use file:DIR", url);
	return EVBUS_OK;
}

static enum evbus_code check_options(const struct evbus_options *options, struct evbus_err *err)
{
	if (options->file_mode & ~0666u)
		return err_set(err, EVBUS_CONFIG, 0, "the file mode %04o has bits other than read and write",
			       options->file_mode);
	if (options->file_mode && (options->file_mode & 0600) != 0600)
		return err_set(err, EVBUS_CONFIG, 0, "the file mode %04o takes reading and writing from the owner",
			       options->file_mode);
	if (options->payload_max_bytes > PAYLOAD_LIMIT_BYTES)
		return err_set(err, EVBUS_CONFIG, 0, "a payload may have at most %u bytes, and %u were asked for",
			       PAYLOAD_LIMIT_BYTES, options->payload_max_bytes);
	return EVBUS_OK;
}

static void close_bus(struct evbus **bus)
{
	evbus_close(*bus);
}

static char *copy_text(const char *text)
{
	size_t size = strlen(text) + 1;
	char *copy = os.realloc(NULL, size);

	return copy ? memcpy(copy, text, size) : NULL;
}

static enum evbus_code set_alive(struct evbus *bus, struct evbus_err *err)
{
	void *page = os.mmap(NULL, ALIVE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (page == MAP_FAILED)
		return err_set(err, EVBUS_IO, errno, "cannot open the bus '%s'", bus->path);
	bus->alive = page;
	/* Where the kernel cannot (before Linux 4.14) a forked child is not told. */
	madvise(page, ALIVE_BYTES, MADV_WIPEONFORK);
	*bus->alive = 1;
	return EVBUS_OK;
}

static void name_root(struct evbus *bus)
{
	bus->root.fd = -1;
	bus->root.file_mode = bus->options.file_mode ? bus->options.file_mode : 0600;
	bus->root.dir_mode = bus->root.file_mode | (bus->root.file_mode & 0444) >> 2;
	bus->root.notice = bus->options.notice;
	bus->root.notice_context = bus->options.notice_context;
}

enum evbus_code evbus_open(const char *url, const struct evbus_options *options, struct evbus **bus,
			   struct evbus_err *err)
{
	const char *path;
	CLEANUP(close_bus) struct evbus *opened = NULL;

	TRY(parse_url(url, &path, err));
	opened = os.realloc(NULL, sizeof *opened);
	if (!opened)
		return err_set(err, EVBUS_IO, ENOMEM, "cannot open the bus '%s'", url);
	*opened = (struct evbus){ .root = { .fd = -1 } };
	if (options)
		opened->options = *options;
	TRY(check_options(&opened->options, err));
	opened->path = copy_text(path);
	opened->store_url = opened->options.store ? copy_text(opened->options.store) : NULL;
	if (!opened->path || (opened->options.store && !opened->store_url))
		return err_set(err, EVBUS_IO, ENOMEM, "cannot open the bus '%s'", url);
	opened->options.store = opened->store_url;
	name_root(opened);
	TRY(set_alive(opened, err));
	enum evbus_code code = bus_root(opened, false, err);
	if (code != EVBUS_OK && code != EVBUS_NONE)
		return code;
	GIVE(bus, opened);
	return EVBUS_OK;
}

void evbus_close(struct evbus *bus)
{
	if (!bus)
		return;
	evbus_publisher_close(bus->publisher);
	store_close(bus->store);
	root_close(&bus->root);
	if (bus->alive)
		munmap(bus->alive, ALIVE_BYTES);
	free(bus->path);
	free(bus->store_url);
	free(bus);
}

enum evbus_code bus_check(const struct evbus *bus, struct evbus_err *err)
{
	if (*bus->alive)
		return EVBUS_OK;
	return err_set(err, EVBUS_BUG, 0, "this handle was opened before a fork: open the bus in the child");
}

enum evbus_code bus_root(struct evbus *bus, bool create, struct evbus_err *err)
{
	TRY(bus_check(bus, err));
	if (bus->root.fd >= 0)
		return EVBUS_OK;
	return root_open(&bus->root, bus->path, create && !bus->options.no_create, err);
}

enum evbus_code bus_open_store(struct evbus *bus, struct store **store, struct evbus_err *err)
{
	struct store_options options = { .no_create = bus->options.no_create, .file_mode = bus->root.file_mode,
					 .notice = bus->options.notice,
					 .notice_context = bus->options.notice_context };

	TRY(bus_check(bus, err));
	if (bus->store_url)
		return store_open(AT_FDCWD, bus->store_url, &options, store, err);
	TRY(bus_root(bus, false, err));
	return store_open(bus->root.fd, "sqlite:.evbus/state.db", &options, store, err);
}

enum evbus_code bus_store(struct evbus *bus, struct evbus_err *err)
{
	TRY(bus_check(bus, err));
	return bus->store ? EVBUS_OK : bus_open_store(bus, &bus->store, err);
}

uint32_t bus_payload_max(const struct evbus *bus)
{
	return bus->options.payload_max_bytes ? bus->options.payload_max_bytes : EVBUS_PAYLOAD_MAX_BYTES;
}

/* ---- topics ---- */

enum evbus_code evbus_topic_create(struct evbus *bus, const char *topic, const struct evbus_topic_options *options,
				   bool *created, struct evbus_err *err)
{
	CLEANUP(topic_close) struct topic opened = { .fd = -1 };

	TRY(bus_check(bus, err));
	TRY(evbus_topic_check(topic, false, err));
	TRY(bus_root(bus, true, err));
	TRY(topic_create(&bus->root, topic, options, &opened, created, err));
	/* It is promised now, also where somebody else made it. */
	return topic_sync_names(&opened, err);
}

enum evbus_code evbus_topic_list(struct evbus *bus, const char *pattern, char ***names, struct evbus_err *err)
{
	TRY(bus_check(bus, err));
	if (pattern)
		TRY(evbus_topic_check(pattern, true, err));
	TRY(bus_root(bus, false, err));
	return topic_names(&bus->root, pattern, names, err);
}

enum evbus_code evbus_topic_describe(struct evbus *bus, const char *topic, int32_t partition_id,
				     struct evbus_partition_info *info, struct evbus_err *err)
{
	CLEANUP(topic_close) struct topic opened = { .fd = -1 };
	CLEANUP(cursor_close) struct cursor cursor = { .fd = -1, .control = { .fd = -1 } };
	uint64_t bytes;

	TRY(bus_root(bus, false, err));
	TRY(topic_open(&bus->root, topic, &opened, err));
	TRY(cursor_open(&opened, partition_id, DESCRIBE_CHUNK, &cursor, err));
	TRY(cursor_bytes_total(&cursor, &bytes, err));
	/* Opens the live segment at its end: one that was cut is told, not described. */
	TRY(cursor_seek(&cursor, cursor.durable.next, err));
	*info = (struct evbus_partition_info){
		.partitions = opened.partitions,
		.segment_max_bytes = opened.segment_max_bytes,
		.records = cursor.durable.next - cursor.first,
		.bytes = bytes,
		.offset_kind = "file_line",
		.acknowledgement = "on disk: fdatasync has returned",
	};
	memcpy(info->log_id, opened.log_id, sizeof opened.log_id);
	snprintf(info->first_offset, sizeof info->first_offset, "%llu", (unsigned long long)cursor.first);
	snprintf(info->next_offset, sizeof info->next_offset, "%llu", (unsigned long long)cursor.durable.next);
	if (info->records)
		evbus_time_format(cursor.durable.time_us, info->last_published_at_utc);
	return EVBUS_OK;
}

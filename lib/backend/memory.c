/* memory.c: topics in the memory of one process, for tests and for programs that want to hand events around.
 *
 * A partition is a ring of lines. What is appended is there for everybody at once, and stays until the ring needs
 * its room: then the oldest go, and who asks for one of them is told. memory: is a bus of its own handle;
 * memory:NAME is the one of that name in the process, of all who have it open, for a handle belongs to one thread. */
#include "backend/memory.h"

#include "backend/names.h"
#include "log/line.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#define RING_DEFAULT_BYTES (16u * 1024 * 1024)    /* taken as they are needed */
#define RING_MIN_BYTES LINE_MAX_BYTES             /* each line has to fit */
#define RING_MAX_BYTES (1024u * 1024 * 1024)

struct memory_bus {
	struct memory_bus *following;    /* of those that have a name */
	unsigned handles;
	pthread_mutex_t mutex;           /* of the list of topics, which only grows */
	struct memory_topic *topics;
	size_t ring_bytes;
	char name[];
};

struct memory_backend {
	struct backend base;
	struct memory_bus *bus;
	pid_t process;
	bool no_create;
};

static pthread_mutex_t names_mutex = PTHREAD_MUTEX_INITIALIZER;
static struct memory_bus *named;

static struct memory_backend *memory_of(struct backend *backend)
{
	return (struct memory_backend *)(void *)backend;
}

/* ---- the bus ---- */

static void topic_free(struct memory_topic *topic)
{
	for (uint32_t i = 0; i < topic->base.partitions; i++)
		ring_release(&topic->rings[i]);
	free(topic);
}

static void bus_free(struct memory_bus *bus)
{
	for (struct memory_topic *topic = bus->topics, *following; topic; topic = following) {
		following = topic->following;
		topic_free(topic);
	}
	pthread_mutex_destroy(&bus->mutex);
	free(bus);
}

static void memory_close(struct backend *backend)
{
	struct memory_backend *memory = memory_of(backend);
	struct memory_bus *bus = memory->bus, **at = &named;

	/* In a forked child a thread that is not there may hold any of the locks; nothing here outlives the process. */
	if (memory->process == getpid()) {
		pthread_mutex_lock(&names_mutex);
		bool last = --bus->handles == 0;
		while (last && *at && *at != bus)
			at = &(*at)->following;
		if (last && *at)
			*at = bus->following;
		pthread_mutex_unlock(&names_mutex);
		if (last)
			bus_free(bus);
	}
	free(memory);
}

static enum evbus_code parse_bytes(const char *url, const char *options, size_t *bytes, struct evbus_err *err)
{
	struct evbus_slice digits = { options, strlen(options) };
	uint64_t value = RING_DEFAULT_BYTES;

	if (digits.len && strncmp(options, "?bytes=", 7) == 0)
		digits = (struct evbus_slice){ options + 7, digits.len - 7 };
	else if (digits.len)
		return err_set(err, EVBUS_CONFIG, 0, "the bus '%s' has options other than ?bytes=N", url);
	if (digits.len || *options) {
		if (!decimal_parse(digits, &value) || value < RING_MIN_BYTES || value > RING_MAX_BYTES)
			return err_set(err, EVBUS_CONFIG, 0,
				       "the bus '%s' cannot have so many bytes for each partition: from %u to %u", url,
				       RING_MIN_BYTES, RING_MAX_BYTES);
	}
	*bytes = (size_t)value;
	return EVBUS_OK;
}

static struct memory_bus *find_bus(const char *name, size_t len)
{
	struct memory_bus *bus = len ? named : NULL;

	while (bus && (strlen(bus->name) != len || memcmp(bus->name, name, len) != 0))
		bus = bus->following;
	return bus;
}

static struct memory_bus *make_bus(const char *name, size_t len, size_t bytes)
{
	struct memory_bus *bus = os.realloc(NULL, sizeof *bus + len + 1);

	if (!bus)
		return NULL;
	*bus = (struct memory_bus){ .ring_bytes = bytes };
	memcpy(bus->name, name, len);
	bus->name[len] = '\0';
	pthread_mutex_init(&bus->mutex, NULL);
	if (len) {
		bus->following = named;
		named = bus;
	}
	return bus;
}

static enum evbus_code memory_open(const char *url, const char *rest, const struct backend_options *options,
				   struct backend **backend, struct evbus_err *err)
{
	size_t len = strcspn(rest, "?"), bytes = 0;

	TRY(parse_bytes(url, rest + len, &bytes, err));
	struct memory_backend *memory = os.realloc(NULL, sizeof *memory);
	pthread_mutex_lock(&names_mutex);
	struct memory_bus *bus = find_bus(rest, len);
	size_t has = bus ? bus->ring_bytes : bytes;
	if (!bus && memory)
		bus = make_bus(rest, len, bytes);
	bool fits = memory && bus && (bytes == has || !rest[len]);
	if (fits)
		bus->handles++;
	pthread_mutex_unlock(&names_mutex);
	if (!fits) {
		bool no_memory = !memory || !bus;
		free(memory);
		if (no_memory)
			return err_set(err, EVBUS_IO, ENOMEM, "cannot open the bus '%s'", url);
		return err_set(err, EVBUS_CONFLICT, 0, "the bus '%s' is there with %zu bytes for each partition", url,
			       has);
	}
	*memory = (struct memory_backend){ { &backend_memory }, bus, getpid(), options->no_create };
	*backend = &memory->base;
	return EVBUS_OK;
}

static enum evbus_code memory_ready(struct backend *backend, bool create, struct evbus_err *err)
{
	(void)backend;
	(void)create;
	(void)err;
	return EVBUS_OK;
}

/* ---- topics ---- */

/* With the bus's mutex held. */
static struct memory_topic *find_topic(const struct memory_bus *bus, const char *name)
{
	struct memory_topic *topic = bus->topics;

	while (topic && strcmp(topic->name, name) != 0)
		topic = topic->following;
	return topic;
}

static enum evbus_code memory_topic_open(struct backend *backend, const char *name, struct backend_topic **topic,
					 struct evbus_err *err)
{
	struct memory_bus *bus = memory_of(backend)->bus;

	pthread_mutex_lock(&bus->mutex);
	struct memory_topic *found = find_topic(bus, name);
	pthread_mutex_unlock(&bus->mutex);
	if (!found)
		return err_set(err, EVBUS_NONE, 0, "there is no topic '%s'", name);
	*topic = &found->base;
	return EVBUS_OK;
}

static enum evbus_code make_topic(struct memory_bus *bus, const char *name, uint32_t partitions,
				  struct memory_topic **topic, struct evbus_err *err)
{
	struct memory_topic *made = os.realloc(NULL, sizeof *made + partitions * sizeof *made->rings);
	unsigned char id[16];

	if (!made)
		return err_set(err, EVBUS_IO, ENOMEM, "cannot make topic '%s'", name);
	if (os.getrandom(id, sizeof id, 0) != (ssize_t)sizeof id) {
		free(made);
		return err_set(err, EVBUS_IO, errno, "cannot get random bytes");
	}
	*made = (struct memory_topic){
		.base = { .ops = &backend_memory,
			  .name = made->name,
			  .log_id = made->log_id,
			  .partitions = partitions,
			  .segment_max_bytes = bus->ring_bytes },
		.following = bus->topics,
	};
	snprintf(made->name, sizeof made->name, "%s", name);
	for (size_t i = 0; i < sizeof id; i++)
		snprintf(made->log_id + 2 * i, 3, "%02x", id[i]);
	for (uint32_t i = 0; i < partitions; i++)
		ring_init(&made->rings[i], bus->ring_bytes);
	*topic = bus->topics = made;
	return EVBUS_OK;
}

static enum evbus_code memory_topic_create(struct backend *backend, const char *name,
					   const struct evbus_topic_options *options, struct backend_topic **topic,
					   bool *created, struct evbus_err *err)
{
	static const struct evbus_topic_options none;
	struct memory_bus *bus = memory_of(backend)->bus;
	enum evbus_code code = EVBUS_OK;

	options = options ? options : &none;
	if (options->partitions > EVBUS_PARTITIONS_MAX)
		return err_set(err, EVBUS_USAGE, 0, "a topic has at most %d partitions, not %u", EVBUS_PARTITIONS_MAX,
			       options->partitions);
	if (options->segment_max_bytes)
		return err_set(err, EVBUS_CONFIG, 0, "a topic in memory has no segments: leave their size out");
	pthread_mutex_lock(&bus->mutex);
	struct memory_topic *found = find_topic(bus, name);
	bool made = !found;
	if (made && memory_of(backend)->no_create)
		code = err_set(err, EVBUS_NONE, 0, "there is no topic '%s'", name);
	else if (made)
		code = make_topic(bus, name, options->partitions ? options->partitions : 1, &found, err);
	pthread_mutex_unlock(&bus->mutex);
	TRY(code);
	if (options->partitions && options->partitions != found->base.partitions)
		return err_set(err, EVBUS_CONFLICT, 0, "topic '%s' is there with %u partition%s, not %u", name,
			       found->base.partitions, found->base.partitions == 1 ? "" : "s", options->partitions);
	*created = made;
	*topic = &found->base;
	return EVBUS_OK;
}

/* It is the bus's. */
static void memory_topic_close(struct backend_topic *topic)
{
	(void)topic;
}

static enum evbus_code memory_topic_keep(const struct backend_topic *topic, struct evbus_err *err)
{
	(void)topic;
	(void)err;
	return EVBUS_OK;
}

static enum evbus_code memory_topic_check(struct backend_topic *topic, const char *doing, struct evbus_err *err)
{
	(void)doing;
	return memory_topic_keep(topic, err);
}

static enum evbus_code memory_topic_names(struct backend *backend, const char *pattern, char ***names,
					  struct evbus_err *err)
{
	struct memory_bus *bus = memory_of(backend)->bus;
	CLEANUP(buf_release) struct buf found = { 0 };

	pthread_mutex_lock(&bus->mutex);
	const struct memory_topic *topic = bus->topics;
	pthread_mutex_unlock(&bus->mutex);
	for (; topic; topic = topic->following)
		TRY(names_add(&found, pattern, (struct evbus_slice){ topic->name, strlen(topic->name) }, err));
	return names_give(&found, names, err);
}

const struct backend_ops backend_memory = {
	.version = BACKEND_VERSION,
	.scheme = "memory",
	.offset_kind = "memory_index",
	.acknowledgement = "in the memory of this process, and gone with it",
	.idempotence = "one record of each key, also where several publish at once, as long as a key has one partition",
	.keeps_lines = true,
	.expects = true,
	.open = memory_open,
	.close = memory_close,
	.ready = memory_ready,
	.topic_open = memory_topic_open,
	.topic_create = memory_topic_create,
	.topic_close = memory_topic_close,
	.topic_keep = memory_topic_keep,
	.topic_check = memory_topic_check,
	.topic_names = memory_topic_names,
	.reader_open = memory_reader_open,
	.reader_close = memory_reader_close,
	.seek = memory_seek,
	.seek_time = memory_seek_time,
	.next = memory_next,
	.refresh = memory_refresh,
	.wait = memory_wait,
	.bytes_left = memory_bytes_left,
	.describe = memory_describe,
	.writer_open = memory_writer_open,
	.writer_close = memory_writer_close,
	.append = memory_append,
	.commit = memory_commit,
};

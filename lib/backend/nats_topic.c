/* nats_topic.c: topics as streams.
 *
 * Partition 1 of the topic orders.v1 is the stream PREFIX=orders=v1=1, as the name of a stream has no dot, and '=' stands
 * in no topic. Its subject is PREFIX.orders.v1.1. A topic is there when the stream of its partition 0 is, which is made
 * last, and whose description says how many partitions there are; of several who make it at once one wins. */
#include "backend/nats.h"

#include "backend/names.h"
#include "event/subject.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#define NAME_IN_USE 10058 /* of the server's API: with another configuration */
/* Of the stream of partition 0; what stands behind it is their number. No JSON: libnats escapes no quotes in it. */
#define DESCRIPTION "evbus partitions="
#define NONCE_BYTES 16u
#define PREFIX_ROOM 80u /* for a prefix and what stands behind it */

/* ---- names ----------------------------------------------------------------------------------------------------- */

/* false: it is too long for the server. */
static bool name_place(const struct nats_backend *nats, const char *topic, uint32_t partition, struct nats_place *place)
{
	int len = snprintf(place->stream, sizeof place->stream, "%s=%s=%u", nats->prefix, topic, partition);

	for (char *at = place->stream; *at; at++)
		if (*at == '.')
			*at = '=';
	snprintf(place->subject, sizeof place->subject, "%s.%s.%u", nats->prefix, topic, partition);
	return len > 0 && (size_t)len < sizeof place->stream;
}

enum evbus_code nats_place_of(const struct backend_topic *topic, int32_t partition, struct nats_place *place,
			      struct evbus_err *err)
{
	const struct nats_topic *opened = nats_topic_of(topic);

	if (!topic_has_partition(topic, partition))
		return topic_no_partition(topic, partition, err);
	if (!opened->nats->stream) {
		(void)name_place(opened->nats, topic->name, (uint32_t)partition, place);
		return EVBUS_OK;
	}
	snprintf(place->stream, sizeof place->stream, "%s", opened->nats->stream);
	snprintf(place->subject, sizeof place->subject, "%s", opened->subject);
	return EVBUS_OK;
}

static enum evbus_code is_only_topic(const struct nats_backend *nats, const char *name, struct evbus_err *err)
{
	if (!nats->stream || !strcmp(nats->only_topic, name))
		return EVBUS_OK;
	return err_set(err, EVBUS_NONE, 0, "there is no topic '%s': on the stream '%s' there is one, '%s'", name,
		       nats->stream, nats->only_topic);
}

/* ---- looking --------------------------------------------------------------------------------------------------- */

enum evbus_code nats_look(const struct nats_backend *nats, const char *stream, jsStreamInfo **info,
			  struct evbus_err *err)
{
	struct nats_question question;
	natsStatus status;
	jsErrCode why = 0;

	nats_question_begin(nats, &question);
	do
		status = js_GetStreamInfo(info, nats->streams, stream, &question.options, &why);
	while (nats_question_again(nats, &question, stream, &status));
	if (status == NATS_OK)
		return EVBUS_OK;
	return nats_failed(nats, status, why, err, "cannot look at stream '%s'", stream);
}

void nats_look_done(jsStreamInfo **info)
{
	jsStreamInfo_Destroy(*info);
}

/* 64-bit FNV-1a. */
static uint64_t hash_of(const char *text)
{
	uint64_t hash = 0xcbf29ce484222325;

	for (; *text; text++)
		hash = (hash ^ (unsigned char)*text) * 0x100000001b3;
	return hash;
}

/* Of the texts that are there for ever. */
static const char *acknowledgement_of(const jsStreamConfig *config)
{
	static const char *const texts[] = {
		"stored by the server in a file, and not synced yet: what stops its machine may lose it",
		"stored by a majority of 2 servers in files, and not synced yet: what stops their machines may lose it",
		"stored by a majority of 3 servers in files, and not synced yet: what stops their machines may lose it",
		"stored by a majority of 4 servers in files, and not synced yet: what stops their machines may lose it",
		"stored by a majority of 5 servers in files, and not synced yet: what stops their machines may lose it",
	};
	size_t replicas = config->Replicas > 0 ? (size_t)config->Replicas : 1;

	if (config->Storage == js_MemoryStorage)
		return "in the memory of the server, and gone with it";
	return texts[replicas <= sizeof texts / sizeof *texts ? replicas - 1 : sizeof texts / sizeof *texts - 1];
}

/* How many partitions a description says that there are, 0: it is not one of ours. */
static uint32_t partitions_of(const char *description)
{
	size_t mark = strlen(DESCRIPTION);
	uint64_t count = 0;

	if (!description || strncmp(description, DESCRIPTION, mark) != 0)
		return 0;
	struct evbus_slice digits = { description + mark, strspn(description + mark, "0123456789") };
	return decimal_parse(digits, &count) && count <= EVBUS_PARTITIONS_MAX ? (uint32_t)count : 0;
}

/* Where to publish: to the first subject of the stream that is one and not many. */
static void choose_subject(struct nats_topic *topic, const jsStreamConfig *config)
{
	const char *chosen = topic->nats->subject;

	for (int i = 0; !chosen && i < config->SubjectsLen; i++)
		if (!strpbrk(config->Subjects[i], "*>") && strlen(config->Subjects[i]) < sizeof topic->subject)
			chosen = config->Subjects[i];
	snprintf(topic->subject, sizeof topic->subject, "%s", chosen ? chosen : "");
}

static enum evbus_code take_info(struct nats_topic *topic, const char *stream, const jsStreamInfo *info,
				 struct evbus_err *err)
{
	const jsStreamConfig *config = info->Config;
	bool bound = topic->nats->stream != NULL;

	topic->base.partitions = bound ? 1 : partitions_of(config->Description);
	if (!topic->base.partitions)
		return err_set(err, EVBUS_CONFLICT, 0,
			       "the stream '%s' was not made by evbus: read it with stream=%s in the URL, or choose "
			       "another prefix",
			       stream, stream);
	if (bound)
		choose_subject(topic, config);
	topic->created_ns = info->Created;
	topic->window_ms = config->Duplicates / 1000000;
	topic->base.acknowledgement = acknowledgement_of(config);
	snprintf(topic->log_id, sizeof topic->log_id, "%016" PRIx64 "%016" PRIx64, (uint64_t)info->Created,
		 hash_of(stream));
	return EVBUS_OK;
}

/* ---- opening --------------------------------------------------------------------------------------------------- */

void nats_topic_close(struct backend_topic *topic)
{
	free(topic);
}

/* The stream that says what a topic is. */
static enum evbus_code anchor_of(const struct nats_backend *nats, const char *name, struct nats_place *place,
				 struct evbus_err *err)
{
	if (nats->stream) {
		snprintf(place->stream, sizeof place->stream, "%s", nats->stream);
		return EVBUS_OK;
	}
	/* So long that no other partition's is longer. */
	if (!name_place(nats, name, EVBUS_PARTITIONS_MAX, place))
		return err_set(err, EVBUS_USAGE, 0,
			       "topic '%s' is too long for the name of a stream, which has at most %u bytes with '%s'",
			       name, STREAM_NAME_MAX - 1, nats->prefix);
	(void)name_place(nats, name, 0, place);
	return EVBUS_OK;
}

enum evbus_code nats_topic_open(struct backend *backend, const char *name, struct backend_topic **topic,
				struct evbus_err *err)
{
	struct nats_backend *nats = nats_of(backend);
	CLEANUP(nats_look_done) jsStreamInfo *info = NULL;
	CLEANUP(free_cleanup) struct nats_topic *opened = NULL;
	struct nats_place place = { 0 };

	TRY(is_only_topic(nats, name, err));
	TRY(anchor_of(nats, name, &place, err));
	enum evbus_code code = nats_look(nats, place.stream, &info, err);
	if (code == EVBUS_NONE)
		return err_set(err, EVBUS_NONE, 0, "there is no topic '%s': '%s' has no stream '%s'", name,
			       nats->url.shown, place.stream);
	TRY(code);
	opened = os.realloc(NULL, sizeof *opened);
	if (!opened)
		return err_set(err, EVBUS_IO, ENOMEM, "cannot open topic '%s'", name);
	*opened = (struct nats_topic){
		.base = { .ops = &backend_nats,
			  .name = opened->name,
			  .log_id = opened->log_id,
			  .segment_max_bytes = UINT64_MAX },
		.nats = nats,
	};
	snprintf(opened->name, sizeof opened->name, "%s", name);
	TRY(take_info(opened, place.stream, info, err));
	*topic = &opened->base;
	opened = NULL;
	return EVBUS_OK;
}

/* The server answers when it has written it down. */
enum evbus_code nats_topic_keep(const struct backend_topic *topic, struct evbus_err *err)
{
	(void)topic;
	(void)err;
	return EVBUS_OK;
}

enum evbus_code nats_topic_check(struct backend_topic *topic, const char *doing, struct evbus_err *err)
{
	const struct nats_topic *opened = nats_topic_of(topic);
	CLEANUP(nats_look_done) jsStreamInfo *info = NULL;
	struct nats_place place = { 0 };

	TRY(nats_place_of(topic, 0, &place, err));
	enum evbus_code code = nats_look(opened->nats, place.stream, &info, err);
	if (code == EVBUS_OK && info->Created == opened->created_ns) {
		uint32_t says = opened->nats->stream ? 0 : partitions_of(info->Config->Description);
		topic->partitions = says > topic->partitions ? says : topic->partitions;
		return EVBUS_OK;
	}
	if (code != EVBUS_OK && code != EVBUS_NONE)
		return code;
	return err_set(err, EVBUS_CONFLICT, 0, "topic '%s' was %s while it was %s: its stream is '%s'", topic->name,
		       code == EVBUS_OK ? "removed and made again" : "removed", doing, place.stream);
}

/* ---- making ---------------------------------------------------------------------------------------------------- */

/* *used: it is there, with another configuration. */
static enum evbus_code add_stream(const struct nats_backend *nats, const struct nats_place *place,
				  const char *description, bool *used, struct evbus_err *err)
{
	const char *subjects[] = { place->subject };
	struct nats_question question;
	jsStreamConfig config;
	natsStatus status;
	jsErrCode why = 0;

	jsStreamConfig_Init(&config);
	config.Name = place->stream;
	config.Subjects = subjects;
	config.SubjectsLen = 1;
	config.Description = description;
	config.Storage = js_FileStorage;
	config.Retention = js_LimitsPolicy;
	config.Replicas = (int64_t)nats->replicas;
	config.Duplicates = (int64_t)nats->window_s * 1000000000;
	/* A second time it is the same stream. */
	nats_question_begin(nats, &question);
	do
		status = js_AddStream(NULL, nats->streams, &config, &question.options, &why);
	while (nats_question_again(nats, &question, place->stream, &status));
	*used = status != NATS_OK && why == NAME_IN_USE;
	if (status == NATS_OK || *used)
		return EVBUS_OK;
	return nats_failed(nats, status, why, err, "cannot make stream '%s'", place->stream);
}

/* What makes who made it tell himself from others who are about to. */
static enum evbus_code make_nonce(char text[2 * NONCE_BYTES + 1], struct evbus_err *err)
{
	unsigned char bytes[NONCE_BYTES];

	if (os.getrandom(bytes, sizeof bytes, 0) != (ssize_t)sizeof bytes)
		return err_set(err, EVBUS_IO, errno, "cannot get random bytes");
	for (size_t i = 0; i < sizeof bytes; i++)
		snprintf(text + 2 * i, 3, "%02x", bytes[i]);
	return EVBUS_OK;
}

/* *made false: somebody else has done so. */
static enum evbus_code make_topic(const struct nats_backend *nats, const char *name, uint32_t partitions, bool *made,
				  struct evbus_err *err)
{
	char nonce[2 * NONCE_BYTES + 1], description[128];
	struct nats_place place = { 0 };
	bool used = false;

	TRY(make_nonce(nonce, err));
	TRY(anchor_of(nats, name, &place, err));
	/* One that is there is of somebody who makes the topic too, or did not come to its end: it is the same. */
	for (uint32_t i = partitions - 1; i > 0; i--) {
		(void)name_place(nats, name, i, &place);
		TRY(add_stream(nats, &place, "evbus", &used, err));
	}
	(void)name_place(nats, name, 0, &place);
	snprintf(description, sizeof description, DESCRIPTION "%u made=%s", partitions, nonce);
	TRY(add_stream(nats, &place, description, &used, err));
	*made = !used;
	return EVBUS_OK;
}

enum evbus_code nats_topic_create(struct backend *backend, const char *name, const struct evbus_topic_options *options,
				  struct backend_topic **topic, bool *created, struct evbus_err *err)
{
	static const struct evbus_topic_options none;
	struct nats_backend *nats = nats_of(backend);
	bool made = false;

	options = options ? options : &none;
	if (options->partitions > EVBUS_PARTITIONS_MAX)
		return err_set(err, EVBUS_USAGE, 0, "a topic has at most %d partitions, not %u", EVBUS_PARTITIONS_MAX,
			       options->partitions);
	if (options->segment_max_bytes)
		return err_set(err, EVBUS_CONFIG, 0, "a topic of NATS has no segments: leave their size out");
	enum evbus_code code = nats_topic_open(backend, name, topic, err);
	if (code == EVBUS_NONE && !nats->no_create && !nats->stream) {
		TRY(make_topic(nats, name, options->partitions ? options->partitions : 1, &made, err));
		code = nats_topic_open(backend, name, topic, err);
	}
	TRY(code);
	uint32_t has = (*topic)->partitions;
	if (!options->partitions || options->partitions == has) {
		*created = made;
		return EVBUS_OK;
	}
	nats_topic_close(*topic);
	*topic = NULL;
	return err_set(err, EVBUS_CONFLICT, 0, "topic '%s' is there with %u partition%s, not %u", name, has,
		       has == 1 ? "" : "s", options->partitions);
}

/* ---- listing --------------------------------------------------------------------------------------------------- */

/* The topic of which a stream is partition 0; "": of none. */
static void topic_of(const struct nats_backend *nats, const char *stream, char topic[STREAM_NAME_MAX])
{
	size_t prefix = strlen(nats->prefix), len = strlen(stream);

	topic[0] = '\0';
	if (len >= STREAM_NAME_MAX || len < prefix + 3 || strncmp(stream, nats->prefix, prefix) != 0 ||
	    stream[prefix] != '=' || strcmp(stream + len - 2, "=0") != 0)
		return;
	snprintf(topic, STREAM_NAME_MAX, "%.*s", (int)(len - 2 - prefix - 1), stream + prefix + 1);
	for (char *at = topic; *at; at++)
		if (*at == '=')
			*at = '.';
	if (subject_check_name("topic", topic, NULL) != EVBUS_OK)
		topic[0] = '\0';
}

static void names_done(jsStreamNamesList **list)
{
	jsStreamNamesList_Destroy(*list);
}

static enum evbus_code list_streams(const struct nats_backend *nats, jsStreamNamesList **list, struct evbus_err *err)
{
	char below[PREFIX_ROOM];
	struct nats_question question;
	natsStatus status;
	jsErrCode why = 0;

	snprintf(below, sizeof below, "%s.>", nats->prefix);
	nats_question_begin(nats, &question);
	question.options.Stream.Info.SubjectsFilter = below;
	do
		status = js_StreamNames(list, nats->streams, &question.options, &why);
	while (nats_question_again(nats, &question, "STREAM.NAMES", &status));
	if (status == NATS_OK || (status == NATS_NOT_FOUND && !why))
		return EVBUS_OK;
	return nats_failed(nats, status, why, err, "cannot list the topics");
}

enum evbus_code nats_topic_names(struct backend *backend, const char *pattern, char ***names, struct evbus_err *err)
{
	struct nats_backend *nats = nats_of(backend);
	CLEANUP(names_done) jsStreamNamesList *list = NULL;
	CLEANUP(buf_release) struct buf found = { 0 };
	char topic[STREAM_NAME_MAX];

	if (nats->stream) {
		TRY(names_add(&found, pattern, (struct evbus_slice){ nats->only_topic, strlen(nats->only_topic) },
			      err));
		return names_give(&found, names, err);
	}
	TRY(list_streams(nats, &list, err));
	for (int i = 0; list && i < list->Count; i++) {
		topic_of(nats, list->List[i], topic);
		if (*topic)
			TRY(names_add(&found, pattern, (struct evbus_slice){ topic, strlen(topic) }, err));
	}
	return names_give(&found, names, err);
}

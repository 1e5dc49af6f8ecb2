/* config_judge.h: what the readers of a configuration share; config_judge.c has what is wrong and where, config_entries.c
 * outboxes and partitionings, config_read.c the rest. */
#ifndef EVBUS_CONFIG_JUDGE_H
#define EVBUS_CONFIG_JUDGE_H

#include "config.h"

#define TEXT_MAX_BYTES 4096u               /* of what is put together: an outbox's map, a list of pointers, a URL */

/* Where bus and its longer form were said, on the top level or in the profile. */
struct place_of_bus {
	const struct node *url, *kind, *root, *address;
};

struct judge {
	struct config *config;
	const struct evbus_config_options *options;
	struct place_of_bus top, profile;
	struct evbus_err *err;
};

/* A map of the file that is being read. */
struct level {
	struct judge *judge;
	struct place_of_bus *bus;
	bool of_profile;
	bool keep;                         /* else it is only judged */
};

/* Fails with EVBUS_CONFIG and FILE:LINE:COLUMN of the node. */
enum evbus_code wrong(const struct judge *judge, const struct node *node, const char *format, ...)
	__attribute__((format(printf, 3, 4)));
/* names, more: what there could be instead; end with NULL, or are NULL. */
enum evbus_code unknown_key(const struct judge *judge, const struct node *key, const char *const *names,
			    const char *const *more);

/* retry_max is retry-max. */
bool same_name(const char *a, const char *b);

/* NODE_TEXT is one that is not empty. what: of whom it is the value. */
CHECKED enum evbus_code check_shape(const struct judge *judge, const struct node *value, const char *what,
				    enum node_kind wanted);
/* A map whose keys are texts, none of them twice. Nothing is an empty one: "local:" is a profile that changes nothing. */
CHECKED enum evbus_code check_map(const struct judge *judge, const struct node *value, const char *what);

struct text {
	char data[TEXT_MAX_BYTES];
	size_t len;
};

/* at: what is told of where there is too much. */
CHECKED enum evbus_code append(const struct judge *judge, const struct node *at, struct text *text, const char *more);
/* A copy that lives as long as the configuration. */
CHECKED enum evbus_code keep_text(const struct judge *judge, const struct text *text, const char **kept);

/* Whether a list of settings, outboxes or partitionings has one of the name. What the profile says is kept first, and so
 * beats the rest. */
bool is_kept(const void *items, size_t count, size_t size, const char *name);

CHECKED enum evbus_code read_outboxes(const struct level *level, const struct node *key);
CHECKED enum evbus_code read_partitionings(const struct level *level, const struct node *key);

/* Reads each entry of the map that is the value of key; their keys are names that are good for one. */
CHECKED enum evbus_code read_entries(const struct level *level, const struct node *key,
				     enum evbus_code (*read)(const struct level *level, const struct node *key));

#endif

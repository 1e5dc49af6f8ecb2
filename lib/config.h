/* config.h: the configuration, from a file to what it says.
 *
 * libyaml comes in only where there is a file to be read: it is in a module, config_yaml.c, which makes a tree of texts,
 * lists and maps of the file (struct tree) and leaves it to config_read.c to judge what stands there. */
#ifndef EVBUS_CONFIG_H
#define EVBUS_CONFIG_H

#include "base/err.h"

#define CONFIG_MAX_BYTES (1024u * 1024u)
#define CONFIG_DEPTH_MAX 64u               /* of the whole file, neighbours included */
#define CONFIG_NODES_MAX 100000u
#define CONFIG_KEYS_MAX 256u               /* of one map of ours, or entries of a list */
#define CONFIG_TOPICS_MAX 2048u            /* of all partitionings that hold */
#define CONFIG_NAME_MAX_BYTES 64u          /* of a profile, an outbox, a partitioning */

/* ---- what stands in the file ----------------------------------------------------------------------------------- */

enum node_kind {
	NODE_NOTHING,              /* no value at all, ~ or null */
	NODE_TEXT,                 /* any other scalar, as it was written: 0x10, no and 1e3 are texts */
	NODE_LIST,
	NODE_MAP,
	NODE_ALIAS,                /* text is the name of the anchor */
};

struct node {
	enum node_kind kind;
	bool tagged;               /* !!int 5 */
	uint32_t line, column;     /* counted from 1, in characters */
	struct node *first;        /* of a list; of a map: keys and values take turns */
	struct node *next;
	struct node *older;        /* for tree_release() */
	char text[];               /* with a NUL at its end, and none in it */
};

struct tree {
	struct node *root;         /* NULL: the file is empty */
	struct node *newest;
	size_t count;
};

/* A node of the tree; text is copied. NULL: no memory. */
struct node *tree_add(struct tree *tree, enum node_kind kind, struct evbus_slice text);
void tree_release(struct tree *tree);

/* What the module gives. name: of the file, for messages. Fails with EVBUS_CONFIG and NAME:LINE:COLUMN; the tree is to be
 * released in any case. */
struct config_driver {
	enum evbus_code (*read)(struct evbus_slice text, const char *name, struct tree *tree, struct evbus_err *err);
};

/* ---- what it says ---------------------------------------------------------------------------------------------- */

struct config {
	struct evbus_config says;  /* the first member; what it points to is in the rest */
	struct tree tree;
	struct evbus_setting settings[2 * CONFIG_KEYS_MAX];            /* of the profile and of the top level */
	struct evbus_outbox_setting outboxes[2 * CONFIG_KEYS_MAX];
	struct evbus_partitioning partitionings[2 * CONFIG_KEYS_MAX];
	const char *topics[CONFIG_TOPICS_MAX];    /* of partitionings, NULL at the end of each list */
	size_t topic_count;
};

/* Fills says from the tree. */
CHECKED enum evbus_code config_read(struct config *config, const struct evbus_config_options *options,
				    struct evbus_err *err);

/* evbus_config_open() with modules of a directory; NULL: those beside libevbus.so. */
CHECKED enum evbus_code config_open(const struct evbus_config_options *options, const char *module_dir,
				    struct evbus_config **config, struct evbus_err *err);

/* The members that events of a topic get their key from, "/merchant_id,/event_id"; NULL: no partitioning is for it, or
 * config is NULL. */
const char *config_key_from(const struct evbus_config *config, const char *topic);

#endif

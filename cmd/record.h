/* record.h: a record that evbus printed, read back. */
#ifndef RECORD_H
#define RECORD_H

#include "cmd.h"

/* "<topic>/<partition_id>/<offset>" */
#define ORIGIN_MAX_BYTES (EVBUS_TOPIC_MAX_BYTES + EVBUS_OFFSET_MAX_BYTES + 16u)

struct record {
	struct evbus_slice payload;              /* where it stands in the text; data NULL where it is null, and */
	struct evbus_slice payload_base64;       /* this is there, without quotes */
	char topic[EVBUS_TOPIC_MAX_BYTES + 1];   /* "" where absent, as in a stored line */
	int32_t partition_id;                    /* EVBUS_PARTITION_ANY where absent */
	struct evbus_slice key, origin, tenant_id, event_key; /* data NULL where absent or null */
	uint32_t returns;
	char key_text[EVBUS_KEY_MAX_BYTES];
	char origin_text[ORIGIN_MAX_BYTES];
	char tenant_text[EVBUS_TENANT_MAX_BYTES], event_key_text[EVBUS_KEY_MAX_BYTES];
};

/* text: one record in JSON, as records are printed or stored. EVBUS_DATA: it is none; err->column counts within text.
 * The payload is not looked at. */
CHECKED enum evbus_code record_read(struct evbus_slice text, struct record *record, struct evbus_err *err);

#endif

/* outbox.h: what outbox.c knows of its applications, and what must hold in the end (outbox_check.c). */
#ifndef EVBUS_TESTS_FAULT_OUTBOX_H
#define EVBUS_TESTS_FAULT_OUTBOX_H

#include "stores.h"

#define APPS 4u
#define EVENTS_MAX 20000u /* of one application */

/* What an application knows of each of its events. */
enum { NOT_YET, COMMITTED, ROLLED_BACK };
extern _Atomic unsigned char *known[APPS];

extern struct setting {
	unsigned rows; /* of each application */
	uint32_t batch;
	int64_t lease_ms;
	bool hot; /* all on one key */
	const char *journal;
} setting;

sqlite3 *open_app(void);
void check_all(void);

#endif

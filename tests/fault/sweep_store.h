/* sweep_store.h: what the sweeps of the store and of outboxes share. */
#ifndef EVBUS_TESTS_FAULT_SWEEP_STORE_H
#define EVBUS_TESTS_FAULT_SWEEP_STORE_H

#include "sweep.h"

/* Somebody else publishes and stores a checkpoint. */
void sweep_store_others(void);
/* A number that the store has, or another database; -1: there is no row. */
int64_t sweep_ask(const char *statement);
int64_t sweep_ask_in(const char *path, const char *statement);

#endif

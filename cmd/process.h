/* process.h: descriptors and signals, from the beginning to the end; for main. */
#ifndef PROCESS_H
#define PROCESS_H

#include <evbus.h>

void process_begin(void);

/* Dies of the signal that asked to stop, or returns the exit status. */
int process_end(enum evbus_code code);

#endif

/* report.h: the one line that tells of a failure; for main. */
#ifndef REPORT_H
#define REPORT_H

#include "cmd.h"

void report(struct call *call, enum evbus_code code);

/* What an exit status means in general. */
const char *status_meaning(enum evbus_code code);

#endif

/* pace.h: so many a second, evenly.
 *
 * It goes by a timetable, not by pauses: number N is due N / rate after the first, so that late wake-ups do not add up.
 * Who is far behind begins a new timetable; what was missed is not made up for in a burst. */
#ifndef PACE_H
#define PACE_H

#include "cmd.h"

struct pace {
	struct rate rate;            /* per_second 0: as fast as it goes */
	int64_t begin_ns, gone;      /* the timetable: when it began, how many it has let go */
};

int64_t monotonic_ns(void);

/* When the next one may go, on the clock of monotonic_ns(), or 0: now. */
int64_t pace_next(struct pace *pace);
/* Returns then, or when a signal asks to stop. */
void pace_wait(int64_t due_ns);

#endif

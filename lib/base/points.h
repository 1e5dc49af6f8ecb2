/* points.h: the named places in the code at which a test may stop a process, to let others go on meanwhile or to kill it
 * there: schedules that a random run meets once in a million, or never.
 *
 * os.point(name) is called at each of them, and does nothing outside of tests. None is in a loop over lines. A place is
 * listed here once; a test finds that each name of the list is used, and that none is used that is not listed. */
#ifndef EVBUS_BASE_POINTS_H
#define EVBUS_BASE_POINTS_H

#define POINTS(POINT)                                                                                                  \
	/* writing: lib/log */                                                                                         \
	POINT("topic/written") /* the description has another name yet */                                              \
	POINT("open/files") /* they are open, and no lock is taken */                                                  \
	POINT("append/locked") /* and the path is not looked at yet */                                                 \
	POINT("append/checked") /* all is as it should be, lease and lock file too: what follows is the write */       \
	POINT("append/written") /* and the page does not say so */                                                     \
	POINT("append/done") /* the lock is given back; the sync is still to come */                                   \
	POINT("commit/waits") /* another one syncs, and we are about to sleep */                                       \
	POINT("commit/locked") /* and the path is not looked at yet */                                                 \
	POINT("sync/begins") /* the page says that it does */                                                          \
	POINT("sync/ended") /* well, and nobody knows */                                                               \
	POINT("sync/failed") /* and nobody knows */                                                                    \
	POINT("cut/marked") /* after a sync that failed: the page says that there will be a cut */                     \
	POINT("cut/done") /* the file is shorter */                                                                    \
	POINT("cut/synced") /* and the mark still stands */                                                            \
	POINT("wake/begins") /* all is said, and nobody was woken */                                                   \
	POINT("roll/locked") /* both locks, and the path is not looked at yet */                                       \
	POINT("roll/synced") /* all of the segment is durable, and it is still the live one */                         \
	POINT("roll/exchanged") /* the live one is new, and the page still means the other */                          \
	POINT("recover/locked") /* both locks, and the path is not looked at yet */                                    \
	POINT("recover/copied") /* what is to be cut */                                                                \
	POINT("recover/cut") /* and the page does not say so */                                                        \
	POINT("recover/written") /* again, and not synced */                                                           \
	POINT("recover/synced") /* and the page does not say so */                                                     \
	POINT("page/written") /* a new one, all but the word by which it is known for one */                           \
	/* idempotent publishing: lib/delivery */                                                                      \
	POINT("keys/locked") /* and the path is not looked at yet */                                                   \
	POINT("keys/read") /* what is in the log is known */                                                           \
	/* delivery: lib */                                                                                            \
	POINT("outbox/claimed") /* rows are leased, and not published */                                               \
	POINT("outbox/published") /* and not marked */                                                                 \
	POINT("consume/handled") /* and not recorded */

static const char *const point_names[] = {
#define POINT_NAME(name) name,
	POINTS(POINT_NAME)
#undef POINT_NAME
};

#endif

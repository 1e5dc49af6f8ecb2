/* thread.h: threads that help along with what a caller of the library waits for. */
#ifndef EVBUS_BASE_THREAD_H
#define EVBUS_BASE_THREAD_H

#include <pthread.h>
#include <stdbool.h>

/* Signals are for the threads of the program. false: there is none. */
bool thread_start(pthread_t *thread, void *(*work)(void *), void *context);

/* That this one may run on; with a single one, two threads would only take turns. */
unsigned thread_processors(void);

#endif

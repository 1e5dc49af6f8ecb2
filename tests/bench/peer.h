/* peer.h: another system that takes events, as peer.c uses it; one connection a process. */
#ifndef BENCH_PEER_H
#define BENCH_PEER_H

#include <stddef.h>
#include <stdint.h>

struct peer {
	const char *name;
	void (*reset)(const char *where); /* makes what events go to, and empties it */
	void (*open)(const char *where); /* where: a port on 127.0.0.1, or a file */
	void (*send)(const char *event, size_t len);
	void (*settle)(size_t left); /* returns when at most so many events are not acknowledged */
	void (*follow)(void); /* what is sent from now on comes here; NULL: nobody is told of anything */
	void (*receive)(void); /* one event */
};

extern const struct peer peer_redis, peer_nats, peer_rabbitmq, peer_sqlite;

/* ---- a connection ---- */

void socket_open(const char *port);

/* Kept until what is answered is read. */
void socket_put(const void *data, size_t len);
void socket_print(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* The next line without its end (CR LF), or the next len bytes: they stand until the next call. */
char *socket_line(void);
char *socket_take(size_t len);

#endif

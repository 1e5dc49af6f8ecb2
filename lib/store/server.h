/* server.h: the URL of a store that is on a server. */
#ifndef EVBUS_STORE_SERVER_H
#define EVBUS_STORE_SERVER_H

/* As it may be shown: without user, password and options. The text takes no more room than the URL. */
void server_show(const char *url, char *text);

#endif

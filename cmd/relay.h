/* relay.h: what a command writes to stderr: its end is kept, and it goes on to our stderr. */
#ifndef RELAY_H
#define RELAY_H

#include "cmd.h"

#define RELAY_LINE_BYTES 960u        /* with --log json a longer line becomes several messages */

struct relay {
	struct about about;          /* what it is about, for --log json */
	size_t len;
	char end[EVBUS_ERROR_MAX_BYTES];
	size_t line_len;
	char line[RELAY_LINE_BYTES];
};

void relay_begin(struct relay *relay, const struct evbus_record *record);
/* Takes what can be read from fd (non-blocking), a limited amount at a time: call again when there is more. With --quiet
 * it is only kept; with --log json each line goes on as a message. false: nothing more will come. */
bool relay_read(struct relay *relay, struct call *call, int fd);
/* Passes on a line that was not ended. */
void relay_end(struct relay *relay, struct call *call);
/* What is kept, without the newlines at its end. */
struct evbus_slice relay_text(const struct relay *relay);

#endif

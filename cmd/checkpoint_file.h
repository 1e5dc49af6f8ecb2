/* checkpoint_file.h: checkpoints as a file. */
#ifndef CHECKPOINT_FILE_H
#define CHECKPOINT_FILE_H

#include "cmd.h"

/* What checkpoint-list printed as json or tsv; "-" is standard input. EVBUS_DATA names the line that is not so.
 * *checkpoints is for free(). */
CHECKED enum evbus_code checkpoints_read(struct call *call, const char *file, struct evbus_checkpoint **checkpoints,
					 size_t *count);

#endif

/* sweep.c: stub. */
#include "bus.h"

enum evbus_code evbus_sweep(struct evbus *bus, struct evbus_outbox *const *outboxes, size_t outbox_count, const struct evbus_sweep_options *options, struct evbus_sweep_result *result, struct evbus_err *err)
{
	(void)bus;
	(void)outboxes;
	(void)outbox_count;
	(void)options;
	(void)result;
	return err_set(err, EVBUS_BUG, 0, "not built yet");
}

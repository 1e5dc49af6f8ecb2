/* letters.c: stub. */
#include "bus.h"

const char *evbus_letter_state_name(enum evbus_letter_state state)
{
	(void)state;
	return "";
}

enum evbus_code evbus_letter_list(struct evbus *bus, struct evbus_outbox *const *outboxes, size_t outbox_count, const struct evbus_letter_filter *filter, enum evbus_code (*letter)(void *context, const struct evbus_letter *letter, struct evbus_err *err), void *context, struct evbus_err *err)
{
	(void)bus;
	(void)outboxes;
	(void)outbox_count;
	(void)filter;
	(void)letter;
	(void)context;
	return err_set(err, EVBUS_BUG, 0, "not built yet");
}

enum evbus_code evbus_letter_change(struct evbus *bus, struct evbus_outbox *const *outboxes, size_t outbox_count, const char *id, enum evbus_letter_change change, enum evbus_reason reason, struct evbus_slice result, const char *by, struct evbus_err *err)
{
	(void)bus;
	(void)outboxes;
	(void)outbox_count;
	(void)id;
	(void)change;
	(void)reason;
	(void)result;
	(void)by;
	return err_set(err, EVBUS_BUG, 0, "not built yet");
}

enum evbus_code evbus_letter_claim(struct evbus *bus, const char *group, struct evbus_claim **claim, struct evbus_err *err)
{
	(void)bus;
	(void)group;
	(void)claim;
	return err_set(err, EVBUS_BUG, 0, "not built yet");
}

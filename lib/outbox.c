/* outbox.c: stub. */
#include "outbox.h"

const char *evbus_outbox_state_name(enum evbus_outbox_state state)
{
	(void)state;
	return "";
}

enum evbus_code evbus_outbox_open(struct evbus *bus, const char *url, const struct evbus_outbox_options *options, struct evbus_outbox **outbox, struct evbus_err *err)
{
	(void)bus;
	(void)url;
	(void)options;
	(void)outbox;
	return err_set(err, EVBUS_BUG, 0, "not built yet");
}

void evbus_outbox_close(struct evbus_outbox *outbox)
{
	(void)outbox;
}

const char *evbus_outbox_name(const struct evbus_outbox *outbox)
{
	(void)outbox;
	return "";
}

enum evbus_code evbus_outbox_init(struct evbus_outbox *outbox, bool *made, bool *wal, struct evbus_err *err)
{
	(void)outbox;
	(void)made;
	(void)wal;
	return err_set(err, EVBUS_BUG, 0, "not built yet");
}

const char *evbus_outbox_insert_sql(const struct evbus_outbox *outbox)
{
	(void)outbox;
	return "";
}

enum evbus_code evbus_outbox_add(struct evbus_outbox *outbox, const struct evbus_outbox_row *row, struct evbus_err *err)
{
	(void)outbox;
	(void)row;
	return err_set(err, EVBUS_BUG, 0, "not built yet");
}

enum evbus_code evbus_outbox_begin(struct evbus_outbox *outbox, struct evbus_err *err)
{
	(void)outbox;
	return err_set(err, EVBUS_BUG, 0, "not built yet");
}

enum evbus_code evbus_outbox_end(struct evbus_outbox *outbox, bool keep, struct evbus_err *err)
{
	(void)outbox;
	(void)keep;
	return err_set(err, EVBUS_BUG, 0, "not built yet");
}

enum evbus_code evbus_outbox_list(struct evbus_outbox *outbox, const struct evbus_outbox_filter *filter, enum evbus_code (*row)(void *context, const struct evbus_outbox_row *row, struct evbus_err *err), void *context, struct evbus_err *err)
{
	(void)outbox;
	(void)filter;
	(void)row;
	(void)context;
	return err_set(err, EVBUS_BUG, 0, "not built yet");
}

enum evbus_code evbus_outbox_count(struct evbus_outbox *outbox, struct evbus_outbox_counts *counts, struct evbus_err *err)
{
	(void)outbox;
	(void)counts;
	return err_set(err, EVBUS_BUG, 0, "not built yet");
}

enum evbus_code evbus_outbox_drain(struct evbus_outbox *outbox, const struct evbus_drain_options *options, struct evbus_drain_result *result, struct evbus_err *err)
{
	(void)outbox;
	(void)options;
	(void)result;
	return err_set(err, EVBUS_BUG, 0, "not built yet");
}

enum evbus_code evbus_outbox_last_seq(struct evbus_outbox *outbox, int64_t *seq, struct evbus_err *err)
{
	(void)outbox;
	(void)seq;
	return err_set(err, EVBUS_BUG, 0, "not built yet");
}

enum evbus_code outbox_place(struct evbus_outbox *outbox, const char **place, struct evbus_err *err)
{
	(void)outbox;
	(void)place;
	return err_set(err, EVBUS_BUG, 0, "not built yet");
}

enum evbus_code outbox_requeue(struct evbus_outbox *outbox, int64_t seq, bool *changed, struct evbus_err *err)
{
	(void)outbox;
	(void)seq;
	(void)changed;
	return err_set(err, EVBUS_BUG, 0, "not built yet");
}

enum evbus_code outbox_settle(struct evbus_outbox *outbox, int64_t seq, struct evbus_slice receipt, bool *changed,
			      struct evbus_err *err)
{
	(void)outbox;
	(void)seq;
	(void)receipt;
	(void)changed;
	return err_set(err, EVBUS_BUG, 0, "not built yet");
}

enum evbus_code outbox_fail_again(struct evbus_outbox *outbox, int64_t seq, enum evbus_reason reason,
				  struct evbus_slice error, bool *changed, struct evbus_err *err)
{
	(void)outbox;
	(void)seq;
	(void)reason;
	(void)error;
	(void)changed;
	return err_set(err, EVBUS_BUG, 0, "not built yet");
}

enum evbus_code outbox_sweep(struct evbus_outbox *outbox, int64_t before_us, bool dry_run, uint64_t *count,
			     struct evbus_err *err)
{
	(void)outbox;
	(void)before_us;
	(void)dry_run;
	(void)count;
	return err_set(err, EVBUS_BUG, 0, "not built yet");
}

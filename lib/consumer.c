/* consumer.c: stub. */
#include "bus.h"

enum evbus_code evbus_consumer_open(struct evbus *bus, const struct evbus_consumer_options *options, struct evbus_consumer **consumer, struct evbus_err *err)
{
	(void)bus;
	(void)options;
	(void)consumer;
	return err_set(err, EVBUS_BUG, 0, "not built yet");
}

enum evbus_code evbus_consumer_next(struct evbus_consumer *consumer, int timeout_ms, struct evbus_delivery **delivery, struct evbus_err *err)
{
	(void)consumer;
	(void)timeout_ms;
	(void)delivery;
	return err_set(err, EVBUS_BUG, 0, "not built yet");
}

enum evbus_code evbus_consumer_done(struct evbus_consumer *consumer, struct evbus_delivery *delivery, struct evbus_err *err)
{
	(void)consumer;
	(void)delivery;
	return err_set(err, EVBUS_BUG, 0, "not built yet");
}

enum evbus_code evbus_consumer_failed(struct evbus_consumer *consumer, struct evbus_delivery *delivery, enum evbus_reason reason, struct evbus_slice error, bool *dead, struct evbus_err *err)
{
	(void)consumer;
	(void)delivery;
	(void)reason;
	(void)error;
	(void)dead;
	return err_set(err, EVBUS_BUG, 0, "not built yet");
}

enum evbus_code evbus_consumer_refused(struct evbus_consumer *consumer, struct evbus_delivery *delivery, enum evbus_reason reason, struct evbus_slice error, struct evbus_err *err)
{
	(void)consumer;
	(void)delivery;
	(void)reason;
	(void)error;
	return err_set(err, EVBUS_BUG, 0, "not built yet");
}

void evbus_consumer_give_back(struct evbus_consumer *consumer, struct evbus_delivery *delivery)
{
	(void)consumer;
	(void)delivery;
}

enum evbus_code evbus_consumer_commit(struct evbus_consumer *consumer, struct evbus_err *err)
{
	(void)consumer;
	return err_set(err, EVBUS_BUG, 0, "not built yet");
}

bool evbus_consumer_finished(const struct evbus_consumer *consumer)
{
	(void)consumer;
	return true;
}

struct evbus_consumer_counts evbus_consumer_counts(const struct evbus_consumer *consumer)
{
	(void)consumer;
	return (struct evbus_consumer_counts){ 0 };
}

struct evbus_progress evbus_consumer_progress(const struct evbus_consumer *consumer)
{
	(void)consumer;
	return (struct evbus_progress){ 0 };
}

void evbus_consumer_close(struct evbus_consumer *consumer)
{
	(void)consumer;
}

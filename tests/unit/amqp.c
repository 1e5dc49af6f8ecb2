/* amqp.c: RabbitMQ as a target, as far as it needs no server: what its URLs say, and what its messages have. */
#include "backend/amqp_bus.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static struct evbus_err err;
static struct backend *backend;

static void shut(void)
{
	if (backend)
		backend_amqp.close(backend);
	backend = NULL;
}

static enum evbus_code try(const char *url)
{
	const struct backend_options options = { .no_create = false };

	shut();
	return backend_amqp.open(url, strchr(url, ':') + 1, &options, &backend, &err);
}

static const struct amqp_backend *opened(const char *url)
{
	cr_assert_eq(try(url), EVBUS_OK, "%s", err.text);
	return amqp_of(backend);
}

TestSuite(amqp, .fini = shut);

/* ---- URLs ------------------------------------------------------------------------------------------------------ */

Test(amqp, what_a_url_does_not_say_is_as_each_server_has_it)
{
	const struct amqp_backend *amqp = opened("amqp:");

	cr_expect_str_eq(amqp->host, "localhost");
	cr_expect_eq(amqp->port, 5672);
	cr_expect_str_eq(amqp->vhost, "/");
	cr_expect_str_eq(amqp->user, "guest");
	cr_expect_str_eq(amqp->password, "guest");
	cr_expect_str_eq(amqp->exchange, "");
	cr_expect_null(amqp->routing_key);
	cr_expect(!amqp->tls && amqp->timeout_ms == 10000 && amqp->window == 1000);
	cr_expect_eq(opened("amqps://h")->port, 5671);
	cr_expect(amqp_of(backend)->tls);
}

Test(amqp, a_url_is_taken_apart)
{
	const struct amqp_backend *amqp =
		opened("AMQPS://me%40x:p%2Fw%3F@[::1]:99/a%2Fb?exchange=e&routing_key=&timeout=1s"
		       "&window=1&tls_ca=ca");

	cr_expect_str_eq(amqp->host, "::1");
	cr_expect_eq(amqp->port, 99);
	cr_expect_str_eq(amqp->vhost, "a/b");
	cr_expect_str_eq(amqp->user, "me@x");
	cr_expect_str_eq(amqp->password, "p/w?");
	cr_expect_str_eq(amqp->exchange, "e");
	cr_expect_str_eq(amqp->routing_key, "");
	cr_expect_str_eq(amqp->tls_ca, "ca");
	cr_expect(amqp->tls && amqp->timeout_ms == 1000 && amqp->window == 1);
	cr_expect_str_eq(amqp->url.shown, "AMQPS://[::1]:99/a%2Fb");
}

Test(amqp, of_a_password_file_the_first_line_counts)
{
	static const char *const texts[] = { "geheim", "geheim\n", "geheim\r\nmore\n" };

	for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
		char name[] = "/tmp/evbus-amqp.XXXXXX", url[128];
		int fd = mkstemp(name);

		cr_assert(fd >= 0 && write(fd, texts[i], strlen(texts[i])) == (ssize_t)strlen(texts[i]));
		close(fd);
		snprintf(url, sizeof url, "amqp://me@h?password_file=%s", name);
		cr_expect_str_eq(opened(url)->password, "geheim");
		unlink(name);
	}
}

Test(amqp, what_is_no_url_of_it_is_refused_without_its_password)
{
	static const char *const wrong[] = {
		"amqp:h",
		"amqp://u:geheim@h:0",
		"amqp://u:geheim@h:65536",
		"amqp://u:geheim@h:x",
		"amqp://u:geheim@a,b",
		"amqp://u:geheim@h/%zz",
		"amqp://u:geheim@h?prefix=x",
		"amqp://u:geheim@h?window=0",
		"amqp://u:geheim@h?window=65536",
		"amqp://u:geheim@h?timeout=no",
		"amqp://u:geheim@h?tls_ca=x",
		"amqps://u:geheim@h?tls_key=x",
		"amqp://u:geheim@h?password_file=/dev/null",
		"amqp://h?password_file=/no/such/file",
		"amqp://u:geheim?x@h",
	};
	char url[512] = "amqp://h?exchange=";

	for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
		cr_expect_eq(try(wrong[i]), EVBUS_CONFIG, "%s", wrong[i]);
		cr_expect_null(strstr(err.text, "geheim"), "%s", err.text);
	}
	memset(url + strlen(url), 'x', AMQP_SHORT_MAX + 1);
	cr_expect_eq(try(url), EVBUS_CONFIG);
	url[strlen("amqp://h?exchange=") + AMQP_SHORT_MAX] = '\0';
	opened(url);
}

/* ---- messages -------------------------------------------------------------------------------------------------- */

static struct evbus_slice slice(const char *text)
{
	return (struct evbus_slice){ text, strlen(text) };
}

static const char *text_of(amqp_bytes_t bytes)
{
	static char text[4][512];
	static unsigned next;
	char *room = text[next++ % 4];

	snprintf(room, sizeof text[0], "%.*s", (int)bytes.len, (const char *)bytes.bytes);
	return room;
}

/* Of a header, or "-". */
static const char *header(const struct amqp_properties *properties, const char *name)
{
	const amqp_table_t *table = &properties->basic.headers;

	for (int i = 0; i < table->num_entries; i++)
		if (!strcmp(text_of(table->entries[i].key), name))
			return text_of(table->entries[i].value.value.bytes);
	return "-";
}

Test(amqp, a_message_has_all_that_is_known_of_the_event)
{
	struct amqp_properties properties;
	const struct message message = {
		.key = SLICE("k"),
		.tenant_id = SLICE("t"),
		.event_key = SLICE("ek"),
		.origin = SLICE("a/0/7"),
		.payload = slice("{\"id\":\"e-1\",\"type\":\"order.placed\",\"correlation_id\":\"c\"}"),
		.returns = 3,
		.time_us = 1700000000123456,
	};

	amqp_describe(&message, "orders", &properties);
	cr_expect_eq(properties.basic.delivery_mode, 2);
	cr_expect_eq(properties.basic.timestamp, 1700000000u);
	cr_expect_str_eq(text_of(properties.basic.message_id), "e-1");
	cr_expect_str_eq(text_of(properties.basic.type), "order.placed");
	cr_expect_str_eq(text_of(properties.basic.correlation_id), "c");
	cr_expect_str_eq(text_of(properties.basic.content_type), "application/json");
	cr_expect_str_eq(text_of(properties.basic.app_id), "evbus");
	cr_expect_str_eq(header(&properties, "Evbus-Topic"), "orders");
	cr_expect_str_eq(header(&properties, MESSAGE_TIME), "2023-11-14T22:13:20.123456Z");
	cr_expect_str_eq(header(&properties, MESSAGE_KEY), "k");
	cr_expect_str_eq(header(&properties, MESSAGE_TENANT), "t");
	cr_expect_str_eq(header(&properties, MESSAGE_EVENT_KEY), "ek");
	cr_expect_str_eq(header(&properties, MESSAGE_ORIGIN), "a/0/7");
	cr_expect_str_eq(header(&properties, MESSAGE_RETURNS), "3");
	cr_expect_str_eq(header(&properties, MESSAGE_EVENT_ID), "e-1");
	cr_expect_str_eq(header(&properties, MESSAGE_EVENT_TYPE), "order.placed");
	cr_expect_eq(properties.basic.headers.num_entries, AMQP_HEADERS_MAX - 1);
}

Test(amqp, what_is_not_known_is_left_out)
{
	struct amqp_properties properties;
	const struct message message = { .payload = SLICE("no json"), .time_us = -1 };
	const amqp_flags_t left_out =
		AMQP_BASIC_MESSAGE_ID_FLAG | AMQP_BASIC_TYPE_FLAG | AMQP_BASIC_CORRELATION_ID_FLAG;

	amqp_describe(&message, "orders", &properties);
	cr_expect_eq(properties.basic._flags & left_out, 0);
	cr_expect_eq(properties.basic.timestamp, 0);
	cr_expect_str_eq(text_of(properties.basic.content_type), "application/octet-stream");
	cr_expect_eq(properties.basic.headers.num_entries, 2);
}

Test(amqp, an_event_without_an_id_is_known_by_its_key_or_where_it_stood)
{
	static char payload[1024];
	struct amqp_properties properties;
	struct message message = { .payload = SLICE("{}"), .event_key = SLICE("ek"), .origin = SLICE("a/0/7") };

	amqp_describe(&message, "orders", &properties);
	cr_expect_str_eq(text_of(properties.basic.message_id), "ek");
	message.event_key.data = NULL;
	amqp_describe(&message, "orders", &properties);
	cr_expect_str_eq(text_of(properties.basic.message_id), "a/0/7");
	/* An id of 255 bytes is one, a longer one stands in the payload alone. */
	for (int len = (int)AMQP_SHORT_MAX; len <= (int)AMQP_SHORT_MAX + 1; len++) {
		snprintf(payload, sizeof payload, "{\"id\":\"%0*d\"}", len, 0);
		message.payload = slice(payload);
		amqp_describe(&message, "orders", &properties);
		cr_expect_eq(properties.basic.message_id.len, len == (int)AMQP_SHORT_MAX ? AMQP_SHORT_MAX : 5);
	}
}

/* config_yaml.c: YAML 1.1, of which JSON is nearly a subset, by libyaml. The only file that knows libyaml; a module of
 * its own.
 *
 * Scalars stay texts: whether `no`, `1e3` or `12:30` is a word, a number or a time, is for who asks to say. Aliases are
 * not followed (so nothing can grow), they only stand in the tree, as do tags: what belongs to others may have them. */
#include "config.h"

#include "base/module.h"

#include <errno.h>
#include <string.h>
#include <yaml.h>

struct reader {
	yaml_parser_t parser;
	struct evbus_slice text;
	const char *name;
	struct tree *tree;
	struct node **tails[CONFIG_DEPTH_MAX + 1];    /* where the next node of each open list or map goes */
	size_t depth;
	size_t documents;
	struct evbus_err *err;
};

static uint32_t from_one(size_t n)
{
	return n < UINT32_MAX ? (uint32_t)n + 1 : UINT32_MAX;
}

static enum evbus_code wrong(const struct reader *reader, yaml_mark_t mark, const char *what)
{
	return err_set(reader->err, EVBUS_CONFIG, 0, "%s:%u:%u: %s", reader->name, from_one(mark.line),
		       from_one(mark.column), what);
}

static enum evbus_code no_memory(const struct reader *reader)
{
	return err_set(reader->err, EVBUS_IO, ENOMEM, "cannot read '%s'", reader->name);
}

/* Where a byte is. libyaml does not count lines of what it cannot decode. */
static yaml_mark_t mark_of(const struct reader *reader, size_t byte)
{
	yaml_mark_t mark = { .index = byte };

	for (size_t i = 0; i < byte && i < reader->text.len; i++) {
		unsigned char c = (unsigned char)reader->text.data[i];

		mark.line += c == '\n';
		mark.column = c == '\n' ? 0 : mark.column + ((c & 0xc0) != 0x80);
	}
	return mark;
}

static enum evbus_code not_yaml(const struct reader *reader)
{
	const yaml_parser_t *parser = &reader->parser;
	bool decoding = parser->error == YAML_READER_ERROR;
	char what[256];

	if (parser->error == YAML_MEMORY_ERROR)
		return no_memory(reader);
	snprintf(what, sizeof what, "this is not YAML: %s%s%s", parser->problem ? parser->problem : "it has no end",
		 parser->context && !decoding ? " " : "", parser->context && !decoding ? parser->context : "");
	return wrong(reader, decoding ? mark_of(reader, parser->problem_offset) : parser->problem_mark, what);
}

static bool is_nothing(const char *text)
{
	static const char *const words[] = { "", "~", "null", "Null", "NULL" };

	for (size_t i = 0; i < sizeof words / sizeof *words; i++)
		if (!strcmp(text, words[i]))
			return true;
	return false;
}

static enum evbus_code add(struct reader *reader, enum node_kind kind, struct evbus_slice text, bool tagged,
			   const yaml_event_t *event)
{
	yaml_mark_t mark = event->start_mark;

	if (reader->tree->count == CONFIG_NODES_MAX)
		return wrong(reader, mark, "there is too much in this file");
	if (reader->depth == CONFIG_DEPTH_MAX && kind >= NODE_LIST && kind != NODE_ALIAS)
		return wrong(reader, mark, "this is nested too deep");
	struct node *node = tree_add(reader->tree, kind, text);
	if (!node)
		return no_memory(reader);
	node->tagged = tagged;
	node->line = from_one(mark.line);
	node->column = from_one(mark.column);
	*reader->tails[reader->depth] = node;
	reader->tails[reader->depth] = &node->next;
	if (kind == NODE_LIST || kind == NODE_MAP)
		reader->tails[++reader->depth] = &node->first;
	return EVBUS_OK;
}

static enum evbus_code add_scalar(struct reader *reader, const yaml_event_t *event)
{
	struct evbus_slice text = { (const char *)event->data.scalar.value, event->data.scalar.length };
	bool nothing = event->data.scalar.style == YAML_PLAIN_SCALAR_STYLE && is_nothing(text.data);

	if (memchr(text.data, 0, text.len))
		return wrong(reader, event->start_mark, "a text cannot have a NUL");
	return add(reader, nothing ? NODE_NOTHING : NODE_TEXT, text, event->data.scalar.tag != NULL, event);
}

static enum evbus_code take(struct reader *reader, const yaml_event_t *event)
{
	const char *anchor = (const char *)event->data.alias.anchor;

	switch (event->type) {
	case YAML_DOCUMENT_START_EVENT:
		if (reader->documents++)
			return wrong(reader, event->start_mark, "a second document begins, and only one is read");
		return EVBUS_OK;
	case YAML_SCALAR_EVENT:
		return add_scalar(reader, event);
	case YAML_ALIAS_EVENT:
		return add(reader, NODE_ALIAS, (struct evbus_slice){ anchor, strlen(anchor) }, false, event);
	case YAML_SEQUENCE_START_EVENT:
		return add(reader, NODE_LIST, SLICE(""), event->data.sequence_start.tag != NULL, event);
	case YAML_MAPPING_START_EVENT:
		return add(reader, NODE_MAP, SLICE(""), event->data.mapping_start.tag != NULL, event);
	case YAML_SEQUENCE_END_EVENT:
	case YAML_MAPPING_END_EVENT:
		reader->depth--;
		return EVBUS_OK;
	default:
		return EVBUS_OK;
	}
}

static enum evbus_code take_all(struct reader *reader)
{
	yaml_event_t event;
	bool last;

	do {
		if (!yaml_parser_parse(&reader->parser, &event))
			return not_yaml(reader);
		enum evbus_code code = take(reader, &event);
		last = event.type == YAML_STREAM_END_EVENT;
		yaml_event_delete(&event);
		TRY(code);
	} while (!last);
	return EVBUS_OK;
}

static enum evbus_code read_yaml(struct evbus_slice text, const char *name, struct tree *tree, struct evbus_err *err)
{
	struct reader reader = { .text = text, .name = name, .tree = tree, .tails = { &tree->root }, .err = err };

	if (!yaml_parser_initialize(&reader.parser))
		return no_memory(&reader);
	/* Else a file that begins like one of UTF-16 is read as that. */
	yaml_parser_set_encoding(&reader.parser, YAML_UTF8_ENCODING);
	yaml_parser_set_input_string(&reader.parser, (const unsigned char *)text.data, text.len);
	enum evbus_code code = take_all(&reader);
	yaml_parser_delete(&reader.parser);
	return code;
}

static const struct config_driver driver = { .read = read_yaml };

const struct evbus_module evbus_module = { .abi = EVBUS_MODULE_ABI, .name = "yaml", .ops = &driver };

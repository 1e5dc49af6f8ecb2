/* value.c: the values of options: each form is taken or refused with a reason, formats of records and what hides secrets
 * included. The input: which form, then the text. */
#include "../../cmd/opt.h"
#include "../../cmd/template.h"
#include "fuzz.h"

#include <math.h>

#define PASSWORD "hunter2"

union value {
	const char *text;
	int64_t number;
	struct duration duration;
	struct size size;
	struct rate rate;
	struct factor factor;
	struct mode mode;
	struct list list;
	struct position position;
	struct moment moment;
	struct record_format format;
};

/* What each form promises. */
static void check_value(const struct opt *opt, const char *text, const union value *value)
{
	switch (opt->kind) {
	case KIND_TEXT:
		MUST(value->text == text && strstr(opt->words, text) && !strchr(text, '|'));
		break;
	case KIND_NUMBER:
		MUST(value->number >= opt->min && value->number <= opt->max);
		break;
	case KIND_DURATION:
		MUST(value->duration.ms >= 0);
		break;
	case KIND_SIZE:
		MUST(value->size.bytes >= opt->min && value->size.bytes <= opt->max);
		break;
	case KIND_RATE:
		MUST(value->rate.per_second > 0 && isfinite(value->rate.per_second));
		break;
	case KIND_FACTOR:
		MUST(value->factor.value >= 1 && isfinite(value->factor.value));
		break;
	case KIND_MODE:
		MUST((value->mode.bits & 0600) == 0600 && !(value->mode.bits & ~0666u));
		break;
	default:
		break;
	}
}

/* Every piece of a template lies within it, and is a field or a text. */
static void check_format(const char *text)
{
	static struct template template;
	enum record_form form;
	char why[WHY_MAX_BYTES] = "";

	if (!record_format_parse(text, &form, &template, why, sizeof why)) {
		MUST(why[0]);
		return;
	}
	if (form != FORM_TEMPLATE)
		return;
	MUST(template.count <= TEMPLATE_PIECES_MAX && template.used <= TEMPLATE_MAX_BYTES);
	for (size_t i = 0; i < template.count; i++) {
		const struct piece *piece = &template.pieces[i];

		MUST(piece->at + piece->len <= template.used);
		if (piece->field == FIELD_POINTER)
			MUST(template.text[piece->at] == '/' && !template.text[piece->at + piece->len]);
	}
}

/* Nothing that stands where a password does is shown. */
static void check_mask(const char *text)
{
	char masked[MASKED_MAX_BYTES], url[256];
	size_t len = strlen(text);

	mask_secrets(text, masked);
	MUST(strlen(masked) < sizeof masked && strlen(masked) <= 3 * len + 3);
	if (len > 100 || strstr(text, PASSWORD) || strstr(text, "://"))
		return;
	/* A user's name before a colon is shown. */
	snprintf(url, sizeof url, "x://%s%s@host", strchr(text, ':') ? "u:" : "", PASSWORD);
	mask_secrets(url, masked);
	MUST(!strstr(masked, PASSWORD));
	snprintf(url, sizeof url, "%s?password=" PASSWORD "&b", text);
	mask_secrets(url, masked);
	MUST(!strstr(masked, PASSWORD));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const struct opt opts[] = {
		{ .kind = KIND_TEXT, .words = "text|json" },
		{ .kind = KIND_NUMBER, .min = -5, .max = 1000 },
		{ .kind = KIND_DURATION },
		{ .kind = KIND_SIZE, .min = 10, .max = INT64_C(1) << 40 },
		{ .kind = KIND_RATE },
		{ .kind = KIND_FACTOR },
		{ .kind = KIND_MODE },
		{ .kind = KIND_LIST },
		{ .kind = KIND_POSITION },
		{ .kind = KIND_MOMENT },
		{ .kind = KIND_RECORD_FORMAT },
	};
	static union value value;
	struct input input = { data, data + size };
	const struct opt *opt = &opts[input_byte(&input) % COUNT(opts)];
	CLEANUP(block_cleanup) struct block text = input_text(&input);
	char why[WHY_MAX_BYTES] = "";

	memset(&value, 0, sizeof value);
	if (value_parse(opt, text.data, &value, why))
		check_value(opt, text.data, &value);
	else
		MUST(why[0] && strlen(why) < sizeof why);
	check_format(text.data);
	check_mask(text.data);
	return 0;
}

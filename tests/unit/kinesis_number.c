/* kinesis_number.c: sequence numbers, and the positions that stand for them. */
#include "backend/kinesis.h"

#include <criterion/criterion.h>
#include <stdio.h>

#define STEP 64u
#define FIRST ((uint64_t)1 << 61)

static struct numbering numbering;
static struct evbus_err err;

static void teardown(void)
{
	buf_release(&numbering.places);
}

TestSuite(kinesis_number, .fini = teardown);

static struct number number(const char *digits)
{
	struct number parsed;

	cr_assert(number_parse((struct evbus_slice){ digits, strlen(digits) }, &parsed), "%s", digits);
	return parsed;
}

static int compare(const char *a, const char *b)
{
	struct number x = number(a), y = number(b);

	return number_compare(&x, &y);
}

/* ---- numbers ---- */

Test(kinesis_number, are_compared_as_numbers)
{
	char longest[EVBUS_OFFSET_MAX_BYTES + 1] = "", next[EVBUS_OFFSET_MAX_BYTES + 1] = "";

	cr_expect_eq(compare("9", "10"), -1);
	cr_expect_eq(compare("10", "9"), 1);
	cr_expect_eq(compare("0", "0"), 0);
	cr_expect_eq(compare("4294967296", "4294967295"), 1);
	cr_expect_eq(compare("49680457139474135204507097847635385811681622127632449538",
			     "49680457139474135204507097847635385811681622127632449538"),
		     0);
	cr_expect_eq(compare("49680457139474135204507097847635385811681622127632449538",
			     "49680457139474135204507097847635385811681622127632449539"),
		     -1);
	cr_expect_eq(compare("99999999999999999999999999999999999999", "100000000000000000000000000000000000000"), -1);
	cr_expect_eq(compare("1606938044258990275541962092341162602522202993782792835301376", "0"), 1);
	memset(longest, '9', EVBUS_OFFSET_MAX_BYTES);
	memset(next, '9', EVBUS_OFFSET_MAX_BYTES);
	cr_expect_eq(compare(longest, next), 0);
	next[EVBUS_OFFSET_MAX_BYTES - 1] = '8';
	cr_expect_eq(compare(longest, next), 1);
	cr_expect_eq(compare("007", "7"), 0);
}

Test(kinesis_number, are_texts_again_without_a_loss)
{
	char digits[EVBUS_OFFSET_MAX_BYTES + 1], text[EVBUS_OFFSET_MAX_BYTES + 1];

	for (size_t len = 1; len <= EVBUS_OFFSET_MAX_BYTES; len++) {
		for (size_t i = 0; i < len; i++)
			digits[i] = (char)('1' + (i * 7 + len) % 9);
		digits[len] = '\0';
		struct number parsed = number(digits);
		number_format(&parsed, text);
		cr_expect_str_eq(text, digits);
	}
	struct number zero = number("000");
	number_format(&zero, text);
	cr_expect_str_eq(text, "0");
}

Test(kinesis_number, that_are_none_are_refused)
{
	static const char *const texts[] = { "", "-1", "+1", " 1", "1 ", "1e3", "0x1", "1,0" };
	char digits[EVBUS_OFFSET_MAX_BYTES + 2];
	struct number parsed;

	for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
		cr_expect_not(number_parse((struct evbus_slice){ texts[i], strlen(texts[i]) }, &parsed), "'%s'",
			      texts[i]);
	memset(digits, '1', sizeof digits);
	cr_expect_not(number_parse((struct evbus_slice){ digits, sizeof digits - 1 }, &parsed));
	cr_expect(number_parse((struct evbus_slice){ digits, sizeof digits - 2 }, &parsed));
}

Test(kinesis_number, are_added_to_and_subtracted_with_all_their_digits)
{
	struct number a = number("340282366920938463463374607431768211455"), b = a;
	char text[EVBUS_OFFSET_MAX_BYTES + 1];

	number_add(&a, 1);
	number_format(&a, text);
	cr_expect_str_eq(text, "340282366920938463463374607431768211456");
	cr_expect_eq(number_minus(&a, &b), 1);
	number_before(&a);
	cr_expect_eq(number_compare(&a, &b), 0);
	number_add(&a, UINT64_MAX - 1);
	cr_expect_eq(number_minus(&a, &b), UINT64_MAX - 1);
	number_add(&a, 2);
	cr_expect_eq(number_minus(&a, &b), UINT64_MAX);
}

/* ---- positions ---- */

static struct number of(uint64_t n)
{
	struct number made = number("49680457139474135204507097847635385811681622127632449538");

	/* Far from each other, as those of the service are. */
	number_add(&made, n * 1000000);
	return made;
}

/* behind: the position of the one before. */
static enum evbus_code find(uint64_t n, enum number_kind kind, uint64_t behind, uint64_t *position)
{
	struct number asked = of(n);

	*position = behind;
	return numbering_find(&numbering, &asked, kind, position, &err);
}

static uint64_t found(uint64_t n, enum number_kind kind, uint64_t behind)
{
	uint64_t position;

	cr_assert_eq(find(n, kind, behind, &position), EVBUS_OK, "%s", err.text);
	return position;
}

/* Records 1 … count, one behind the other, and where they begin. */
static uint64_t read_many(uint64_t count)
{
	uint64_t position = found(0, NUMBER_ASKED, 0);

	for (uint64_t n = 1; n <= count; n++) {
		uint64_t next = found(n, NUMBER_READ, position);
		cr_assert_eq(next, position + STEP);
		position = next;
	}
	return FIRST + STEP;
}

Test(kinesis_number, have_positions_in_their_order_whatever_is_asked_first)
{
	uint64_t ten = found(10, NUMBER_MET, 0), five = found(5, NUMBER_MET, 0), seven = found(7, NUMBER_ASKED, 0);
	struct number behind = of(5);
	uint64_t position;

	cr_expect(five < seven && seven < ten);
	cr_expect_eq(found(5, NUMBER_MET, 0), five);
	cr_expect_eq(found(7, NUMBER_ASKED, 0), seven);
	number_add(&behind, 1);
	cr_expect_eq(numbering_find(&numbering, &behind, NUMBER_ASKED, &position, &err), EVBUS_OK);
	cr_expect_eq(position, five + 1);
	/* Between those that were met others may lie: none stands for another. */
	for (uint64_t n = 100; n < 10100; n++)
		found(n, NUMBER_MET, 0);
	cr_expect_eq(numbering.places.len / sizeof(struct numbered), 10004);
}

Test(kinesis_number, of_many_records_are_not_kept_and_are_the_same_when_they_are_read_again)
{
	uint64_t first = read_many(100000), position = 0;

	cr_expect_lt(numbering.places.len / sizeof(struct numbered), 5000);
	for (uint64_t n = 1; n <= 100000; n++) {
		position = found(n, NUMBER_READ, position);
		cr_assert_eq(position, first + (n - 1) * STEP, "%d", (int)n);
	}
	cr_expect_lt(numbering.places.len / sizeof(struct numbered), 5000);
}

Test(kinesis_number, that_is_not_kept_is_found_when_what_it_is_folded_in_is_read)
{
	struct numbered head, next;
	struct number wanted = of(500), numbers[NUMBERING_FOLDED_MAX];
	uint64_t first = read_many(20000), position;
	bool folded;

	cr_assert_eq(find(500, NUMBER_MET, 0, &position), EVBUS_AGAIN);
	cr_expect_eq(find(500, NUMBER_READ, first - 1, &position), EVBUS_AGAIN, "the one before is another one");
	cr_assert_not_null(numbering_at(&numbering, first + 499 * STEP, &folded));
	cr_assert(folded);
	cr_assert(numbering_fold_of(&numbering, &wanted, &head, &next));
	cr_assert_eq(head.folded, NUMBERING_FOLDED_MAX);
	for (uint64_t i = 0; i < head.folded; i++)
		numbers[i] = of((head.position - first) / STEP + 2 + i);
	cr_assert_eq(numbering_unfold(&numbering, &head, numbers, head.folded, &err), EVBUS_OK);
	cr_expect_eq(found(500, NUMBER_MET, 0), first + 499 * STEP);
	const struct numbered *place = numbering_at(&numbering, first + 499 * STEP + 1, &folded);
	cr_expect(!folded && number_compare(&place->number, &wanted) == 0);
	/* It is folded again, as others come. */
	for (uint64_t n = 20001; n < 30000; n++)
		found(n, NUMBER_READ, first + (n - 2) * STEP);
	cr_expect_eq(find(500, NUMBER_MET, 0, &position), EVBUS_AGAIN);
	cr_expect_lt(numbering.places.len / sizeof(struct numbered), 5000);
}

Test(kinesis_number, of_which_the_first_have_expired_keep_the_positions_of_the_others)
{
	struct numbered head, next;
	struct number wanted = of(990), left[] = { of(999), of(1000) };
	uint64_t first = read_many(20000), position;

	cr_assert(numbering_fold_of(&numbering, &wanted, &head, &next));
	uint64_t last = (head.position - first) / STEP + 1 + head.folded;
	left[0] = of(last - 1);
	left[1] = of(last);
	cr_assert_eq(numbering_unfold(&numbering, &head, left, 2, &err), EVBUS_OK);
	cr_expect_eq(found(last, NUMBER_MET, 0), first + (last - 1) * STEP);
	cr_expect_eq(found(last - 1, NUMBER_MET, 0), first + (last - 2) * STEP);
	cr_expect_eq(find(last + 500, NUMBER_MET, 0, &position), EVBUS_AGAIN, "the next ones are folded still");
}

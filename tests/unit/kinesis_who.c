/* kinesis_who.c: whose requests they are. */
#include "backend/kinesis.h"
#include "scratch.h"

#include <fcntl.h>

static struct evbus_err err;
static struct who who;
static char scratch[64];

static void setup(void)
{
	static const char *const variables[] = { "AWS_ACCESS_KEY_ID",           "AWS_SECRET_ACCESS_KEY",
						 "AWS_SESSION_TOKEN",           "AWS_REGION",
						 "AWS_DEFAULT_REGION",          "AWS_PROFILE",
						 "AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE" };

	scratch_enter(scratch);
	for (size_t i = 0; i < sizeof variables / sizeof *variables; i++)
		unsetenv(variables[i]);
	setenv("HOME", scratch, 1);
	cr_assert(!mkdir(".aws", 0700));
}

static void teardown(void)
{
	who_release(&who);
	scratch_leave(scratch);
}

TestSuite(kinesis_who, .init = setup, .fini = teardown);

static void put(const char *path, const char *text)
{
	FILE *file = fopen(path, "w");

	cr_assert(file && fputs(text, file) >= 0 && !fclose(file));
}

static void expect_text(const char *text, const char *wanted)
{
	if (wanted)
		cr_expect(text && !strcmp(text, wanted), "'%s', not '%s'", text ? text : "(none)", wanted);
	else
		cr_expect_null(text, "'%s'", text);
}

static void expect_who(const char *id, const char *secret, const char *token, const char *region)
{
	who_release(&who);
	cr_assert_eq(who_find(&who, &err), EVBUS_OK, "%s", err.text);
	expect_text(who.key_id, id);
	expect_text(who.secret, secret);
	expect_text(who.token, token);
	expect_text(who.region, region);
}

static const char credentials[] = "# of the team\n"
				  "[other]\n"
				  "aws_access_key_id = no\n"
				  "aws_secret_access_key = no\n"
				  "\n"
				  "  [default]\r\n"
				  "\taws_access_key_id=ID\r\n"
				  "; aws_secret_access_key = not this one\n"
				  "# aws_secret_access_key = nor this one\n"
				  "aws_secret_access_key =  a/b+c==  \n"
				  "aws_secret_access_key = nor this one\n"
				  "unknown\n"
				  "[token]\n"
				  "aws_access_key_id = IT\n"
				  "aws_secret_access_key = st\n"
				  "aws_session_token = tt\n"
				  "[half]\n"
				  "aws_access_key_id = IH\n"
				  "[last]\n"
				  "aws_access_key_id = IL\n"
				  "aws_secret_access_key = sl";

Test(kinesis_who, is_who_a_section_of_the_file_says)
{
	put(".aws/credentials", credentials);
	expect_who("ID", "a/b+c==", NULL, NULL);
	setenv("AWS_PROFILE", "token", 1);
	expect_who("IT", "st", "tt", NULL);
	setenv("AWS_PROFILE", "last", 1);
	expect_who("IL", "sl", NULL, NULL);
	setenv("AWS_PROFILE", "half", 1);
	expect_who(NULL, NULL, NULL, NULL);
	setenv("AWS_PROFILE", "", 1);
	expect_who("ID", "a/b+c==", NULL, NULL);
}

Test(kinesis_who, has_a_region_of_the_other_file_where_sections_are_named_otherwise)
{
	put(".aws/credentials", credentials);
	put(".aws/config",
	    "[default]\nregion = eu-1\n[profile token]\nregion=eu-2\n[profile  config only ]\nregion = eu-3\n"
	    "aws_access_key_id = IC\naws_secret_access_key = sc\n");
	expect_who("ID", "a/b+c==", NULL, "eu-1");
	setenv("AWS_PROFILE", "token", 1);
	expect_who("IT", "st", "tt", "eu-2");
	setenv("AWS_PROFILE", "config only", 1);
	expect_who("IC", "sc", NULL, "eu-3");
	setenv("AWS_REGION", "us-9", 1);
	expect_who("IC", "sc", NULL, "us-9");
	unsetenv("AWS_REGION");
	setenv("AWS_DEFAULT_REGION", "us-8", 1);
	expect_who("IC", "sc", NULL, "us-8");
}

Test(kinesis_who, is_whoever_the_environment_says_if_it_says_it_all)
{
	put(".aws/credentials", credentials);
	setenv("AWS_PROFILE", "token", 1);
	setenv("AWS_ACCESS_KEY_ID", "IE", 1);
	expect_who("IT", "st", "tt", NULL);
	setenv("AWS_SECRET_ACCESS_KEY", "se", 1);
	expect_who("IE", "se", NULL, NULL);
	setenv("AWS_SESSION_TOKEN", "te", 1);
	expect_who("IE", "se", "te", NULL);
	unsetenv("AWS_ACCESS_KEY_ID");
	expect_who("IT", "st", "tt", NULL);
}

Test(kinesis_who, that_nobody_says_is_nobody)
{
	expect_who(NULL, NULL, NULL, NULL);
	unsetenv("HOME");
	expect_who(NULL, NULL, NULL, NULL);
	put("named", credentials);
	setenv("AWS_SHARED_CREDENTIALS_FILE", "named", 1);
	expect_who("ID", "a/b+c==", NULL, NULL);
	setenv("AWS_SHARED_CREDENTIALS_FILE", "named/not/there", 1);
	expect_who(NULL, NULL, NULL, NULL);
	put("named", "");
	setenv("AWS_SHARED_CREDENTIALS_FILE", "named", 1);
	expect_who(NULL, NULL, NULL, NULL);
}

Test(kinesis_who, by_a_profile_that_there_is_none_of_is_told)
{
	put(".aws/credentials", credentials);
	setenv("AWS_PROFILE", "ghost", 1);
	cr_expect_eq(who_find(&who, &err), EVBUS_CONFIG);
	cr_expect(strstr(err.text, "there is no profile 'ghost'"), "%s", err.text);
	setenv("AWS_ACCESS_KEY_ID", "IE", 1);
	setenv("AWS_SECRET_ACCESS_KEY", "se", 1);
	expect_who("IE", "se", NULL, NULL);
}

Test(kinesis_who, by_a_file_that_cannot_be_read_is_told)
{
	put(".aws/credentials", credentials);
	setenv("AWS_SHARED_CREDENTIALS_FILE", ".aws", 1);
	cr_expect_eq(who_find(&who, &err), EVBUS_CONFIG);
	cr_expect(strstr(err.text, "cannot read the credentials in '.aws'"), "%s", err.text);
}

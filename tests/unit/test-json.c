/* base/json: bounds, types and messages. */
#include "base/json.h"

#include "tests/lib/test.h"

static int parse(const char *text, size_t len, char *msg, size_t size)
{
	autojson cJSON *j = NULL;
	struct error e = { 0 };
	int r = json_parse(&j, text, len, "x", &e);

	snprintf(msg, size, "%s", e.msg);
	CHECK(!r == !!j);
	return r;
}

static void test_parse(void)
{
	static const struct {
		const char *text;
		int r;
	} cases[] = { { "{}", 0 }, { " [1,2] \n", 0 }, { "\"a\\\"[[[\"", 0 }, { "", -EINVAL },
		{ "{", -EINVAL }, { "{} {}", -EINVAL }, { "{}x", -EINVAL }, { "nul", -EINVAL },
		{ "\"\\u0000\"", -EINVAL }, { "\"\\\\u0000\"", 0 }, { "\"abc", -EINVAL } };
	char msg[512];

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
		CHECK_EQ(parse(cases[i].text, strlen(cases[i].text), msg, sizeof(msg)), cases[i].r);
	CHECK_EQ(parse("[1]\0", 4, msg, sizeof(msg)), -EINVAL);
	CHECK_STR(msg, "x: contains NUL");
}

/* A text is exactly as long as it says: nothing beyond is read (the sanitizer watches). */
static void test_cut(void)
{
	static const char whole[] = "{\"a\":[1,2.5e3,\"\\u00e9\\\"x\",true,null],\"b\":{}}";
	char msg[512];

	for (size_t n = 0; n < sizeof(whole) - 1; n++) {
		char *cut = malloc(n ? n : 1);

		REQUIRE(cut);
		memcpy(cut, whole, n);
		CHECK_EQ(parse(cut, n, msg, sizeof(msg)), -EINVAL);
		free(cut);
	}
}

static void test_limits(void)
{
	size_t n = 2 * (JSON_VALUES_MAX + 10);
	char *many = malloc(n), deep[JSON_DEPTH_MAX * 2 + 4], msg[512];

	REQUIRE(many);
	memset(deep, '[', JSON_DEPTH_MAX);
	memset(deep + JSON_DEPTH_MAX, ']', JSON_DEPTH_MAX);
	CHECK_EQ(parse(deep, 2 * JSON_DEPTH_MAX, msg, sizeof(msg)), 0);
	memset(deep, '[', sizeof(deep));
	CHECK_EQ(parse(deep, sizeof(deep), msg, sizeof(msg)), -E2BIG);
	CHECK_STR(msg, "x: nested deeper than 32");
	for (size_t i = 0; i < n; i += 2)
		memcpy(many + i, "0,", 2);
	many[0] = '[';
	CHECK_EQ(parse(many, n, msg, sizeof(msg)), -E2BIG);
	free(many);
}

static void test_getters(void)
{
	static const char text[] = "{\"s\":\"hello\",\"n\":7,\"big\":9007199254740993,\"f\":1.5,"
				   "\"neg\":-1,\"t\":true,\"o\":{},\"a\":[],\"z\":null}";
	autojson cJSON *j = NULL;
	const cJSON *c = NULL;
	struct error e = { 0 };
	const char *s = NULL;
	uint64_t v = 0;
	bool b = false;

	REQUIRE(!json_parse(&j, text, strlen(text), "x", &e));
	CHECK_EQ(json_str(j, "s", JSON_REQUIRED, 5, &s, &e), 1);
	CHECK_STR(s, "hello");
	CHECK_EQ(json_str(j, "s", JSON_REQUIRED, 4, &s, &e), -EINVAL);
	CHECK_STR(e.msg, "'s': longer than 4 bytes");
	CHECK_EQ(json_str(j, "n", JSON_REQUIRED, 4, &s, &e), -EINVAL);
	CHECK_STR(e.msg, "'n': must be a string");
	CHECK_EQ(json_str(j, "none", JSON_OPTIONAL, 4, &s, &e), 0);
	CHECK_EQ(json_str(j, "z", JSON_OPTIONAL, 4, &s, &e), 0);
	CHECK_EQ(json_str(j, "z", JSON_REQUIRED, 4, &s, &e), -EINVAL);
	CHECK_STR(e.msg, "'z': is missing");
	CHECK_EQ(json_u64(j, "n", JSON_REQUIRED, 0, 7, &v, &e), 1);
	CHECK_EQ(v, 7);
	CHECK_EQ(json_u64(j, "n", JSON_REQUIRED, 0, 6, &v, &e), -EINVAL);
	CHECK_STR(e.msg, "'n': must be a whole number from 0 to 6");
	CHECK_EQ(json_u64(j, "big", JSON_REQUIRED, 0, JSON_INT_MAX, &v, &e), -EINVAL);
	CHECK_EQ(json_u64(j, "f", JSON_REQUIRED, 0, 9, &v, &e), -EINVAL);
	CHECK_EQ(json_u64(j, "neg", JSON_REQUIRED, 0, 9, &v, &e), -EINVAL);
	CHECK_EQ(json_u64(j, "s", JSON_REQUIRED, 0, 9, &v, &e), -EINVAL);
	CHECK_EQ(json_bool(j, "t", JSON_REQUIRED, &b, &e), 1);
	CHECK(b);
	CHECK_EQ(json_bool(j, "n", JSON_REQUIRED, &b, &e), -EINVAL);
	CHECK_EQ(json_object(j, "o", JSON_REQUIRED, &c, &e), 1);
	CHECK_EQ(json_object(j, "a", JSON_REQUIRED, &c, &e), -EINVAL);
	CHECK_EQ(json_array(j, "a", JSON_REQUIRED, &c, &e), 1);
	CHECK_EQ(json_array(j, "o", JSON_OPTIONAL, &c, &e), -EINVAL);
	/* a getter on something that is no object */
	CHECK_EQ(json_str(c, "s", JSON_OPTIONAL, 4, &s, &e), 0);
	CHECK_EQ(json_str(NULL, "s", JSON_REQUIRED, 4, &s, &e), -EINVAL);
}

static void test_build(void)
{
	struct json_out j;
	cJSON *a;
	char *text;

	json_out_init(&j);
	json_add_str(&j, j.root, "s", "a\"b\n\xff");
	json_add_u64(&j, j.root, "n", JSON_INT_MAX);
	json_add_bool(&j, json_add_object(&j, j.root, "o"), "b", true);
	a = json_add_array(&j, j.root, "a");
	json_push_str(&j, a, "x");
	json_add_u64(&j, json_push_object(&j, a), "y", 0);
	text = json_print(&j, false);
	REQUIRE(text);
	CHECK_STR(text, "{\"s\":\"a\\\"b\\n\xff\",\"n\":9007199254740991,\"o\":{\"b\":true},"
			"\"a\":[\"x\",{\"y\":0}]}");
	free(text);
	/* what failed once stays failed, however the chain goes on */
	json_add_str(&j, json_add_object(&j, NULL, "lost"), "x", "y");
	CHECK(!json_print(&j, false));
	json_out_free(&j);
}

int main(void)
{
	test_parse();
	test_cut();
	test_limits();
	test_getters();
	test_build();
	TEST_END();
}

/* guest-init: JSON in and out, base64, users, kernel parameters: what is only text. */
#include "guest-init/boot.h"
#include "guest-init/jread.h"
#include "guest-init/jwrite.h"
#include "guest-init/users.h"
#include "base/guest_proto.h"
#include "tests/lib/test.h"

static struct jread *j;

static int parse(const char *text)
{
	return jread_parse(j, text, strlen(text));
}

/* Decodes member "s". */
static const char *member(const char *text, size_t *ret_len)
{
	static char out[4096];
	int v;

	CHECK_EQ(parse(text), 0);
	v = jread_get(j, JREAD_ROOT, "s");
	REQUIRE(jread_type(j, v) == JREAD_STRING);
	REQUIRE(jread_len(j, v) <= sizeof(out));
	jread_str(j, v, out, ret_len);
	CHECK(*ret_len < jread_len(j, v));
	return out;
}

/* RFC 8259 7; protocol.md 5.2: a lone surrogate becomes U+FFFD */
static void strings(void)
{
	static const struct {
		const char *in, *out;
	} cases[] = {
		{ "{\"s\":\"\"}", "" },
		{ "{\"s\":\"a\\\"\\\\\\/\\b\\f\\n\\r\\tz\"}", "a\"\\/\b\f\n\r\tz" },
		{ "{\"s\":\"\\u0041\\u00e9\\u20AC\"}", "A\xc3\xa9\xe2\x82\xac" },
		{ "{\"s\":\"\\ud83d\\ude00\"}", "\xf0\x9f\x98\x80" },
		{ "{\"s\":\"\\ud83d\"}", "\xef\xbf\xbd" },
		{ "{\"s\":\"\\ude00x\"}", "\xef\xbf\xbdx" },
		{ "{\"s\":\"\\ud83dx\\ude00\"}", "\xef\xbf\xbdx\xef\xbf\xbd" },
		{ "{\"s\":\"\\ud83d\\u0041\"}", "\xef\xbf\xbd"
						"A" },
		{ "{\"s\":\"\\ud83d\\ud83d\\ude00\"}", "\xef\xbf\xbd\xf0\x9f\x98\x80" },
		{ "{\"s\":\"\xff\xc3\xa9\"}", "\xff\xc3\xa9" }, /* bytes pass: file names */
		{ "{ \"s\" : \"x\" , \"s\":\"y\"}", "y" },
	};
	size_t len;

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
		CHECK_STR(member(cases[i].in, &len), cases[i].out);
	member("{\"s\":\"a\\u0000b\"}", &len);
	CHECK_EQ(len, 3);
}

static void refused(void)
{
	static const char *const bad[] = { "", " ", "x", "1", "\"x\"", "[]", "{", "}", "{}}",
		"{}{}", "{} x", "{\"a\":1", "{\"a\":\"\\x\"}", "{\"a\":\"\\u12g4\"}",
		"{\"a\":\"\\ud83", "{\"a\":\"b\\", "{]", "[}", "{\"a\":x}" };

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		CHECK_EQ(parse(bad[i]), -EBADMSG);
	CHECK_EQ(jread_parse(j, "{}\0", 3), -EBADMSG);
	/* The parser takes these; the values must stay harmless. */
	CHECK_EQ(parse("{\"a\" \"b\"}"), 0);
	CHECK_EQ(jread_get(j, JREAD_ROOT, "a"), 0);
	CHECK_EQ(parse("{\"a\":[\"x\":2,3]}"), 0);
	CHECK_EQ(jread_count(j, jread_get(j, JREAD_ROOT, "a")), 3);
}

static void values(void)
{
	uint64_t n = 7;
	bool b;

	CHECK_EQ(
		parse("{\"n\":18446744073709551615,\"o\":18446744073709551616,\"f\":1.0,\"m\":-1,\"e\":1e3,"
		      "\"z\":0,\"null\":null,\"t\":true,\"x\":[{\"n\":5},[],\"s\",null,6],\"tru\":{\"k\":tru}}"),
		0);
	CHECK(jread_u64(j, jread_get(j, 1, "n"), &n) && n == UINT64_MAX);
	CHECK(jread_u64(j, jread_get(j, 1, "z"), &n) && n == 0);
	for (const char *const *k =
			(const char *const[]){ "o", "f", "m", "e", "t", "null", "x", "no", NULL };
		*k; k++)
		CHECK(!jread_u64(j, jread_get(j, 1, *k), &n));
	CHECK(jread_bool(j, jread_get(j, 1, "t"), &b) && b);
	CHECK(!jread_bool(j, jread_get(j, jread_get(j, 1, "tru"), "k"), &b));
	CHECK_EQ(jread_get(j, 1, "null"), 0); /* protocol.md 5.1: absent and null are the same */
	CHECK_EQ(jread_count(j, jread_get(j, 1, "x")), 5);
	CHECK_EQ(jread_count(j, jread_get(j, 1, "n")), 0);
	CHECK_EQ(jread_get(j, jread_get(j, 1, "x"), "n"), 0);
}

static void limits(void)
{
	static char text[700000];
	size_t n = 0;

	n += (size_t)sprintf(text, "{\"a\":[");
	for (int i = 0; i < JREAD_TOKENS_MAX - 3; i++)
		n += (size_t)sprintf(text + n, "%s1", i ? "," : "");
	strcpy(text + n, "]}");
	CHECK_EQ(parse(text), 0);
	CHECK_EQ(jread_count(j, jread_get(j, 1, "a")), JREAD_TOKENS_MAX - 3);
	strcpy(text + n, ",1]}");
	CHECK_EQ(parse(text), -E2BIG);
	for (int depth = JREAD_DEPTH_MAX; depth <= JREAD_DEPTH_MAX + 1; depth++) {
		n = (size_t)sprintf(text, "{\"a\":");
		memset(text + n, '[', (size_t)depth - 1);
		memset(text + n + depth - 1, ']', (size_t)depth - 1);
		strcpy(text + n + 2 * (depth - 1), "}");
		CHECK_EQ(parse(text), depth > JREAD_DEPTH_MAX ? -E2BIG : 0);
	}
	CHECK_EQ(parse("{\"a\":\"[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[\\\"[[[[[\"}"), 0);
	jread_done(j);
}

/* Any bytes come out as a JSON string of valid UTF-8. */
static void writing(void)
{
	struct jwrite w;
	struct buf b;

	buf_init(&b, 400);
	jwrite_begin(&w, &b);
	jwrite_str(&w, "a\"\\\n\x01\x7f\0\xc3\xa9\xff\xed\xa0\x80\xf4\x90\x80\x80", 17);
	CHECK_EQ(jwrite_end(&w), 0);
	CHECK_EQ(buf_ptr(&b)[4], GP_JSON);
	CHECK_EQ(buf_ptr(&b)[0], buf_len(&b) - GP_HEADER);
	REQUIRE(buf_append(&b, "", 1) == 0);
	CHECK_STR((char *)buf_ptr(&b) + GP_HEADER,
		"\"a\\\"\\\\\\u000a\\u0001\\u007f\\u0000\xc3\xa9\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"
		"\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\"");
	/* A message that doesn't fit leaves nothing behind. */
	{
		size_t before = buf_len(&b);
		char big[300];

		memset(big, 'x', sizeof(big));
		jwrite_begin(&w, &b);
		jwrite_str(&w, big, sizeof(big));
		jwrite_str(&w, big, sizeof(big));
		CHECK_EQ(jwrite_end(&w), -ENOBUFS);
		CHECK_EQ(buf_len(&b), before);
	}
	buf_free(&b);
}

/* RFC 4648 10 */
static void base64(void)
{
	static const char *const vectors[][2] = { { "", "" }, { "f", "Zg==" }, { "fo", "Zm8=" },
		{ "foo", "Zm9v" }, { "foob", "Zm9vYg==" }, { "fooba", "Zm9vYmE=" },
		{ "foobar", "Zm9vYmFy" } };
	static const char *const bad[] = { "Z", "Zg=", "=", "====", "Zg==Zg==", "Zm9v\n",
		"Z===", "Zm=v", "Zm9-" };
	uint8_t out[64];
	struct jwrite w;
	struct buf b;
	size_t len;

	for (size_t i = 0; i < ARRAY_SIZE(vectors); i++) {
		const char *plain = vectors[i][0], *text = vectors[i][1];

		buf_init(&b, 0);
		jwrite_begin(&w, &b);
		jwrite_base64(&w, (const uint8_t *)plain, strlen(plain));
		CHECK_EQ(jwrite_end(&w), 0);
		CHECK_EQ(buf_len(&b), GP_HEADER + strlen(text) + 2);
		CHECK(!memcmp(buf_ptr(&b) + GP_HEADER + 1, text, strlen(text)));
		CHECK(base64_decode(text, strlen(text), out, &len));
		CHECK(len == strlen(plain) && !memcmp(out, plain, len));
		buf_free(&b);
	}
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		CHECK(!base64_decode(bad[i], strlen(bad[i]), out, &len));
}

static void users(void)
{
	static const char passwd[] = "root:x:0:0:root:/root:/bin/bash\n"
				     "broken:x:1\n"
				     "also:x:abc:1::/:/bin/sh\n"
				     ":x:5:5::/:/bin/sh\n"
				     "app:x:1000:1001:App,,,:/home/app:/bin/bash\n"
				     "42:x:77:78::/forty:\n"
				     "last:x:9:9::relative:/bin/sh";
	static const char group[] = "root:x:0:\n"
				    "sudo:x:27:other,app\n"
				    "appx:x:28:apps\n"
				    "app:x:1001:app\n"
				    "x:x:29:app,app\n";
	gid_t gids[USERS_GROUPS], gid = 0;
	struct user u;

	CHECK_EQ(users_parse_passwd(passwd, sizeof(passwd) - 1, "app", &u), 0);
	CHECK(u.uid == 1000 && u.gid == 1001 && !strcmp(u.home, "/home/app"));
	CHECK_STR(u.shell, "/bin/bash");
	CHECK_EQ(users_parse_groups(group, sizeof(group) - 1, &u, gids), 3);
	CHECK(gids[0] == 1001 && gids[1] == 27 && gids[2] == 29);
	CHECK_EQ(users_parse_passwd(passwd, sizeof(passwd) - 1, "1000", &u), 0);
	CHECK_STR(u.name, "app");
	CHECK_EQ(users_parse_passwd(passwd, sizeof(passwd) - 1, "42", &u), 0);
	CHECK(u.uid == 77 && !strcmp(u.shell, "/bin/sh"));
	CHECK_EQ(users_parse_passwd(passwd, sizeof(passwd) - 1, "last", &u), 0);
	CHECK_STR(u.home, "/");
	CHECK_EQ(users_parse_passwd(passwd, sizeof(passwd) - 1, "4711", &u), 0);
	CHECK(u.uid == 4711 && u.gid == 0 && !u.name[0]);
	CHECK_EQ(users_parse_passwd(passwd, sizeof(passwd) - 1, "broken", &u), -ENOENT);
	CHECK_EQ(users_parse_passwd(passwd, sizeof(passwd) - 1, "4294967295", &u), -ENOENT);
	CHECK_EQ(users_parse_passwd(passwd, sizeof(passwd) - 1, "", &u), -ENOENT);
	CHECK_EQ(users_parse_passwd("", 0, "root", &u), -ENOENT);
	CHECK_EQ(users_parse_group(group, sizeof(group) - 1, "sudo", &gid), 0);
	CHECK_EQ(gid, 27);
	CHECK_EQ(users_parse_group(group, sizeof(group) - 1, "300", &gid), 0);
	CHECK_EQ(gid, 300);
	CHECK_EQ(users_parse_group(group, sizeof(group) - 1, "none", &gid), -ENOENT);
}

static void kernel_parameters(void)
{
	struct boot b = { .cmdline =
				  "quiet skerry.root=/dev/vdb skerry.tmpfs=64m xskerry.hostname=no "
				  "skerry.hostname=a skerry.hostname=box" };
	char text[8];
	uint64_t n;

	boot_parse(&b);
	CHECK_STR(b.root, "/dev/vdb");
	CHECK_STR(b.hostname, "box");
	CHECK_STR(b.mode, "");
	CHECK(b.tmpfs_bytes == 64 * MIB);
	CHECK(!boot_param("a=12345678", "a", text, sizeof(text))); /* doesn't fit */
	CHECK(boot_param("a=1234567", "a", text, sizeof(text)));
	CHECK_STR(text, "1234567");
	CHECK(boot_param("b a= c", "a", text, sizeof(text)) && !text[0]);
	CHECK(boot_bytes("0", &n) && n == 0);
	CHECK(boot_bytes("3G", &n) && n == 3 * GIB);
	CHECK(!boot_bytes("", &n) && !boot_bytes("-1", &n) && !boot_bytes("1x", &n) &&
		!boot_bytes("1kk", &n));
	CHECK(!boot_bytes("18446744073709551615g", &n) && !boot_bytes("99999999999999999999", &n));
}

int main(void)
{
	j = jread_create();
	REQUIRE(j);
	strings();
	refused();
	values();
	limits();
	writing();
	base64();
	users();
	kernel_parameters();
	jread_destroy(j);
	TEST_END();
}

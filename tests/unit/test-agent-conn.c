/*
 * guest-init: connections of the real agent: hello, bad input, limits, sessions. protocol.md 5,
 * base/guest_proto.h
 */
#include <signal.h>
#include <sys/wait.h>
#include <sys/socket.h>

#include "tests/lib/agent_peer.h"
#include "tests/lib/test.h"

/* More than JREAD_DEPTH_MAX. */
#define DEEP "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]"

static struct peer p;

static const char *str(const cJSON *o, const char *name)
{
	const char *s = cJSON_GetStringValue(cJSON_GetObjectItem(o, name));

	return s ? s : "(none)";
}

static void start(unsigned flags)
{
	peer_start(&p, GUEST_CONN_LAST | flags, NULL);
}

static void must_close(void)
{
	while (peer_pump(&p, 10000))
		;
	CHECK(p.closed);
	peer_stop(&p);
}

static void hello(void)
{
	static const char *const bad[] = {
		"{\"version\":0,\"idBase\":1,\"idCount\":1}",
		"{\"version\":1,\"idBase\":1,\"idCount\":0}",
		"{\"version\":1,\"idBase\":9007199254740991,\"idCount\":2}",
		"{\"version\":1,\"idBase\":1}",
		"{\"version\":\"1\",\"idBase\":1,\"idCount\":1}",
		"{\"version\":1,\"idBase\":1,\"idCount\":1,\"binary\":1}",
		"{\"version\":1,\"idBase\":-1,\"idCount\":1}",
		"{\"version\":1,\"idBase\":1.5,\"idCount\":1}",
		"[]",
		"null",
	};
	cJSON *r;

	start(0);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		r = peer_call(&p, "$skerry.hello", "%s", bad[i]);
		CHECK(!cJSON_GetObjectItem(r, "version"));
	}
	r = peer_call(&p, "$skerry.hello",
		"{\"version\":7,\"idBase\":0,\"idCount\":9007199254740992,\"binary\":null,\"new\":[1,{\"a\":2}]}");
	CHECK_EQ(cJSON_GetObjectItem(r, "version")->valueint, GP_VERSION);
	CHECK(cJSON_GetObjectItem(r, "readyNs")->valuedouble > 0);
	CHECK(cJSON_GetObjectItem(r, "nowNs")->valuedouble >=
		cJSON_GetObjectItem(r, "readyNs")->valuedouble);
	CHECK_EQ(cJSON_GetObjectItem(r, "initNs")->valueint, 1);
	r = peer_call(&p, "$skerry.hello", "{\"version\":1,\"idBase\":0,\"idCount\":1}");
	CHECK_STR(str(r, "code"), "EINVAL");
	peer_stop(&p);
}

/* 5.4: the two errors that clients know by their codes. */
static void rpc_errors(void)
{
	cJSON *e, *issues, *issue;

	start(0);
	peer_hello(&p, true);
	e = peer_call(&p, "nope", "{}");
	CHECK_EQ(cJSON_GetObjectItem(e, "code")->valueint, -32601);
	CHECK_STR(str(e, "message"), "Method not found");
	e = peer_call(&p, "$skerry.nope", "null");
	CHECK_EQ(cJSON_GetObjectItem(e, "code")->valueint, -32601);
	e = peer_call(&p, "spawn", "{\"command\":5}");
	CHECK_EQ(cJSON_GetObjectItem(e, "code")->valueint, -32602);
	e = cJSON_GetObjectItem(e, "data");
	CHECK_STR(str(e, "constructorName"), "ZodError");
	issues = cJSON_Parse(str(e, "message"));
	CHECK(cJSON_IsArray(issues) && cJSON_GetArraySize(issues) == 1);
	issue = cJSON_GetArrayItem(issues, 0);
	CHECK_STR(str(issue, "expected"), "string");
	CHECK_STR(str(issue, "code"), "invalid_type");
	CHECK_STR(cJSON_GetStringValue(cJSON_GetArrayItem(cJSON_GetObjectItem(issue, "path"), 0)),
		"command");
	cJSON_Delete(issues);
	CHECK(cJSON_IsNull(peer_call(&p, "abort", "{\"abortId\":0}")));
	CHECK(cJSON_IsNull(peer_call(&p, "abort", "{}")));
	peer_note(&p, "$something.new", "{}"); /* unknown notifications are ignored */
	peer_note(&p, "spawn", "{\"command\":\"true\"}");
	CHECK(cJSON_IsNull(peer_call(&p, "abort", "{}")));
	peer_stop(&p);
}

static void wrong_types(void)
{
	static const char *const bad[] = {
		"{}",
		"[]",
		"{\"command\":null}",
		"{\"command\":\"true\",\"args\":\"x\"}",
		"{\"command\":\"true\",\"args\":[1]}",
		"{\"command\":\"true\",\"args\":[null]}",
		"{\"command\":\"true\",\"env\":[]}",
		"{\"command\":\"true\",\"env\":{\"A\":1}}",
		"{\"command\":\"true\",\"clearEnv\":\"yes\"}",
		"{\"command\":\"true\",\"cwd\":1}",
		"{\"command\":\"true\",\"stdinStreamId\":\"1\"}",
		"{\"command\":\"true\",\"stdinStreamId\":-1}",
		"{\"command\":\"true\",\"user\":true}",
		"{\"command\":\"true\",\"pty\":1}",
		"{\"command\":\"true\",\"pty\":{\"rows\":1}}",
		"{\"command\":\"true\",\"pty\":{\"rows\":1,\"cols\":65536}}",
	};

	start(0);
	peer_hello(&p, true);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		cJSON *e = peer_call(&p, "$skerry.spawn", "%s", bad[i]);

		CHECK_EQ(cJSON_GetObjectItem(e, "code")->valueint, -32602);
	}
	CHECK_EQ(
		cJSON_GetObjectItem(peer_call(&p, "processWait", "{\"pid\":-1}"), "code")->valueint,
		-32602);
	CHECK_EQ(cJSON_GetObjectItem(
			 peer_call(&p, "processKill", "{\"pid\":1,\"signal\":9}"), "code")
			 ->valueint,
		-32602);
	peer_stop(&p);
}

/* What can't be understood ends the connection, and nothing else. */
static void bad_messages(void)
{
	static const char *const bad[] = {
		"x",
		"[]",
		"{}",
		"{\"jsonrpc\":\"2.0\",\"id\":1}",
		"{\"jsonrpc\":\"1.0\",\"id\":1,\"method\":\"abort\",\"params\":{}}",
		"{\"jsonrpc\":\"2.0\",\"id\":\"1\",\"method\":\"abort\",\"params\":{}}",
		"{\"jsonrpc\":\"2.0\",\"id\":-1,\"method\":\"abort\",\"params\":{}}",
		"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":7,\"params\":{}}",
		"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"abort\",\"params\":{}",
		"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"abort\",\"params\":{}}}",
		"{\"jsonrpc\":\"2.0\",\"method\":\"$sandbox.stream.end\",\"params\":{}}",
		"{\"jsonrpc\":\"2.0\",\"method\":\"$skerry.credit\",\"params\":{\"streamId\":1}}",
		"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"abort\",\"params\":" DEEP "}",
	};

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		start(0);
		peer_hello(&p, true);
		peer_json(&p, bad[i]);
		must_close();
	}
	start(0); /* nothing before hello */
	peer_json(&p, "{\"jsonrpc\":\"2.0\",\"id\":0,\"method\":\"abort\",\"params\":{}}");
	must_close();
	start(0);
	peer_note(&p, "$sandbox.stream.start", "{\"streamId\":1}");
	must_close();
}

static void bad_frames(void)
{
	static const uint8_t frames[][24] = {
		{ 1, 0, 0, 0, 9 },             /* unknown kind */
		{ 1, 0, 0, 0, 0, 1 },          /* reserved byte */
		{ 0xff, 0xff, 0xff, 0x7f, 0 }, /* too long */
		{ 8, 0, 0, 0, 1 },             /* data without data */
	};

	for (size_t i = 0; i < ARRAY_SIZE(frames); i++) {
		start(0);
		peer_hello(&p, true);
		peer_raw(&p, frames[i], sizeof(frames[i]));
		must_close();
	}
	start(0); /* binary data that wasn't agreed on */
	peer_hello(&p, false);
	p.binary = true;
	peer_data(&p, 1, "x", 1);
	must_close();
	start(0);
	p.binary = true;
	peer_data(&p, 1, "x", 1);
	must_close();
}

/* Everything in single bytes, both ways. */
static void one_byte_at_a_time(void)
{
	struct peer_proc x;

	start(0);
	p.bytewise = true;
	peer_hello(&p, true);
	peer_note(&p, "$sandbox.stream.start", "{\"streamId\":0}");
	x = peer_spawn(&p, "\"command\":\"cat\",\"stdinStreamId\":0");
	peer_data(&p, 0, "hello", 5);
	peer_note(&p, "$sandbox.stream.end", "{\"streamId\":0}");
	CHECK_EQ(peer_exit(&p, x.pid, NULL), 0);
	peer_until_end(&p, x.out);
	CHECK_STR(x.out->text, "hello");
	peer_stop(&p);
}

/* A command line as long as a frame allows, with as many arguments. */
static void large_message(void)
{
	static char args[900000];
	struct peer_proc x;
	size_t n = 0;

	start(0);
	peer_hello(&p, true);
	for (int i = 0; i < 60000; i++)
		n += (size_t)snprintf(args + n, sizeof(args) - n, ",\"%05d\"", i);
	x = peer_spawn(&p, "\"command\":\"sh\",\"args\":[\"-c\",\"echo $#\",\"sh\"%s]", args);
	CHECK_EQ(peer_exit(&p, x.pid, NULL), 0);
	peer_until_end(&p, x.out);
	CHECK_STR(x.out->text, "60000\n");
	n = 0;
	for (int i = 0; i < 66000; i++)
		n += (size_t)snprintf(args + n, sizeof(args) - n, ",\"%05d\"", i);
	peer_send_call(&p, "spawn", "{\"command\":\"true\",\"args\":[\"\"%s]}", args);
	must_close(); /* more values than JREAD_TOKENS_MAX */
}

/*
 * A host that asks and doesn't read: the agent stops reading, its memory stays bounded, nothing is
 * lost.
 */
static void unread_answers(void)
{
	long before;
	struct buf b;
	uint64_t asked = 0, got;
	char text[128];

	start(0);
	peer_hello(&p, true);
	before = peer_rss_kib(&p);
	buf_init(&b, 0);
	while (asked < 50000) {
		ssize_t n;
		snprintf(text, sizeof(text),
			"{\"jsonrpc\":\"2.0\",\"id\":%" PRIu64 ",\"method\":\"no\",\"params\":{}}",
			1000 + asked);
		REQUIRE(frame_put_json(&b, text, strlen(text)) == 0);
		n = send(p.fd, buf_ptr(&b), buf_len(&b), MSG_DONTWAIT | MSG_NOSIGNAL);
		if (n > 0)
			buf_consume(&b, (size_t)n);
		asked++;
	}
	usleep(100000);
	CHECK(peer_rss_kib(&p) <= before + 6 * 1024);
	while (buf_len(&b)) { /* now read: all answers come, in order */
		ssize_t n = send(p.fd, buf_ptr(&b), buf_len(&b), MSG_DONTWAIT | MSG_NOSIGNAL);

		if (n > 0)
			buf_consume(&b, (size_t)n);
		peer_pump(&p, 0);
	}
	while ((got = (uint64_t)cJSON_GetArraySize(p.notes)) < asked)
		REQUIRE(peer_pump(&p, 10000));
	CHECK_EQ(got, asked);
	CHECK_EQ(cJSON_GetObjectItem(cJSON_GetArrayItem(p.notes, 0), "id")->valueint, 1000);
	buf_free(&b);
	peer_stop(&p);
}

static void send_reset(uint8_t first)
{
	uint8_t nonce[GP_RESET_NONCE] = { first, 2, 3 };
	struct buf b;

	buf_init(&b, 0);
	REQUIRE(frame_put_reset(&b, nonce) == 0);
	peer_raw(&p, buf_ptr(&b), buf_len(&b));
	buf_free(&b);
}

/* Until @n resets have been echoed. */
static void until_reset(unsigned n, uint8_t first)
{
	while (p.resets < n)
		REQUIRE(peer_pump(&p, 10000));
	CHECK_EQ(p.nonce[0], first);
}

static void gone(uint64_t pid)
{
	for (int i = 0; i < 200; i++) {
		if (kill((pid_t)pid, 0) && errno == ESRCH)
			return;
		usleep(20000);
	}
	CHECK(!"a process of the old session lives");
}

/* GP_RESET ends the session, not the connection; streams and processes of before are unknown. */
static void reset_session(unsigned flags)
{
	struct peer_proc x, y;

	start(flags);
	send_reset(9); /* legal before hello */
	until_reset(1, 9);
	peer_hello(&p, true);
	peer_note(&p, "$sandbox.stream.start", "{\"streamId\":0}");
	x = peer_spawn(
		&p, "\"command\":\"sh\",\"args\":[\"-c\",\"yes & cat\"],\"stdinStreamId\":0");
	while (x.out->bytes < 100000)
		REQUIRE(peer_pump(&p, 10000));
	x.out->stopped = true; /* nothing else may be said until the echo */
	send_reset(1);
	until_reset(2, 1);
	gone(x.pid);
	x.out->cancelled = true;
	peer_forget(&p, 0); /* the agent counts its ids from the start again */
	peer_hello(&p, true);
	CHECK_STR(str(peer_call(&p, "processKill", "{\"pid\":%" PRIu64 "}", x.pid), "code"),
		"ENOENT");
	CHECK_EQ(peer_run(&p, "echo again", &y), 0);
	CHECK_STR(y.out->text, "again\n");
	if (flags & GUEST_CONN_LASTING) {
		/* Out of step: skips until the next reset, even one that arrives in pieces. */
		peer_raw(&p, "garbage that is no frame at all, \x10\0\0\0\2\0\0", 40);
		send_reset(3);
		until_reset(3, 3);
		peer_forget(&p, 0);
		peer_hello(&p, true);
		CHECK_EQ(peer_run(&p, "echo third", &y), 0);
		peer_kill(&p); /* a lasting connection has no end */
		return;
	}
	peer_stop(&p);
}

/* Statuses are kept for the last GUEST_EXITED_MAX processes. */
static void exited_flood(void)
{
	struct peer_proc x, first = { 0 }, second = { 0 };

	start(0);
	peer_hello(&p, true);
	for (int i = 0; i < GUEST_EXITED_MAX + 1; i++) {
		x = peer_spawn(&p, "\"command\":\"true\",\"stdout\":\"null\",\"stderr\":\"null\"");
		CHECK_EQ(peer_exit(&p, x.pid, NULL), 0);
		if (i < 2)
			*(i ? &second : &first) = x;
	}
	CHECK_STR(str(peer_call(&p, "processWait", "{\"pid\":%" PRIu64 "}", first.pid), "code"),
		"ENOENT");
	CHECK_EQ(peer_exit(&p, second.pid, NULL), 0);
	peer_stop(&p);
}

/*
 * GUEST_WAITS_MAX calls may wait for one process; one more gets an error, the others their answer.
 */
static void wait_flood(void)
{
	struct peer_proc x;
	cJSON *a;

	start(0);
	peer_hello(&p, true);
	x = peer_spawn(&p, "\"command\":\"sleep\",\"args\":[\"100\"]");
	for (int i = 0; i < GUEST_WAITS_MAX; i++)
		peer_send_call(&p, "processWait", "{\"pid\":%" PRIu64 "}", x.pid);
	CHECK_STR(
		str(peer_call(&p, "processWait", "{\"pid\":%" PRIu64 "}", x.pid), "code"), "EBUSY");
	peer_call(&p, "processKill", "{\"pid\":%" PRIu64 "}", x.pid);
	for (uint64_t id = 2; id < 2 + GUEST_WAITS_MAX; id++) {
		a = cJSON_GetObjectItem(peer_wait_answer(&p, id), "result");
		CHECK_EQ(cJSON_GetObjectItem(cJSON_GetObjectItem(a, "ok"), "code")->valueint, 143);
	}
	peer_stop(&p);
}

/* The same id range again and again: an id in use is skipped. */
static void id_range(void)
{
	struct peer_proc x, y;
	cJSON *e;

	start(0);
	peer_call(&p, "$skerry.hello",
		"{\"version\":1,\"idBase\":%d,\"idCount\":4,\"binary\":true}", PEER_ID_BASE);
	p.binary = true;
	x = peer_spawn(&p, "\"command\":\"sleep\",\"args\":[\"100\"]");
	CHECK_EQ(x.out->id, PEER_ID_BASE);
	CHECK_EQ(x.err->id, PEER_ID_BASE + 1);
	for (int i = 0; i < 3; i++) {
		peer_forget(&p, 2);
		y = peer_spawn(&p, "\"command\":\"true\"");
		CHECK(y.out->id >= PEER_ID_BASE + 2 && y.out->id < PEER_ID_BASE + 4);
		CHECK_EQ(peer_exit(&p, y.pid, NULL), 0);
		peer_until_end(&p, y.out);
		peer_until_end(&p, y.err);
	}
	peer_forget(&p, 2);
	y = peer_spawn(&p, "\"command\":\"sleep\",\"args\":[\"100\"]");
	e = peer_call(&p, "spawn", "{\"command\":\"true\"}");
	CHECK_STR(str(e, "code"), "ENOSPC");
	peer_stop(&p);
}

int main(void)
{
	hello();
	rpc_errors();
	wrong_types();
	bad_messages();
	bad_frames();
	one_byte_at_a_time();
	large_message();
	unread_answers();
	reset_session(0);
	reset_session(GUEST_CONN_LASTING);
	wait_flood();
	id_range();
	exited_flood();
	TEST_END();
}

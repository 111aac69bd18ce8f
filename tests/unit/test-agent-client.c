/*
 * api/core/agent against a scripted guest: base/guest_proto.h as the host side must speak it, cut at every byte,
 * and what a hostile guest may try.
 */
#include "api/core/agent.h"
#include "base/frame.h"
#include "base/guest_proto.h"
#include "base/json.h"

#include "tests/lib/test.h"

struct seen {
	unsigned ready, flush, started, failed, ended[2], exited, room, closed;
	struct agent_hello hello;
	struct agent_failure failure;
	struct agent_exit exit;
	uint64_t pid;
	struct buf data[2];
};

static struct seen seen;
static struct agent *a;
static struct error error;
static size_t cut; /* bytes a call of agent_input() gets; 0: all */

static void on_ready(unused_arg struct agent *x, unused_arg void *ctx, const struct agent_hello *h)
{
	seen.ready++;
	seen.hello = *h;
}

static void on_flush(unused_arg struct agent *x, unused_arg void *ctx)
{
	seen.flush++;
}

static void on_started(unused_arg struct agent_proc *p, unused_arg void *ctx, uint64_t pid)
{
	seen.started++;
	seen.pid = pid;
}

static void on_failed(
	unused_arg struct agent_proc *p, unused_arg void *ctx, const struct agent_failure *f)
{
	seen.failed++;
	seen.failure = *f;
}

static void on_data(unused_arg struct agent_proc *p, unused_arg void *ctx, enum agent_stream s,
	const void *data, size_t len)
{
	CHECK_EQ(seen.ended[s], 0);
	REQUIRE(!buf_append(&seen.data[s], data, len));
}

static void on_end(unused_arg struct agent_proc *p, unused_arg void *ctx, enum agent_stream s)
{
	seen.ended[s]++;
}

static void on_exited(
	unused_arg struct agent_proc *p, unused_arg void *ctx, const struct agent_exit *x)
{
	seen.exited++;
	seen.exit = *x;
}

static void on_room(unused_arg struct agent_proc *p, unused_arg void *ctx)
{
	seen.room++;
}

static void on_closed(unused_arg struct agent_proc *p, unused_arg void *ctx)
{
	seen.closed++;
}

static const struct agent_ops ops = { .ready = on_ready, .flush = on_flush };
static const struct agent_proc_ops proc_ops = { on_started, on_failed, on_data, on_end, on_exited,
	on_room, on_closed };

/* ---- the guest ---- */

static int feed(struct buf *b)
{
	size_t step = cut ? cut : buf_len(b);
	int r = 0;

	while (buf_len(b) && !r) {
		size_t n = MIN(MIN(step, buf_len(b)), AGENT_IN_MAX);

		r = agent_input(a, buf_ptr(b), n, &error);
		buf_consume(b, n);
	}
	buf_free(b);
	return r;
}

static int say(const char *json)
{
	struct buf b;

	buf_init(&b, 0);
	REQUIRE(!frame_put_json(&b, json, strlen(json)));
	return feed(&b);
}

static int say_data(uint64_t stream, size_t len)
{
	static uint8_t zeros[GP_DATA_MAX];
	struct buf b;

	buf_init(&b, 0);
	while (len) {
		size_t n = MIN(len, sizeof(zeros));

		REQUIRE(!frame_put_data(&b, stream, zeros, n));
		len -= n;
	}
	return feed(&b);
}

/* The next frame that the client sent: JSON as text, data as "DATA stream length". NULL: none. */
static const char *hear(void)
{
	static char text[70000];
	struct buf *out = agent_out(a);
	const char *why = NULL;
	struct frame f;
	int n;

	if (!buf_len(out))
		return NULL;
	n = frame_parse(buf_ptr(out), buf_len(out), &f, &why);
	REQUIRE(n > 0);
	if (f.kind == GP_DATA)
		snprintf(text, sizeof(text), "DATA %llu %zu", (unsigned long long)f.stream, f.len);
	else
		snprintf(text, sizeof(text), "%.*s", (int)f.len, (const char *)f.data);
	buf_consume(out, (size_t)n);
	return text;
}

static void reset(void)
{
	agent_destroy(a);
	buf_free(&seen.data[0]);
	buf_free(&seen.data[1]);
	memset(&seen, 0, sizeof(seen));
	memset(&error, 0, sizeof(error));
	REQUIRE(!agent_create(&a, &ops, NULL));
}

#define HELLO_OK                                                                                   \
	"{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{\"ok\":{\"version\":1,\"agent\":\"x\","         \
	"\"initNs\":10,\"readyNs\":20,\"nowNs\":30}}}"

static void ready(void)
{
	reset();
	REQUIRE(!agent_hello(a));
	REQUIRE(hear() && !hear());
	REQUIRE(!say(HELLO_OK));
	REQUIRE(seen.ready == 1);
}

static struct agent_proc *spawn(bool with_stdin)
{
	static const char *const args[] = { "-c", "echo \"hi\"\n\xff" };
	static const char *const env[] = { "A=1", "B=x=y", "A=2" };
	struct agent_spawn s = { .command = "sh",
		.args = args,
		.nargs = 2,
		.env = env,
		.nenv = 3,
		.cwd = "/tmp",
		.user = "app",
		.stdin_piped = with_stdin };
	struct agent_proc *p = NULL;

	REQUIRE(!agent_spawn(a, &s, &proc_ops, NULL, &p, &error));
	return p;
}

static void drain(void)
{
	while (hear())
		;
}

#define SPAWN_OK                                                                                   \
	"{\"jsonrpc\":\"2.0\",\"id\":2,\"result\":{\"ok\":{\"pid\":42,\"stdoutStreamId\":7,"       \
	"\"stderrStreamId\":8}}}"

static struct agent_proc *running(bool with_stdin)
{
	struct agent_proc *p;

	ready();
	p = spawn(with_stdin);
	drain();
	REQUIRE(!say(SPAWN_OK) && seen.started == 1);
	drain();
	return p;
}

/* ---- tests ---- */

static void test_hello(void)
{
	reset();
	REQUIRE(!agent_hello(a));
	CHECK_EQ(seen.flush, 1);
	CHECK_STR(hear(),
		"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"$skerry.hello\",\"params\":{"
		"\"version\":1,\"idBase\":1,\"idCount\":4503599627370496,\"binary\":true}}");
	CHECK_EQ(say(HELLO_OK), 0);
	CHECK_EQ(seen.ready, 1);
	CHECK_EQ(seen.hello.init_ns, 10);
	CHECK_EQ(seen.hello.ready_ns, 20);
	CHECK_EQ(seen.hello.now_ns, 30);
	CHECK(seen.hello.sent_ns && seen.hello.sent_ns <= seen.hello.received_ns);
}

static void test_run(void)
{
	ready();
	spawn(true);
	CHECK_STR(hear(), "{\"jsonrpc\":\"2.0\",\"method\":\"$sandbox.stream.start\","
			  "\"params\":{\"streamId\":1}}");
	CHECK_STR(hear(), "{\"jsonrpc\":\"2.0\",\"id\":2,\"method\":\"$skerry.spawn\",\"params\":{"
			  "\"command\":\"sh\",\"args\":[\"-c\",\"echo \\\"hi\\\"\\n\xff\"],"
			  "\"env\":{\"B\":\"x=y\",\"A\":\"2\"},\"cwd\":\"/tmp\",\"user\":\"app\","
			  "\"stdinStreamId\":1,\"stdout\":\"piped\",\"stderr\":\"piped\"}}");
	CHECK_EQ(say(SPAWN_OK), 0);
	CHECK_EQ(seen.started, 1);
	CHECK_EQ(seen.pid, 42);
	CHECK_STR(hear(), "{\"jsonrpc\":\"2.0\",\"id\":3,\"method\":\"processWait\",\"params\":{"
			  "\"pid\":42}}");
	CHECK_EQ(say("{\"jsonrpc\":\"2.0\",\"method\":\"$sandbox.stream.start\",\"params\":{"
		     "\"streamId\":7}}"),
		0);
	CHECK_EQ(say_data(7, 100), 0);
	CHECK_EQ(say_data(8, 3), 0);
	CHECK_EQ(buf_len(&seen.data[0]), 100);
	CHECK_EQ(buf_len(&seen.data[1]), 3);
	CHECK_EQ(say("{\"jsonrpc\":\"2.0\",\"method\":\"$sandbox.stream.end\",\"params\":{"
		     "\"streamId\":7}}"),
		0);
	CHECK_EQ(seen.ended[0], 1);
	CHECK_EQ(seen.ended[1], 0);
	CHECK_EQ(say("{\"jsonrpc\":\"2.0\",\"id\":3,\"result\":{\"ok\":{\"success\":false,"
		     "\"code\":137,\"signal\":\"SIGKILL\",\"oom\":\"high-confidence\"}}}"),
		0);
	CHECK_EQ(seen.exited, 1);
	CHECK_EQ(seen.exit.code, 137);
	CHECK_STR(seen.exit.signal, "SIGKILL");
	CHECK_EQ(seen.exit.oom, AGENT_OOM_YES);
	CHECK(!hear());
}

static void test_spawn_failed(void)
{
	ready();
	spawn(false);
	drain();
	CHECK_EQ(say("{\"jsonrpc\":\"2.0\",\"id\":2,\"result\":{\"error\":{\"constructorName\":"
		     "\"NotFound\",\"message\":\"no \\u001b[31m\",\"code\":\"ENOENT\"}}}"),
		0);
	CHECK_EQ(seen.failed, 1);
	CHECK_STR(seen.failure.code, "ENOENT");
	CHECK_STR(seen.failure.message, "no \\x1b[31m");
	/* JSON-RPC's own form of an error, and none at all */
	ready();
	spawn(false);
	CHECK_EQ(
		say("{\"jsonrpc\":\"2.0\",\"id\":2,\"error\":{\"code\":-32601,\"message\":\"Method "
		    "not found\"}}"),
		0);
	CHECK_STR(seen.failure.message, "Method not found");
	ready();
	spawn(false);
	CHECK_EQ(say("{\"jsonrpc\":\"2.0\",\"id\":2,\"result\":{}}"), 0);
	CHECK_EQ(seen.failed, 1);
}

static void test_signals(void)
{
	struct agent_proc *p = running(false);

	agent_proc_kill(p, 15, false);
	CHECK_STR(hear(), "{\"jsonrpc\":\"2.0\",\"id\":4,\"method\":\"processKill\",\"params\":{"
			  "\"pid\":42,\"signal\":\"SIGTERM\"}}");
	agent_proc_kill(p, 2, true);
	CHECK(strstr(hear(), "\"signal\":\"SIGINT\",\"group\":true}"));
	agent_proc_kill(p, 9999, true);
	CHECK(!hear());
	CHECK_EQ(say("{\"jsonrpc\":\"2.0\",\"id\":4,\"result\":{\"ok\":null}}"), 0);
	agent_proc_resize(p, 50, 132);
	CHECK(strstr(hear(), "$skerry.resize\",\"params\":{\"pid\":42,\"rows\":50,\"cols\":132}"));
	agent_set_time(a, UINT64_C(1795000000123456789));
	CHECK(strstr(hear(), "$skerry.setTime\",\"params\":{\"unixNs\":1795000000123456789}"));
}

/* guest_proto.h: a writer that exceeds its credit ends the connection; ours never does. */
static void test_input_credit(void)
{
	struct agent_proc *p = running(true);
	static uint8_t data[GP_CREDIT_INITIAL];

	CHECK_EQ(agent_proc_stdin_room(p), GP_CREDIT_INITIAL);
	CHECK_EQ(agent_proc_stdin(p, data, GP_CREDIT_INITIAL - 1), 0);
	CHECK_EQ(agent_proc_stdin(p, data, 2), -ENOBUFS);
	CHECK_EQ(agent_proc_stdin_room(p), 1);
	CHECK_EQ(agent_proc_stdin(p, data, 1), 0);
	CHECK_EQ(agent_proc_stdin_room(p), 0);
	for (size_t n = 0; n < GP_CREDIT_INITIAL;) {
		const char *f = hear();

		REQUIRE(f && !strncmp(f, "DATA 1 ", 7));
		n += strtoul(f + 7, NULL, 10);
		CHECK(n <= GP_CREDIT_INITIAL);
	}
	agent_out_drained(a);
	CHECK_EQ(seen.room, 0);
	CHECK_EQ(say("{\"jsonrpc\":\"2.0\",\"method\":\"$skerry.credit\",\"params\":{"
		     "\"streamId\":1,\"bytes\":5}}"),
		0);
	CHECK_EQ(seen.room, 1);
	CHECK_EQ(agent_proc_stdin_room(p), 5);
	agent_proc_stdin_end(p);
	CHECK_STR(hear(), "{\"jsonrpc\":\"2.0\",\"method\":\"$sandbox.stream.end\",\"params\":{"
			  "\"streamId\":1}}");
	CHECK_EQ(agent_proc_stdin(p, data, 1), -EPIPE);
	agent_proc_stdin_end(p);
	CHECK(!hear());
}

static void test_input_cancelled(void)
{
	struct agent_proc *p = running(true);

	CHECK_EQ(say("{\"jsonrpc\":\"2.0\",\"method\":\"$sandbox.stream.cancel\",\"params\":{"
		     "\"streamId\":1,\"reason\":null}}"),
		0);
	CHECK_EQ(seen.closed, 1);
	CHECK_EQ(agent_proc_stdin_room(p), 0);
	CHECK_EQ(agent_proc_stdin(p, "x", 1), -EPIPE);
	/* nothing more is sent for it, no end either (protocol 6.3) */
	agent_proc_stdin_end(p);
	CHECK(!hear());
}

/* Input waits while the transport doesn't take what is queued. */
static void test_input_transport_full(void)
{
	static uint8_t data[GP_CREDIT_INITIAL];
	struct agent_proc *p = running(true);

	CHECK_EQ(say("{\"jsonrpc\":\"2.0\",\"method\":\"$skerry.credit\",\"params\":{"
		     "\"streamId\":1,\"bytes\":100000000}}"),
		0);
	while (agent_proc_stdin_room(p))
		CHECK_EQ(agent_proc_stdin(p, data, agent_proc_stdin_room(p)), 0);
	CHECK(buf_len(agent_out(a)) >= AGENT_OUT_FULL);
	CHECK(buf_len(agent_out(a)) < AGENT_OUT_FULL + 2 * GP_CREDIT_INITIAL);
	agent_out_drained(a);
	CHECK_EQ(seen.room, 0);
	drain();
	agent_out_drained(a);
	CHECK_EQ(seen.room, 1);
}

static void test_output_credit(void)
{
	struct agent_proc *p = running(false);

	CHECK_EQ(say_data(7, GP_CREDIT_INITIAL), 0);
	agent_proc_grant(p, AGENT_STDOUT, 1000);
	CHECK(!hear());
	agent_proc_grant(p, AGENT_STDOUT, GP_CREDIT_INITIAL - 1000);
	CHECK_STR(hear(), "{\"jsonrpc\":\"2.0\",\"method\":\"$skerry.credit\",\"params\":{"
			  "\"streamId\":7,\"bytes\":262144}}");
	CHECK_EQ(say_data(7, GP_CREDIT_INITIAL), 0);
	CHECK_EQ(say_data(8, 1), 0); /* one stream's credit is not another's */
	CHECK_EQ(say_data(7, 1), -EPROTO);
	CHECK_STR(error.msg, "stdout of process 42: more data than granted");
	CHECK_EQ(say_data(8, 1), -EPROTO);
}

static void test_cancel(void)
{
	struct agent_proc *p = running(false);

	agent_proc_cancel(p, AGENT_STDOUT);
	CHECK(strstr(hear(), "$sandbox.stream.cancel\",\"params\":{\"streamId\":7,"));
	agent_proc_cancel(p, AGENT_STDOUT);
	CHECK(!hear());
	/* what was under way is dropped */
	CHECK_EQ(say_data(7, 100), 0);
	CHECK_EQ(buf_len(&seen.data[0]), 0);
	CHECK_EQ(say("{\"jsonrpc\":\"2.0\",\"method\":\"$sandbox.stream.end\",\"params\":{"
		     "\"streamId\":7}}"),
		0);
	CHECK_EQ(seen.ended[0], 0);
	agent_proc_free(p);
	CHECK(strstr(hear(), "$sandbox.stream.cancel\",\"params\":{\"streamId\":8,"));
	CHECK_EQ(say_data(8, 100), 0);
	CHECK_EQ(say("{\"jsonrpc\":\"2.0\",\"id\":3,\"result\":{\"ok\":{\"success\":true,"
		     "\"code\":0,\"signal\":null,\"oom\":null}}}"),
		0);
	CHECK_EQ(seen.exited, 0);
}

static void test_hostile(void)
{
	static const char *const before_hello[] = { "[]", "{}", "7", "{\"id\":0}", "{\"id\":2}",
		"{\"method\":\"x\"}", "{\"id\":1}", "{\"id\":1,\"result\":{\"ok\":{}}}",
		"{\"id\":1,\"result\":{\"ok\":{\"version\":2,\"initNs\":1,\"readyNs\":1,\"nowNs\":1}}}",
		"{\"id\":\"1\"}", "{", "\xff" };
	static const char *const in_spawn[] = {
		"{\"id\":2,\"result\":{\"ok\":{}}}",
		"{\"id\":2,\"result\":{\"ok\":{\"pid\":0}}}",
		"{\"id\":2,\"result\":{\"ok\":{\"pid\":-1}}}",
		"{\"id\":2,\"result\":{\"ok\":{\"pid\":1,\"stdoutStreamId\":0}}}",
		"{\"id\":2,\"result\":{\"ok\":{\"pid\":1,\"stdoutStreamId\":9007199254740991}}}",
		"{\"id\":2,\"result\":{\"ok\":{\"pid\":1,\"stdoutStreamId\":7,\"stderrStreamId\":7}}}",
		"{\"id\":99,\"result\":{\"ok\":{}}}",
	};
	static const char *const in_run[] = {
		"{\"id\":3,\"result\":{\"error\":{\"message\":\"x\"}}}",
		"{\"id\":3,\"result\":{\"ok\":{\"code\":256}}}",
		"{\"id\":3,\"result\":{\"ok\":{\"code\":1,\"signal\":\"SIGAVERYLONGNAMEINDEED\"}}}",
		"{\"id\":3,\"result\":{\"ok\":{\"code\":1,\"oom\":5}}}",
		"{\"method\":\"$skerry.credit\"}",
		"{\"method\":\"$skerry.credit\",\"params\":{\"streamId\":1,\"bytes\":0}}",
		"{\"method\":\"$skerry.credit\",\"params\":{\"streamId\":1,\"bytes\":9007199254740993}}",
		"{\"method\":\"$skerry.credit\",\"params\":{\"streamId\":1,\"bytes\":9007199254740992}}",
		"{\"method\":\"$sandbox.stream.enqueue\",\"params\":{\"streamId\":7,\"data\":\"\"}}",
		"{\"method\":\"$sandbox.stream.start\",\"params\":{\"streamId\":0}}",
		"{\"method\":\"$sandbox.stream.end\",\"params\":{\"streamId\":4503599627370497}}",
		"{\"method\":7}",
	};
	static const uint8_t bad_frames[][9] = { { 1, 0, 0, 0, 7 }, { 0, 0, 0, 0, 0 },
		{ 1, 0, 0, 1, 0 }, { 1, 0, 0, 0, 0, 1 }, { 1, 0, 0, 0, 1 } };

	for (size_t i = 0; i < ARRAY_SIZE(before_hello); i++) {
		reset();
		CHECK_EQ(agent_hello(a), 0);
		CHECK_EQ(say(before_hello[i]), -EPROTO);
		CHECK(error.code == EPROTO && error.msg[0]);
	}
	for (size_t i = 0; i < ARRAY_SIZE(in_spawn); i++) {
		ready();
		spawn(false);
		CHECK_EQ(say(in_spawn[i]), -EPROTO);
	}
	for (size_t i = 0; i < ARRAY_SIZE(in_run); i++) {
		running(true);
		CHECK_EQ(say(in_run[i]), -EPROTO);
		CHECK_EQ(seen.exited, 0);
	}
	for (size_t i = 0; i < ARRAY_SIZE(bad_frames); i++) {
		running(true);
		CHECK_EQ(agent_input(a, bad_frames[i], 9, &error), -EPROTO);
	}
	running(true);
	CHECK_EQ(say_data(0, 1), -EPROTO);
	/* harmless: unknown notifications, answers nobody waits for, streams nobody knows */
	running(true);
	CHECK_EQ(say("{\"method\":\"$skerry.later\"}"), 0);
	CHECK_EQ(say("{\"id\":1,\"result\":{\"ok\":null}}"), 0);
	CHECK_EQ(say_data(1234567, 100), 0);
	reset();
	CHECK_EQ(say("{\"id\":1}"), -EPROTO);
}

/* A guest that reads nothing can't make the queue grow for ever. */
static void test_flood(void)
{
	struct agent_proc *p = running(false);

	for (int i = 0; i < 100000; i++)
		agent_proc_kill(p, 10, false);
	CHECK(buf_len(agent_out(a)) <= AGENT_OUT_MAX);
	CHECK_EQ(say("{\"method\":\"$skerry.later\"}"), -EPROTO);
	CHECK_STR(error.msg, "the guest's agent doesn't read");
}

static void test_limits(void)
{
	struct agent_spawn s = { .command = "x" };
	struct agent_proc *p = NULL;
	char *big = malloc(GP_FRAME_MAX + 1);
	const char *arg = big;

	REQUIRE(big);
	memset(big, 'x', GP_FRAME_MAX);
	big[GP_FRAME_MAX] = '\0';
	reset();
	CHECK_EQ(agent_spawn(a, &s, &proc_ops, NULL, &p, &error), -ENOTCONN);
	ready();
	s.args = &arg;
	s.nargs = 1;
	s.stdin_piped = true;
	CHECK_EQ(agent_spawn(a, &s, &proc_ops, NULL, &p, &error), -E2BIG);
	CHECK_STR(error.msg, "command line and environment: larger than 1024 KiB in all");
	/* the stream that was announced is ended */
	CHECK(strstr(hear(), "stream.start"));
	CHECK(strstr(hear(), "stream.end"));
	free(big);
	s.nargs = 0;
	s.stdin_piped = false;
	for (int i = 0; i < AGENT_PROCS_MAX; i++) {
		REQUIRE(!agent_spawn(a, &s, &proc_ops, NULL, &p, &error));
		drain();
	}
	CHECK_EQ(agent_spawn(a, &s, &proc_ops, NULL, &p, &error), -ENOBUFS);
	agent_proc_free(p);
	CHECK_EQ(agent_spawn(a, &s, &proc_ops, NULL, &p, &error), 0);
}

int main(void)
{
	for (cut = 0; cut < 8; cut++) {
		test_hello();
		test_run();
		test_spawn_failed();
		test_signals();
		test_input_credit();
		test_input_cancelled();
		test_input_transport_full();
		test_cancel();
		test_hostile();
	}
	cut = 0;
	test_output_credit();
	test_flood();
	test_limits();
	agent_destroy(a);
	buf_free(&seen.data[0]);
	buf_free(&seen.data[1]);
	TEST_END();
}

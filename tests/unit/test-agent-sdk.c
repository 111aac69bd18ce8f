/*
 * guest-init: a connection without binary, as the SDKs' messages reach the agent. protocol.md 6,
 * 7.5, 14
 */
#include <time.h>

#include "tests/lib/agent_peer.h"
#include "tests/lib/test.h"

#define HOLD_MS 250

static struct peer p;
static uint8_t chunk[384 * 1024];

static uint64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

/* The id of a new process, by the SDKs' own method. */
static uint64_t spawn(const char *params, struct peer_stream **ret_out)
{
	cJSON *ok = peer_call(&p, "spawn", "%s", params);

	REQUIRE(cJSON_IsNumber(cJSON_GetObjectItem(ok, "pid")));
	*ret_out =
		peer_stream(&p, (uint64_t)cJSON_GetObjectItem(ok, "stdoutStreamId")->valuedouble);
	return (uint64_t)cJSON_GetObjectItem(ok, "pid")->valuedouble;
}

/* 6.2: all stream frames of a process wait for processWait, also if it has exited long ago. */
static void held_until_wait(void)
{
	struct peer_stream *out;
	uint64_t pid = spawn(
		"{\"command\":\"echo\",\"args\":[\"hi\"],\"stdout\":\"piped\",\"stderr\":\"null\"}",
		&out);

	usleep(100000);
	CHECK(!peer_pump(&p, 0) && !out->started);
	CHECK_EQ(peer_exit(&p, pid, NULL), 0);
	peer_until_end(&p, out);
	CHECK_STR(out->text, "hi\n");
}

/* ... or for 250 ms. */
static void held_for_a_time(void)
{
	uint64_t before = now_ms();
	struct peer_stream *out;

	spawn("{\"command\":\"echo\",\"args\":[\"hi\"],\"stdout\":\"inherit\",\"stderr\":\"inherit\"}",
		&out);
	peer_until_end(&p, out);
	CHECK(now_ms() - before >= HOLD_MS - 1);
	CHECK_STR(out->text, "hi\n");
}

/*
 * With a stdin stream those 250 ms begin at its end. Meanwhile input is taken, more than pipes
 * hold, or a process that echoes it would be in a deadlock with a client that waits for nothing
 * else.
 */
static void held_while_stdin_is_open(void)
{
	uint64_t hash = PEER_HASH, pid;
	struct peer_stream *out;

	peer_note(&p, "$sandbox.stream.start", "{\"streamId\":0}");
	pid = spawn(
		"{\"command\":\"cat\",\"stdinStreamId\":0,\"stdout\":\"piped\",\"stderr\":\"null\"}",
		&out);
	for (int i = 0; i < 4; i++) {
		peer_data(&p, 0, chunk, sizeof(chunk));
		hash = peer_hash(hash, chunk, sizeof(chunk));
	}
	CHECK(!peer_pump(&p, HOLD_MS + 150) && !out->started);
	peer_data(&p, 0, "", 0); /* 6.3: an empty chunk is possible */
	peer_note(&p, "$sandbox.stream.end", "{\"streamId\":0}");
	CHECK(!peer_pump(&p, HOLD_MS / 2));
	peer_until_end(&p, out);
	CHECK_EQ(out->bytes, 4 * sizeof(chunk));
	CHECK(out->hash == hash);
	CHECK_EQ(peer_exit(&p, pid, NULL), 0);
}

/* 6.3: the whole stream may come before the request. */
static void early_input(void)
{
	struct peer_stream *out;
	uint64_t pid;

	peer_note(&p, "$sandbox.stream.start", "{\"streamId\":1}");
	peer_data(&p, 1, "early", 5);
	peer_note(&p, "$sandbox.stream.end", "{\"streamId\":1}");
	pid = spawn("{\"command\":\"cat\",\"stdinStreamId\":1,\"user\":\"ignored here\"}", &out);
	CHECK_EQ(peer_exit(&p, pid, NULL), 0);
	peer_until_end(&p, out);
	CHECK_STR(out->text, "early");
}

static bool cancelled(uint64_t stream)
{
	cJSON *n;

	cJSON_ArrayForEach(n, p.notes)
	{
		const cJSON *id = cJSON_GetObjectItem(cJSON_GetObjectItem(n, "params"), "streamId");

		if (id && id->valuedouble == (double)stream)
			return true;
	}
	return false;
}

static void bad_input(void)
{
	static const char *const bad[] = { "\"x\"", "\"!!!!\"", "\"QQ==QQ==\"", "1", "null" };
	struct peer_stream *out;
	uint64_t pid;

	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
		peer_note(&p, "$sandbox.stream.start", "{\"streamId\":%u}", 20 + i);
		peer_note(&p, "$sandbox.stream.enqueue", "{\"streamId\":%u,\"data\":%s}", 20 + i,
			bad[i]);
		while (!cancelled(20 + i))
			REQUIRE(peer_pump(&p, 10000));
	}
	/* An error of the source is the end for a process; Python sends a bare string. */
	peer_note(&p, "$sandbox.stream.start", "{\"streamId\":30}");
	pid = spawn("{\"command\":\"cat\",\"stdinStreamId\":30}", &out);
	peer_note(&p, "$sandbox.stream.error", "{\"streamId\":30,\"error\":\"why\"}");
	CHECK_EQ(peer_exit(&p, pid, NULL), 0);
	peer_until_end(&p, out);
}

/*
 * 6.3: input that nobody reads is stored up to a limit, then its stream is cancelled; the rest
 * works.
 */
static void input_limit(void)
{
	struct peer_stream *out;
	uint64_t sent = 0, pid;

	peer_note(&p, "$sandbox.stream.start", "{\"streamId\":40}");
	pid = spawn("{\"command\":\"sleep\",\"args\":[\"1000\"],\"stdinStreamId\":40}", &out);
	while (!cancelled(40) && sent < 2 * GUEST_STDIN_MAX) {
		peer_data(&p, 40, chunk, sizeof(chunk));
		sent += sizeof(chunk);
		while (peer_pump(&p, 0))
			;
	}
	CHECK(cancelled(40));
	CHECK(sent <= GUEST_STDIN_MAX + 4 * MIB);
	CHECK(peer_rss_kib(&p) < 16 * 1024); /* given back */
	CHECK(cJSON_IsNull(peer_call(&p, "processKill", "{\"pid\":%" PRIu64 "}", pid)));
	CHECK_EQ(peer_exit(&p, pid, NULL), 143);
}

/* 1 MiB each way at once through base64; no chunk over 64 KiB (the peer checks). */
static void both_ways(void)
{
	struct peer_stream *out;
	uint64_t hash = PEER_HASH, pid, wait;

	peer_note(&p, "$sandbox.stream.start", "{\"streamId\":50}");
	pid = spawn("{\"command\":\"cat\",\"stdinStreamId\":50}", &out);
	wait = peer_send_call(&p, "processWait", "{\"pid\":%" PRIu64 "}", pid);
	for (size_t i = 1; i < 2000; i++) {
		peer_data(&p, 50, chunk + i, i);
		hash = peer_hash(hash, chunk + i, i);
		while (peer_pump(&p, 0))
			;
	}
	peer_note(&p, "$sandbox.stream.end", "{\"streamId\":50}");
	peer_until_end(&p, out);
	CHECK_EQ(out->bytes, 1999 * 2000 / 2);
	CHECK(out->hash == hash);
	peer_wait_answer(&p, wait);
}

int main(void)
{
	for (size_t i = 0; i < sizeof(chunk); i++)
		chunk[i] = (uint8_t)(i * 31 + i / 253);
	peer_start(&p, GUEST_CONN_LAST, NULL);
	peer_hello(&p, false);
	held_until_wait();
	held_for_a_time();
	held_while_stdin_is_open();
	early_input();
	bad_input();
	both_ways();
	input_limit();
	peer_stop(&p);
	TEST_END();
}

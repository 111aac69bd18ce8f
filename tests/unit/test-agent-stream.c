/*
 * guest-init: streams of the real agent: bytes, credit both ways, stopped readers.
 * base/guest_proto.h
 */
#include <signal.h>

#include "tests/lib/agent_peer.h"
#include "tests/lib/test.h"

#define MANY (10 * MIB)

static struct peer p;
static uint8_t chunk[GP_DATA_MAX];

static void fill(uint64_t seed)
{
	for (size_t i = 0; i < sizeof(chunk); i++) {
		seed = seed * UINT64_C(6364136223846793005) + 1442695040888963407u;
		chunk[i] = (uint8_t)(seed >> 56);
	}
}

/* Sends @len bytes as credit allows, the same chunk again and again. Returns their hash. */
static uint64_t feed(uint64_t stream, uint64_t len)
{
	uint64_t sent = 0, hash = PEER_HASH, base = p.input_credit;

	while (sent < len) {
		size_t n = (size_t)MIN(1 + (sent * 7919) % sizeof(chunk), len - sent);

		while (p.binary && sent + n > GP_CREDIT_INITIAL + p.input_credit - base)
			REQUIRE(peer_pump(&p, 30000));
		peer_data(&p, stream, chunk, n);
		hash = peer_hash(hash, chunk, n);
		sent += n;
		while (peer_pump(&p, 0))
			;
	}
	return hash;
}

/* 10 MiB through cat, both ways at once, byte-exact. */
static void both_ways(uint64_t stream)
{
	struct peer_proc x;
	uint64_t hash;

	peer_note(&p, "$sandbox.stream.start", "{\"streamId\":%" PRIu64 "}", stream);
	x = peer_spawn(&p, "\"command\":\"cat\",\"stdinStreamId\":%" PRIu64, stream);
	hash = feed(stream, MANY);
	peer_note(&p, "$sandbox.stream.end", "{\"streamId\":%" PRIu64 "}", stream);
	CHECK_EQ(peer_exit(&p, x.pid, NULL), 0);
	peer_until_end(&p, x.out);
	CHECK_EQ(x.out->bytes, MANY);
	CHECK(x.out->hash == hash);
}

static void large_output(void)
{
	struct peer_proc x =
		peer_spawn(&p, "\"command\":\"head\",\"args\":[\"-c\",\"%llu\",\"/dev/zero\"]",
			(unsigned long long)MANY);

	peer_until_end(&p, x.out);
	CHECK_EQ(x.out->bytes, MANY);
	CHECK_EQ(peer_exit(&p, x.pid, NULL), 0);
}

/*
 * A reader that gives no credit: the agent sends what was granted and then waits, its memory
 *                                doesn't grow, another
 * stream and signals work as before, and what is granted later comes.
 */
static void stopped_reader(void)
{
	struct peer_proc x = peer_spawn(&p, "\"command\":\"cat\",\"args\":[\"/dev/zero\"]"), y;
	char signal[16];
	long before;

	x.out->stopped = true;
	while (x.out->window)
		REQUIRE(peer_pump(&p, 10000));
	CHECK(!peer_pump(&p, 200));
	CHECK_EQ(x.out->bytes, GP_CREDIT_INITIAL);
	before = peer_rss_kib(&p);
	CHECK_EQ(peer_run(&p, "head -c 3000000 /dev/zero; exit 3", &y), 3);
	CHECK_EQ(y.out->bytes, 3000000);
	CHECK(peer_rss_kib(&p) <= before + 2048);
	x.out->window += 1000;
	peer_note(&p, "$skerry.credit", "{\"streamId\":%" PRIu64 ",\"bytes\":1000}", x.out->id);
	while (x.out->window)
		REQUIRE(peer_pump(&p, 10000));
	CHECK_EQ(x.out->bytes, GP_CREDIT_INITIAL + 1000);
	peer_call(&p, "processKill", "{\"pid\":%" PRIu64 "}", x.pid);
	CHECK_EQ(peer_exit(&p, x.pid, signal), 143);
}

/*
 * A process that doesn't read: the host gets no more credit than a pipe and the initial grant hold.
 */
static void stopped_stdin(void)
{
	struct peer_proc x, y;
	uint64_t base = p.input_credit;
	long before = peer_rss_kib(&p);

	peer_note(&p, "$sandbox.stream.start", "{\"streamId\":77}");
	x = peer_spawn(&p, "\"command\":\"sleep\",\"args\":[\"1000\"],\"stdinStreamId\":77");
	for (int i = 0; i < 4; i++)
		peer_data(&p, 77, chunk, sizeof(chunk));
	CHECK_EQ(peer_run(&p, "echo other", &y), 0);
	CHECK(p.input_credit - base <= 131072);
	CHECK(peer_rss_kib(&p) <= before + 1024);
	peer_call(&p, "processKill", "{\"pid\":%" PRIu64 ",\"signal\":\"SIGKILL\"}", x.pid);
	CHECK_EQ(peer_exit(&p, x.pid, NULL), 137);
}

/* Whether a cancel for @stream has come. */
static bool cancelled(uint64_t stream)
{
	cJSON *n;

	cJSON_ArrayForEach(n, p.notes)
	{
		const cJSON *params = cJSON_GetObjectItem(n, "params");

		if (!strcmp(cJSON_GetStringValue(cJSON_GetObjectItem(n, "method")),
			    "$sandbox.stream.cancel") &&
			cJSON_GetObjectItem(params, "streamId")->valuedouble == (double)stream)
			return cJSON_IsObject(cJSON_GetObjectItem(params, "reason"));
	}
	return false;
}

static void until_cancelled(uint64_t stream)
{
	while (!cancelled(stream))
		REQUIRE(peer_pump(&p, 10000));
}

/* Nobody reads any more: the host is told; what is still under way is dropped. */
static void closed_stdin(void)
{
	struct peer_proc x;

	peer_note(&p, "$sandbox.stream.start", "{\"streamId\":78}");
	x = peer_spawn(&p, "\"command\":\"true\",\"stdinStreamId\":78");
	CHECK_EQ(peer_exit(&p, x.pid, NULL), 0);
	until_cancelled(78);
	peer_data(&p, 78, "late", 4);
	peer_note(&p, "$sandbox.stream.end", "{\"streamId\":78}");
	CHECK_EQ(peer_run(&p, "true", &x), 0);
	/* A process that couldn't be started takes its stream along. */
	peer_note(&p, "$sandbox.stream.start", "{\"streamId\":79}");
	CHECK_STR(peer_spawn_error(&p, "\"command\":\"/nowhere\",\"stdinStreamId\":79"), "ENOENT");
	until_cancelled(79);
	/* A cancel for an unknown stream is ignored, both ways. */
	peer_note(&p, "$sandbox.stream.cancel", "{\"streamId\":12345,\"reason\":null}");
	peer_note(&p, "$skerry.credit", "{\"streamId\":12345,\"bytes\":1}");
}

/* The host cancels an output: SIGPIPE for its writer, nothing more from the agent. */
static void cancelled_output(void)
{
	struct peer_proc x = peer_spawn(&p, "\"command\":\"yes\"");
	char signal[16];

	while (x.out->bytes < 1000)
		REQUIRE(peer_pump(&p, 10000));
	peer_note(&p, "$sandbox.stream.cancel", "{\"streamId\":%" PRIu64 ",\"reason\":null}",
		x.out->id);
	CHECK_EQ(peer_exit(&p, x.pid, signal), 141);
	CHECK_STR(signal, "SIGPIPE");
	x.out->cancelled = true; /* from here on the peer fails if anything comes */
	CHECK_EQ(peer_run(&p, "true", &x), 0);
}

/* A stream that is complete before the request that claims it; several sizes, also empty. */
static void early_streams(void)
{
	static const unsigned sizes[] = { 0, 1, 65536, GP_CREDIT_INITIAL };
	struct peer_proc x;

	for (unsigned i = 0; i < ARRAY_SIZE(sizes); i++) {
		uint64_t id = 100 + i;

		peer_note(&p, "$sandbox.stream.start", "{\"streamId\":%" PRIu64 "}", id);
		for (unsigned done = 0; done < sizes[i];
			done += (unsigned)MIN(sizes[i] - done, 65536))
			peer_data(&p, id, chunk, MIN(sizes[i] - done, 65536));
		peer_note(&p, "$sandbox.stream.end", "{\"streamId\":%" PRIu64 "}", id);
		x = peer_spawn(&p, "\"command\":\"cat\",\"stdinStreamId\":%" PRIu64, id);
		CHECK_EQ(peer_exit(&p, x.pid, NULL), 0);
		peer_until_end(&p, x.out);
		CHECK_EQ(x.out->bytes, sizes[i]);
	}
}

static void null_streams(void)
{
	struct peer_proc x =
		peer_spawn(&p, "\"command\":\"sh\",\"args\":[\"-c\",\"cat; echo x; echo y >&2\"],"
			       "\"stdout\":\"null\",\"stderr\":\"null\"");

	CHECK(!x.out && !x.err);
	CHECK_EQ(peer_exit(&p, x.pid, NULL), 0);
}

static void restart(void)
{
	peer_stop(&p);
	peer_start(&p, GUEST_CONN_LAST, NULL);
	peer_hello(&p, true);
}

static void until_closed(void)
{
	while (peer_pump(&p, 10000))
		;
	CHECK(p.closed);
	restart();
}

/* A writer that exceeds its credit ends the connection; one that uses it up exactly doesn't. */
static void exceeded_credit(void)
{
	peer_note(&p, "$sandbox.stream.start", "{\"streamId\":5}");
	for (unsigned n = 0; n < GP_CREDIT_INITIAL; n += GP_DATA_MAX)
		peer_data(&p, 5, chunk, GP_DATA_MAX);
	CHECK(cJSON_IsNull(peer_call(&p, "abort", "{\"abortId\":0}")));
	peer_data(&p, 5, chunk, 1);
	until_closed();
}

/* GUEST_UNCLAIMED streams wait for a request, not more; the others go on. */
static void too_many_unclaimed(void)
{
	struct peer_proc x;

	for (unsigned i = 0; i < GUEST_UNCLAIMED + 3; i++)
		peer_note(&p, "$sandbox.stream.start", "{\"streamId\":%u}", i);
	until_cancelled(GUEST_UNCLAIMED);
	until_cancelled(GUEST_UNCLAIMED + 2);
	CHECK(!cancelled(GUEST_UNCLAIMED - 1));
	x = peer_spawn(&p, "\"command\":\"cat\",\"stdinStreamId\":%u", GUEST_UNCLAIMED - 1);
	peer_data(&p, GUEST_UNCLAIMED - 1, "ok", 2);
	peer_note(&p, "$sandbox.stream.end", "{\"streamId\":%u}", GUEST_UNCLAIMED - 1);
	peer_until_end(&p, x.out);
	CHECK_STR(x.out->text, "ok");
	peer_note(&p, "$sandbox.stream.start", "{\"streamId\":9999}");
	CHECK_EQ(peer_exit(&p, x.pid, NULL), 0);
	CHECK(!cancelled(9999)); /* a place became free */
	restart();
}

/* Many streams with data at once over one connection, each whole and in order. */
static void many_streams(void)
{
	enum { N = 40, BYTES = 400000 };
	static struct peer_proc x[N];

	for (int i = 0; i < N; i++)
		x[i] = peer_spawn(&p, "\"command\":\"head\",\"args\":[\"-c\",\"%d\",\"/dev/zero\"]",
			BYTES + i);
	for (int i = 0; i < N; i++) {
		peer_until_end(&p, x[i].out);
		CHECK_EQ(x[i].out->bytes, BYTES + i);
		CHECK_EQ(peer_exit(&p, x[i].pid, NULL), 0);
	}
}

int main(void)
{
	fill(1);
	peer_start(&p, GUEST_CONN_LAST, NULL);
	peer_hello(&p, true);
	both_ways(0);
	both_ways(UINT64_C(1) << 40);
	large_output();
	stopped_reader();
	stopped_stdin();
	closed_stdin();
	cancelled_output();
	early_streams();
	null_streams();
	many_streams();
	exceeded_credit();
	too_many_unclaimed();
	peer_stop(&p);
	TEST_END();
}

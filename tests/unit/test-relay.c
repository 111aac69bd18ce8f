/*
 * tests/unit/test-relay.c - between a command and a port of the emulated host
 */
#include "api/emu/relay.h"

#include "tests/lib/test.h"

static const uint8_t nonce_a[GP_RESET_NONCE] = "aaaaaaaaaaaaaaa";
static const uint8_t nonce_b[GP_RESET_NONCE] = "bbbbbbbbbbbbbbb";

static void put_json(struct buf *b, const char *text)
{
	REQUIRE(!frame_put_json(b, text, strlen(text)));
}

static void drop(struct buf *b)
{
	buf_consume(b, buf_len(b));
}

/* Input in pieces of at most @step bytes. */
static int client_feed(struct relay *r, const struct buf *b, size_t step)
{
	int ret = 0;

	for (size_t at = 0; !ret && at < buf_len(b); at += step)
		ret = relay_client_input(r, buf_ptr(b) + at, MIN(step, buf_len(b) - at));
	return ret;
}

static int port_feed(struct relay *r, const struct buf *b, size_t step)
{
	int ret = 0, answered = 0;

	for (size_t at = 0; ret >= 0 && at < buf_len(b); at += step) {
		ret = relay_port_input(r, buf_ptr(b) + at, MIN(step, buf_len(b) - at));
		answered |= ret > 0;
	}
	return ret < 0 ? ret : answered;
}

static void echo(struct buf *b, const uint8_t nonce[GP_RESET_NONCE])
{
	REQUIRE(!frame_put_reset(b, nonce));
}

/* A relay whose first reset was answered. */
static void make_free(struct relay *r)
{
	struct buf b;

	buf_init(&b, 0);
	REQUIRE(!relay_init(r, nonce_a));
	echo(&b, nonce_a);
	CHECK_EQ(port_feed(r, &b, 4096), 1);
	drop(&r->to_port);
	buf_free(&b);
}

static void test_begins_with_reset(void)
{
	struct relay r;
	struct frame f;
	const char *why;
	struct buf b;

	REQUIRE(!relay_init(&r, nonce_a));
	CHECK_EQ(r.state, RELAY_RESETTING);
	CHECK_EQ(frame_parse(buf_ptr(&r.to_port), buf_len(&r.to_port), &f, &why),
		GP_HEADER + GP_RESET_NONCE);
	CHECK_EQ(f.kind, GP_RESET);
	CHECK(!memcmp(f.data, nonce_a, GP_RESET_NONCE));
	CHECK(relay_wants_port(&r));
	CHECK(!relay_wants_client(&r));
	buf_init(&b, 0);
	/* Bytes of an older session come first; then the echo, one byte at a time. */
	put_json(&b, "{\"old\":1}");
	echo(&b, nonce_b);
	CHECK_EQ(port_feed(&r, &b, 1), 0);
	CHECK_EQ(r.state, RELAY_RESETTING);
	drop(&b);
	echo(&b, nonce_a);
	CHECK_EQ(port_feed(&r, &b, 1), 1);
	CHECK_EQ(r.state, RELAY_FREE);
	CHECK_EQ(buf_len(&r.to_client), 0);
	buf_free(&b);
	relay_finish(&r);
}

static void test_passes_frames(size_t step)
{
	uint8_t data[300];
	struct relay r;
	struct buf b;

	memset(data, 'x', sizeof(data));
	buf_init(&b, 0);
	make_free(&r);
	relay_attach(&r);
	put_json(&b, "{\"method\":\"spawn\"}");
	REQUIRE(!frame_put_data(&b, 7, data, sizeof(data)));
	CHECK_EQ(client_feed(&r, &b, step), 0);
	CHECK_EQ(buf_len(&r.to_port), buf_len(&b));
	CHECK(!memcmp(buf_ptr(&r.to_port), buf_ptr(&b), buf_len(&b)));
	CHECK_EQ(port_feed(&r, &b, step), 0);
	CHECK_EQ(buf_len(&r.to_client), buf_len(&b));
	CHECK(!memcmp(buf_ptr(&r.to_client), buf_ptr(&b), buf_len(&b)));
	buf_free(&b);
	relay_finish(&r);
}

/* A command that dies in the middle of a frame leaves nothing of it on the port. */
static void test_death_in_a_frame(void)
{
	struct relay r;
	struct frame f;
	const char *why;
	struct buf b;
	int n;

	buf_init(&b, 0);
	make_free(&r);
	relay_attach(&r);
	put_json(&b, "{\"whole\":1}");
	n = (int)buf_len(&b);
	put_json(&b, "{\"half\":1}");
	CHECK_EQ(relay_client_input(&r, buf_ptr(&b), buf_len(&b) - 3), 0);
	CHECK_EQ(buf_len(&r.to_port), n);
	REQUIRE(!relay_detach(&r, nonce_b));
	CHECK_EQ(r.state, RELAY_RESETTING);
	buf_consume(&r.to_port, (size_t)n);
	CHECK_EQ(frame_parse(buf_ptr(&r.to_port), buf_len(&r.to_port), &f, &why),
		buf_len(&r.to_port));
	CHECK_EQ(f.kind, GP_RESET);
	/* What L1 still had to say goes to nobody, least of all to the next command. */
	drop(&b);
	put_json(&b, "{\"late\":1}");
	echo(&b, nonce_b);
	CHECK_EQ(port_feed(&r, &b, 5), 1);
	relay_attach(&r);
	CHECK_EQ(buf_len(&r.to_client), 0);
	buf_free(&b);
	relay_finish(&r);
}

static void test_back_pressure(void)
{
	static uint8_t data[60000];
	struct relay r;
	struct buf b;
	int n;

	buf_init(&b, 0);
	make_free(&r);
	relay_attach(&r);
	REQUIRE(!frame_put_data(&b, 1, data, sizeof(data)));
	for (n = 0; n < 100 && relay_wants_client(&r); n++)
		REQUIRE(!client_feed(&r, &b, RELAY_CHUNK));
	CHECK(n < 100);
	CHECK(buf_len(&r.to_port) >= RELAY_OUT_FULL);
	for (n = 0; n < 100 && relay_wants_port(&r); n++)
		REQUIRE(!port_feed(&r, &b, RELAY_CHUNK));
	CHECK(n < 100);
	drop(&r.to_port);
	drop(&r.to_client);
	CHECK(relay_wants_client(&r) && relay_wants_port(&r));
	/* With all full, the largest frame still passes: nothing was read that has no room. */
	for (n = 0; n < 100 && relay_wants_port(&r); n++)
		REQUIRE(!port_feed(&r, &b, RELAY_CHUNK));
	REQUIRE(!relay_detach(&r, nonce_b)); /* output for nobody doesn't stop the reset */
	CHECK(relay_wants_port(&r));
	buf_free(&b);
	relay_finish(&r);
}

static void test_largest_frame(void)
{
	static char text[GP_FRAME_MAX];
	struct relay r;
	struct buf b;

	memset(text, ' ', sizeof(text));
	buf_init(&b, 0);
	make_free(&r);
	relay_attach(&r);
	REQUIRE(!frame_put_json(&b, text, sizeof(text)));
	CHECK_EQ(client_feed(&r, &b, RELAY_CHUNK), 0);
	CHECK_EQ(buf_len(&r.to_port), buf_len(&b));
	CHECK_EQ(port_feed(&r, &b, 1000), 0);
	CHECK_EQ(buf_len(&r.to_client), buf_len(&b));
	buf_free(&b);
	relay_finish(&r);
}

static void test_broken_client(void)
{
	static const uint8_t bad[][GP_HEADER] = {
		{ 1, 0, 0, 0, 9 },          /* no such kind */
		{ 1, 0, 0, 0, 0, 1 },       /* reserved byte */
		{ 1, 0, 0x11, 0, GP_JSON }, /* longer than any frame */
		{ 0, 0, 0, 0, GP_DATA },    /* without a stream */
	};
	struct relay r;
	struct buf b;

	buf_init(&b, 0);
	make_free(&r);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		relay_attach(&r);
		CHECK_EQ(relay_client_input(&r, bad[i], sizeof(bad[i])), -EPROTO);
		REQUIRE(!relay_detach(&r, nonce_a));
		drop(&b);
		echo(&b, nonce_a);
		CHECK_EQ(port_feed(&r, &b, 100), 1);
	}
	/* Resets are between the daemon and the agent. */
	relay_attach(&r);
	CHECK_EQ(client_feed(&r, &b, 100), -EPROTO);
	buf_free(&b);
	relay_finish(&r);
}

static void test_broken_port(void)
{
	static const uint8_t bad[GP_HEADER] = { 1, 0, 0, 0, 77 };
	struct relay r;
	struct buf b;

	buf_init(&b, 0);
	make_free(&r);
	relay_attach(&r);
	CHECK_EQ(relay_port_input(&r, bad, sizeof(bad)), -EPROTO);
	CHECK_EQ(r.state, RELAY_DEAD);
	CHECK(!relay_wants_port(&r) && !relay_wants_client(&r));
	relay_finish(&r);
	/* An echo nobody waits for. */
	make_free(&r);
	echo(&b, nonce_a);
	CHECK_EQ(port_feed(&r, &b, 100), -EPROTO);
	CHECK_EQ(r.state, RELAY_DEAD);
	buf_free(&b);
	relay_finish(&r);
}

int main(void)
{
	test_begins_with_reset();
	test_passes_frames(1);
	test_passes_frames(7);
	test_passes_frames(RELAY_CHUNK);
	test_death_in_a_frame();
	test_back_pressure();
	test_largest_frame();
	test_broken_client();
	test_broken_port();
	TEST_END();
}

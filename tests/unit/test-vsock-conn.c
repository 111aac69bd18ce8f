/* The vsock state machine and its credit, packet by packet, without I/O. VIRTIO 1.2, 5.10.6 */
#include "tests/lib/test.h"
#include "vmm/vsock_conn.h"

#define HPORT  1024
#define GPORT  5555
#define WINDOW 1000

static struct vsock_hdr pkt(unsigned op)
{
	return (struct vsock_hdr){
		.src_port = GPORT,
		.dst_port = HPORT,
		.op = (uint16_t)op,
		.buf_alloc = 500,
	};
}

static bool give(struct vsock_conn *c, unsigned op)
{
	struct vsock_hdr h = pkt(op);

	return vsock_conn_receive(c, &h);
}

static bool give_data(struct vsock_conn *c, uint32_t len)
{
	struct vsock_hdr h = pkt(VSOCK_OP_RW);

	h.len = len;
	return vsock_conn_receive(c, &h);
}

static bool give_shutdown(struct vsock_conn *c, uint32_t flags)
{
	struct vsock_hdr h = pkt(VSOCK_OP_SHUTDOWN);

	h.flags = flags;
	return vsock_conn_receive(c, &h);
}

/* The next control packet must be @op. */
#define EXPECT(c, want, h)                                                                         \
	do {                                                                                       \
		bool expect_any = vsock_conn_next(c, h);                                           \
		CHECK(expect_any);                                                                 \
		CHECK_EQ((h)->op, want);                                                           \
	} while (0)

#define EXPECT_NONE(c)                                                                             \
	do {                                                                                       \
		struct vsock_hdr expect_h;                                                         \
		CHECK(!vsock_conn_next(c, &expect_h));                                             \
	} while (0)

static void open_conn(struct vsock_conn *c)
{
	struct vsock_hdr h = pkt(VSOCK_OP_REQUEST);

	vsock_conn_listen(c, HPORT);
	vsock_conn_accept(c, &h, WINDOW);
	EXPECT(c, VSOCK_OP_RESPONSE, &h);
	EXPECT_NONE(c);
}

static void accept_answers(void)
{
	struct vsock_hdr h = pkt(VSOCK_OP_REQUEST);
	struct vsock_conn c;

	vsock_conn_listen(&c, HPORT);
	CHECK(!vsock_conn_known(&c));
	CHECK(vsock_conn_needs_host(&c));
	vsock_conn_accept(&c, &h, WINDOW);
	CHECK_EQ(c.state, VSOCK_OPEN);
	CHECK_EQ(vsock_conn_room(&c), 0); /* no data before RESPONSE */
	EXPECT(&c, VSOCK_OP_RESPONSE, &h);
	CHECK_EQ(h.src_port, HPORT);
	CHECK_EQ(h.dst_port, GPORT);
	CHECK_EQ(h.buf_alloc, WINDOW);
	CHECK_EQ(h.fwd_cnt, 0);
	CHECK_EQ(vsock_conn_room(&c), 500);
	CHECK(vsock_conn_known(&c));
}

static void connect_answered(void)
{
	struct vsock_hdr h;
	struct vsock_conn c;

	vsock_conn_connect(&c, HPORT, GPORT, WINDOW);
	CHECK(vsock_conn_known(&c));
	EXPECT(&c, VSOCK_OP_REQUEST, &h);
	CHECK_EQ(vsock_conn_room(&c), 0);
	CHECK(!give(&c, VSOCK_OP_RESPONSE));
	CHECK_EQ(c.state, VSOCK_OPEN);
	CHECK_EQ(vsock_conn_room(&c), 500);
}

static void connect_refused(void)
{
	struct vsock_hdr h;
	struct vsock_conn c;

	vsock_conn_connect(&c, HPORT, GPORT, WINDOW);
	EXPECT(&c, VSOCK_OP_REQUEST, &h);
	CHECK(!give(&c, VSOCK_OP_RST));
	CHECK_EQ(c.state, VSOCK_DONE);
	EXPECT_NONE(&c); /* never RST in answer to RST */
}

static void connect_times_out(void)
{
	struct vsock_hdr h;
	struct vsock_conn c;

	vsock_conn_connect(&c, HPORT, GPORT, WINDOW);
	EXPECT(&c, VSOCK_OP_REQUEST, &h);
	vsock_conn_timeout(&c);
	CHECK_EQ(c.state, VSOCK_ENDING);
	CHECK(!vsock_conn_needs_host(&c));
	CHECK(vsock_conn_known(&c));
	EXPECT(&c, VSOCK_OP_RST, &h);
	CHECK_EQ(c.state, VSOCK_DONE);

	/* before the guest ever heard of it: nothing to reset */
	vsock_conn_connect(&c, HPORT, GPORT, WINDOW);
	vsock_conn_timeout(&c);
	CHECK_EQ(c.state, VSOCK_DONE);
	EXPECT_NONE(&c);
}

/* What a state does with each op, known or not; nothing may crash, and nothing else may follow. */
static void every_op_in_every_state(void)
{
	for (unsigned state = VSOCK_CONNECT; state < VSOCK_NSTATES; state++) {
		for (unsigned op = 0; op < 300; op++) {
			struct vsock_hdr h;
			struct vsock_conn c;
			enum vsock_state want = (enum vsock_state)state;
			bool rst = false;

			if (state == VSOCK_CONNECT) {
				vsock_conn_connect(&c, HPORT, GPORT, WINDOW);
				EXPECT(&c, VSOCK_OP_REQUEST, &h);
				want = op == VSOCK_OP_RESPONSE ? VSOCK_OPEN
				       : op == VSOCK_OP_RST    ? VSOCK_DONE
							       : VSOCK_ENDING;
				rst = want == VSOCK_ENDING;
			} else {
				open_conn(&c);
			}
			if (state == VSOCK_OPEN) {
				rst = op < VSOCK_OP_RST || op > VSOCK_OP_CREDIT_REQUEST;
				want = rst                  ? VSOCK_ENDING
				       : op == VSOCK_OP_RST ? VSOCK_DONE
							    : VSOCK_OPEN;
			}
			if (state == VSOCK_CLOSING) {
				vsock_conn_host_shut(&c, VSOCK_SHUTDOWN_BOTH);
				EXPECT(&c, VSOCK_OP_SHUTDOWN, &h);
				if (op == VSOCK_OP_RST)
					want = VSOCK_DONE;
			}
			if (state == VSOCK_ENDING) {
				vsock_conn_abort(&c);
				rst = op != VSOCK_OP_RST;
				if (!rst)
					want = VSOCK_DONE;
			}
			if (state == VSOCK_DONE)
				vsock_conn_forget(&c);
			CHECK_EQ(c.state, state);
			CHECK(!give(&c, op));
			CHECK_EQ(c.state, want);
			if (state == VSOCK_OPEN && op == VSOCK_OP_CREDIT_REQUEST)
				EXPECT(&c, VSOCK_OP_CREDIT_UPDATE, &h);
			if (rst) {
				EXPECT(&c, VSOCK_OP_RST, &h);
				CHECK_EQ(c.state, VSOCK_DONE);
			}
			EXPECT_NONE(&c);
		}
	}
}

/* 5.10.6.3: the peer's room is buf_alloc - (tx_cnt - fwd_cnt), modulo 2^32 */
static void room_follows_peer(void)
{
	struct vsock_conn c;
	struct vsock_hdr h;

	open_conn(&c);
	vsock_conn_data(&c, 300, &h);
	CHECK_EQ(h.op, VSOCK_OP_RW);
	CHECK_EQ(h.len, 300);
	CHECK_EQ(vsock_conn_room(&c), 200);
	vsock_conn_data(&c, 200, &h);
	CHECK_EQ(vsock_conn_room(&c), 0);

	h = pkt(VSOCK_OP_CREDIT_UPDATE);
	h.fwd_cnt = 450;
	CHECK(!vsock_conn_receive(&c, &h));
	CHECK_EQ(vsock_conn_room(&c), 450);
	h.buf_alloc = 20; /* less than what is under way */
	CHECK(!vsock_conn_receive(&c, &h));
	CHECK_EQ(vsock_conn_room(&c), 0);
	h.buf_alloc = 500;
	h.fwd_cnt = 501; /* more than it ever got: nonsense gives no room */
	CHECK(!vsock_conn_receive(&c, &h));
	CHECK_EQ(vsock_conn_room(&c), 0);

	c.tx_cnt = 0xfffffff0;
	h.fwd_cnt = 0xfffffff0;
	CHECK(!vsock_conn_receive(&c, &h));
	vsock_conn_data(&c, 100, &h);
	CHECK_EQ(c.tx_cnt, 84);
	CHECK_EQ(vsock_conn_room(&c), 400);
}

static void window_is_kept(void)
{
	struct vsock_conn c;
	struct vsock_hdr h;

	open_conn(&c);
	CHECK(!give_data(&c, 0)); /* nothing to store, nothing wrong */
	CHECK_EQ(c.state, VSOCK_OPEN);
	CHECK(give_data(&c, 400));
	CHECK(give_data(&c, 600));
	CHECK_EQ(vsock_conn_buffered(&c), 1000);
	vsock_conn_forwarded(&c, 300);
	CHECK(give_data(&c, 300));
	CHECK(!give_data(&c, 1));
	CHECK_EQ(c.state, VSOCK_ENDING);
	CHECK_EQ(vsock_conn_buffered(&c), 0); /* dropped */
	CHECK(!vsock_conn_needs_host(&c));
	EXPECT(&c, VSOCK_OP_RST, &h);

	open_conn(&c);
	CHECK(!give_data(&c, UINT32_MAX));
	CHECK_EQ(c.state, VSOCK_ENDING);

	open_conn(&c);
	c.rx_cnt = c.fwd_cnt = c.fwd_told = UINT32_MAX - 10; /* the counters wrap */
	CHECK(give_data(&c, 1000));
	CHECK_EQ(vsock_conn_buffered(&c), 1000);
	vsock_conn_forwarded(&c, 1000);
	EXPECT(&c, VSOCK_OP_CREDIT_UPDATE, &h);
	CHECK_EQ(h.fwd_cnt, 989);
}

/* Told when half the window is free again, or asked for, or along with anything else */
static void credit_updates_are_few(void)
{
	struct vsock_conn c;
	struct vsock_hdr h;

	open_conn(&c);
	CHECK(give_data(&c, 1000));
	vsock_conn_forwarded(&c, 499);
	EXPECT_NONE(&c);
	vsock_conn_forwarded(&c, 1);
	EXPECT(&c, VSOCK_OP_CREDIT_UPDATE, &h);
	CHECK_EQ(h.fwd_cnt, 500);
	vsock_conn_forwarded(&c, 400);
	EXPECT_NONE(&c);
	vsock_conn_data(&c, 1, &h);
	CHECK_EQ(h.fwd_cnt, 900);
	CHECK_EQ(h.buf_alloc, WINDOW);
	CHECK(give_data(&c, 499));
	vsock_conn_forwarded(&c, 499);
	EXPECT_NONE(&c); /* 900 was told with data */
	CHECK(!give(&c, VSOCK_OP_CREDIT_REQUEST));
	EXPECT(&c, VSOCK_OP_CREDIT_UPDATE, &h);
	CHECK_EQ(h.fwd_cnt, 1399);
	EXPECT_NONE(&c);
}

static void asks_for_credit(void)
{
	struct vsock_conn c;
	struct vsock_hdr h;

	open_conn(&c);
	vsock_conn_timeout(&c);
	EXPECT(&c, VSOCK_OP_CREDIT_REQUEST, &h);
	CHECK_EQ(c.state, VSOCK_OPEN);
}

/* 5.10.6.5: the guest closes: SHUTDOWN(both) is answered by RST, and what it sent still goes to the host */
static void guest_closes(void)
{
	struct vsock_conn c;
	struct vsock_hdr h;

	open_conn(&c);
	CHECK(give_data(&c, 100));
	CHECK(!give_shutdown(&c, VSOCK_SHUTDOWN_BOTH));
	CHECK_EQ(c.state, VSOCK_ENDING);
	CHECK(vsock_conn_known(&c));
	CHECK(!vsock_conn_reads_host(&c));
	EXPECT(&c, VSOCK_OP_RST, &h);
	CHECK(!vsock_conn_known(&c)); /* the pair of ports is free again */
	CHECK(vsock_conn_needs_host(&c));
	vsock_conn_forwarded(&c, 60);
	CHECK_EQ(c.state, VSOCK_ENDING);
	vsock_conn_forwarded(&c, 40);
	CHECK_EQ(c.state, VSOCK_DONE);
	EXPECT_NONE(&c);

	/* drained before RST could be sent */
	open_conn(&c);
	CHECK(give_data(&c, 100));
	CHECK(!give_shutdown(&c, VSOCK_SHUTDOWN_BOTH));
	vsock_conn_forwarded(&c, 100);
	CHECK_EQ(c.state, VSOCK_ENDING);
	CHECK(!vsock_conn_needs_host(&c));
	EXPECT(&c, VSOCK_OP_RST, &h);
	CHECK_EQ(c.state, VSOCK_DONE);

	/* in two steps: the hints are permanent */
	open_conn(&c);
	CHECK(!give_shutdown(&c, VSOCK_SHUTDOWN_SEND));
	CHECK_EQ(c.state, VSOCK_OPEN);
	CHECK(vsock_conn_reads_host(&c));
	CHECK(!give_shutdown(&c, VSOCK_SHUTDOWN_RCV));
	EXPECT(&c, VSOCK_OP_RST, &h);

	/* the host's end fails while it drains */
	open_conn(&c);
	CHECK(give_data(&c, 100));
	CHECK(!give(&c, VSOCK_OP_RST));
	CHECK_EQ(c.state, VSOCK_ENDING);
	CHECK(!vsock_conn_known(&c));
	vsock_conn_host_shut(&c, VSOCK_SHUTDOWN_RCV);
	CHECK_EQ(c.state, VSOCK_DONE);
	EXPECT_NONE(&c);
}

static void guest_sends_after_its_shutdown(void)
{
	struct vsock_conn c;
	struct vsock_hdr h;

	open_conn(&c);
	CHECK(!give_shutdown(&c, VSOCK_SHUTDOWN_SEND));
	CHECK(!give_shutdown(&c, 0)); /* takes nothing back */
	CHECK(!give_data(&c, 1));
	EXPECT(&c, VSOCK_OP_RST, &h);
}

static void guest_reads_no_more(void)
{
	struct vsock_conn c;

	open_conn(&c);
	CHECK(!give_shutdown(&c, VSOCK_SHUTDOWN_RCV));
	CHECK_EQ(c.state, VSOCK_OPEN);
	CHECK_EQ(vsock_conn_room(&c), 0);
	CHECK(!vsock_conn_reads_host(&c));
	CHECK(give_data(&c, 10));
}

/* Each end closes its half: SHUTDOWN(both), and the guest's RST ends it */
static void both_halves(bool host_first)
{
	struct vsock_conn c;
	struct vsock_hdr h;

	open_conn(&c);
	CHECK(give_data(&c, 10));
	if (host_first) {
		vsock_conn_host_shut(&c, VSOCK_SHUTDOWN_SEND);
		EXPECT(&c, VSOCK_OP_SHUTDOWN, &h);
		CHECK_EQ(h.flags, VSOCK_SHUTDOWN_SEND);
		CHECK_EQ(vsock_conn_room(&c), 0);
		CHECK(give_data(&c, 10));
		CHECK(!give_shutdown(&c, VSOCK_SHUTDOWN_SEND));
	} else {
		CHECK(give_data(&c, 10));
		CHECK(!give_shutdown(&c, VSOCK_SHUTDOWN_SEND));
		vsock_conn_host_shut(&c, VSOCK_SHUTDOWN_SEND);
		EXPECT(&c, VSOCK_OP_SHUTDOWN, &h);
	}
	CHECK_EQ(c.state, VSOCK_OPEN); /* the host hasn't got all yet */
	vsock_conn_forwarded(&c, 20);
	CHECK_EQ(c.state, VSOCK_CLOSING);
	CHECK(!vsock_conn_needs_host(&c));
	EXPECT(&c, VSOCK_OP_SHUTDOWN, &h);
	CHECK_EQ(h.flags, VSOCK_SHUTDOWN_BOTH);
	CHECK(vsock_conn_known(&c)); /* nobody may use the ports yet */
	CHECK(!give(&c, VSOCK_OP_RST));
	CHECK_EQ(c.state, VSOCK_DONE);
	EXPECT_NONE(&c);
}

/* The same with nothing buffered: the guest's half is the last */
static void both_halves_drained(void)
{
	struct vsock_conn c;
	struct vsock_hdr h;

	open_conn(&c);
	vsock_conn_host_shut(&c, VSOCK_SHUTDOWN_SEND);
	EXPECT(&c, VSOCK_OP_SHUTDOWN, &h);
	CHECK(!give_shutdown(&c, VSOCK_SHUTDOWN_SEND));
	CHECK_EQ(c.state, VSOCK_CLOSING);
	EXPECT(&c, VSOCK_OP_SHUTDOWN, &h);
	CHECK_EQ(h.flags, VSOCK_SHUTDOWN_BOTH);
}

static void host_closes(void)
{
	struct vsock_conn c;
	struct vsock_hdr h;

	open_conn(&c);
	CHECK(give_data(&c, 10));
	vsock_conn_host_shut(&c, VSOCK_SHUTDOWN_BOTH);
	CHECK_EQ(c.state, VSOCK_CLOSING);
	EXPECT(&c, VSOCK_OP_SHUTDOWN, &h);
	CHECK_EQ(h.flags, VSOCK_SHUTDOWN_BOTH);
	CHECK(!give_data(&c, 900)); /* was under way; isn't a fault */
	CHECK_EQ(c.state, VSOCK_CLOSING);
	vsock_conn_timeout(&c); /* no RST came */
	EXPECT(&c, VSOCK_OP_RST, &h);
	CHECK_EQ(c.state, VSOCK_DONE);

	/* both close at once */
	open_conn(&c);
	vsock_conn_host_shut(&c, VSOCK_SHUTDOWN_BOTH);
	CHECK(!give_shutdown(&c, VSOCK_SHUTDOWN_BOTH));
	EXPECT(&c, VSOCK_OP_RST, &h);
	EXPECT_NONE(&c);
	CHECK_EQ(c.state, VSOCK_DONE);
}

static void host_reads_no_more(void)
{
	struct vsock_conn c;
	struct vsock_hdr h;

	open_conn(&c);
	CHECK(give_data(&c, 600));
	vsock_conn_host_shut(&c, VSOCK_SHUTDOWN_RCV);
	EXPECT(&c, VSOCK_OP_SHUTDOWN, &h);
	CHECK_EQ(h.flags, VSOCK_SHUTDOWN_RCV);
	CHECK_EQ(vsock_conn_buffered(&c), 0);
	CHECK(!give_data(&c, 1000)); /* sent before it heard: dropped, within the window */
	CHECK_EQ(c.state, VSOCK_OPEN);
	CHECK_EQ(vsock_conn_room(&c), 500);           /* the other direction lives */
	vsock_conn_host_shut(&c, VSOCK_SHUTDOWN_RCV); /* again: not told again */
	EXPECT_NONE(&c);
	vsock_conn_host_shut(&c, VSOCK_SHUTDOWN_SEND);
	CHECK_EQ(c.state, VSOCK_CLOSING);
	EXPECT(&c, VSOCK_OP_SHUTDOWN, &h);
	CHECK_EQ(h.flags, VSOCK_SHUTDOWN_BOTH);
}

static void forget_from_everywhere(void)
{
	struct vsock_conn c;

	vsock_conn_listen(&c, 1);
	vsock_conn_forget(&c);
	CHECK_EQ(c.state, VSOCK_DONE);
	open_conn(&c);
	CHECK(give_data(&c, 10));
	vsock_conn_forget(&c);
	CHECK_EQ(c.state, VSOCK_DONE);
	CHECK(!vsock_conn_needs_host(&c));
	EXPECT_NONE(&c);
	vsock_conn_forget(&c);
	vsock_conn_abort(&c);
	CHECK_EQ(c.state, VSOCK_DONE);
	CHECK_STR(vsock_state_name(VSOCK_ENDING), "ending");
}

static void table(void)
{
	static struct vsock_table t;
	enum { N = 3000 };
	struct vsock_conn *c = calloc(N, sizeof(*c));

	REQUIRE(c);
	for (uint32_t i = 0; i < N; i++) {
		vsock_conn_connect(&c[i], i % 7, i, WINDOW);
		vsock_table_add(&t, &c[i]);
	}
	for (uint32_t i = 0; i < N; i++)
		CHECK(vsock_table_find(&t, i % 7, i) == &c[i]);
	CHECK(!vsock_table_find(&t, 1, 0));
	CHECK(!vsock_table_find(&t, 0, N));
	for (uint32_t i = 0; i < N; i += 2)
		vsock_table_remove(&t, &c[i]);
	vsock_table_remove(&t, &c[0]); /* once more is fine */
	for (uint32_t i = 0; i < N; i++)
		CHECK(vsock_table_find(&t, i % 7, i) == (i % 2 ? &c[i] : NULL));
	for (uint32_t i = 1; i < N; i += 2)
		vsock_table_remove(&t, &c[i]);
	for (unsigned i = 0; i < VSOCK_BUCKETS; i++)
		CHECK(!t.bucket[i]);
	free(c);
}

/* 5.10.6: offsets and byte order */
static void layout(void)
{
	const struct vsock_hdr h = {
		.src_cid = 0x0102030405060708,
		.dst_cid = 2,
		.src_port = 0x11121314,
		.dst_port = 0x21222324,
		.len = 0x31323334,
		.type = 0x4142,
		.op = 0x5152,
		.flags = 0x61626364,
		.buf_alloc = 0x71727374,
		.fwd_cnt = 0x81828384,
	};
	static const uint8_t want[VSOCK_HDR_SIZE] = {
		8,
		7,
		6,
		5,
		4,
		3,
		2,
		1,
		2,
		0,
		0,
		0,
		0,
		0,
		0,
		0,
		0x14,
		0x13,
		0x12,
		0x11,
		0x24,
		0x23,
		0x22,
		0x21,
		0x34,
		0x33,
		0x32,
		0x31,
		0x42,
		0x41,
		0x52,
		0x51,
		0x64,
		0x63,
		0x62,
		0x61,
		0x74,
		0x73,
		0x72,
		0x71,
		0x84,
		0x83,
		0x82,
		0x81,
	};
	uint8_t raw[VSOCK_HDR_SIZE];
	struct vsock_hdr back;

	vsock_hdr_encode(raw, &h);
	CHECK(!memcmp(raw, want, sizeof(raw)));
	vsock_hdr_decode(&back, raw);
	CHECK_EQ(back.src_cid, h.src_cid);
	CHECK_EQ(back.op, h.op);
	CHECK_EQ(back.fwd_cnt, h.fwd_cnt);
}

int main(void)
{
	layout();
	accept_answers();
	connect_answered();
	connect_refused();
	connect_times_out();
	every_op_in_every_state();
	room_follows_peer();
	window_is_kept();
	credit_updates_are_few();
	asks_for_credit();
	guest_closes();
	guest_sends_after_its_shutdown();
	guest_reads_no_more();
	both_halves(true);
	both_halves(false);
	both_halves_drained();
	host_closes();
	host_reads_no_more();
	forget_from_everywhere();
	table();
	TEST_END();
}

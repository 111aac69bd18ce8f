/*
 * Many streams of the socket device at once, and one fast one: every byte both ways is checked against its place in
 * a stream of its own. The guest keeps the rules, as far as credit allows in random pieces.
 *
 * test-vsock-load [STREAMS BYTES]: only that many, with the rate (a benchmark).
 */
#include <fcntl.h>
#include <signal.h>
#include <sys/socket.h>

#include "tests/lib/test.h"
#include "tests/lib/vsguest.h"

#define GPORT       100000
#define HPORT       2000
#define STREAMS_MAX 512
#define GUEST_BUF   (128 * KIB)

struct flow { /* one direction of a stream */
	uint64_t sent, got;
	bool closed; /* the sender said so; seen by the receiver: end */
	bool end;
};

struct stream {
	uint32_t gport, hport;
	int fd;
	bool open;
	bool reset;                        /* the guest said RST */
	struct flow up;                    /* guest to host */
	struct flow down;                  /* host to guest */
	uint32_t credit_alloc, credit_fwd; /* what the device gave */
	uint32_t fwd_told;
};

static struct loop *loop;
static struct gmem *mem;
static struct vsguest *g;
static struct virtio_dev *dev;
static struct stream st[STREAMS_MAX];
static unsigned nstreams;
static uint64_t goal; /* bytes each way per stream */
static uint64_t seed = 1;
static uint8_t scratch[64 * 1024];
static bool random_cuts;
static size_t most_memory;

static uint32_t rnd(uint32_t below)
{
	seed = seed * 6364136223846793005u + 1442695040888963407u;
	return (uint32_t)(seed >> 33) % below;
}

/* Byte @i of a direction: from 8-byte words that differ by stream, direction and place. */
static uint64_t word(uint64_t key, uint64_t i)
{
	uint64_t x = (key << 40 ^ i) * 0x9e3779b97f4a7c15u;

	return x ^ x >> 29;
}

static void make(uint64_t key, uint64_t off, uint8_t *p, size_t len)
{
	for (size_t i = 0; i < len; i++) {
		uint64_t w = word(key, (off + i) / 8);

		if ((off + i) % 8 == 0 && len - i >= 8) {
			memcpy(p + i, &w, 8);
			i += 7;
		} else {
			p[i] = (uint8_t)(w >> (off + i) % 8 * 8);
		}
	}
}

static bool right(uint64_t key, uint64_t off, const uint8_t *p, size_t len)
{
	static uint8_t want[64 * 1024];

	make(key, off, want, len);
	return !memcmp(p, want, len);
}

static uint64_t key_up(const struct stream *s)
{
	return 2 * (uint64_t)(s - st) + 1;
}

static uint64_t key_down(const struct stream *s)
{
	return 2 * (uint64_t)(s - st) + 2;
}

static uint32_t piece(uint64_t limit)
{
	uint32_t n = (uint32_t)MIN(limit, sizeof(scratch));

	return random_cuts && n ? 1 + rnd(n) : n;
}

/* ---- guest ---- */

static struct vsock_hdr header(struct stream *s, enum vsock_op op)
{
	struct vsock_hdr h = vsguest_hdr(op, s->gport, s->hport);

	h.buf_alloc = GUEST_BUF;
	h.fwd_cnt = s->fwd_told = (uint32_t)s->down.got;
	return h;
}

static void say(struct stream *s, enum vsock_op op, uint32_t flags)
{
	struct vsock_hdr h = header(s, op);

	h.flags = flags;
	vsguest_send(g, &h, NULL, 0);
}

static void guest_take(const struct vsock_hdr *h)
{
	struct stream *s = &st[h->dst_port - GPORT];

	REQUIRE(h->dst_port >= GPORT && h->dst_port - GPORT < nstreams);
	REQUIRE(!s->reset);
	s->credit_alloc = h->buf_alloc;
	s->credit_fwd = h->fwd_cnt;
	switch (h->op) {
	case VSOCK_OP_REQUEST:
		s->hport = h->src_port;
		s->open = true;
		say(s, VSOCK_OP_RESPONSE, 0);
		break;
	case VSOCK_OP_RESPONSE:
		s->open = true;
		break;
	case VSOCK_OP_RW:
		REQUIRE(s->open && !s->down.end);
		REQUIRE(right(key_down(s), s->down.got, g->payload, h->len));
		s->down.got += h->len;
		REQUIRE(s->down.got <= s->down.sent);
		break;
	case VSOCK_OP_CREDIT_UPDATE:
		break;
	case VSOCK_OP_CREDIT_REQUEST:
		say(s, VSOCK_OP_CREDIT_UPDATE, 0);
		break;
	case VSOCK_OP_SHUTDOWN:
		CHECK(h->flags & VSOCK_SHUTDOWN_SEND);
		s->down.end = true;
		if (h->flags == VSOCK_SHUTDOWN_BOTH) {
			s->reset = true;
			say(s, VSOCK_OP_RST, 0);
		}
		break;
	default:
		REQUIRE(!"an op that ends a stream too early");
	}
}

static void guest_send(struct stream *s)
{
	uint32_t room = s->credit_alloc - ((uint32_t)s->up.sent - s->credit_fwd);
	struct vsock_hdr h;

	if (!s->open || s->up.closed || s->reset)
		return;
	if (s->up.sent == goal) {
		s->up.closed = true;
		say(s, VSOCK_OP_SHUTDOWN, VSOCK_SHUTDOWN_SEND);
		return;
	}
	if (!room)
		return;
	h = header(s, VSOCK_OP_RW);
	h.len = piece(MIN(room, goal - s->up.sent));
	make(key_up(s), s->up.sent, scratch, h.len);
	vsguest_send(g, &h, scratch, h.len);
	s->up.sent += h.len;
}

static void guest_step(void)
{
	static unsigned next;
	struct vsock_hdr h;

	for (unsigned i = 0; i < 256 && vsguest_can_send(g) && vsguest_poll(g, &h); i++)
		guest_take(&h);
	for (unsigned i = 0; i < nstreams && vsguest_can_send(g); i++) {
		struct stream *s = &st[next++ % nstreams];

		if (s->open && !s->reset && (uint32_t)s->down.got - s->fwd_told >= GUEST_BUF / 2)
			say(s, VSOCK_OP_CREDIT_UPDATE, 0);
		else
			guest_send(s);
	}
}

/* ---- host ---- */

static void host_step(struct stream *s)
{
	uint32_t n = piece(goal - s->down.sent);
	ssize_t r;

	if (n) {
		make(key_down(s), s->down.sent, scratch, n);
		r = write(s->fd, scratch, n);
		REQUIRE(r > 0 || errno == EAGAIN);
		s->down.sent += r > 0 ? (uint64_t)r : 0;
	} else if (!s->down.closed) {
		s->down.closed = true;
		REQUIRE(!shutdown(s->fd, SHUT_WR));
	}
	if (s->up.end)
		return;
	r = read(s->fd, scratch, random_cuts ? 1 + rnd(sizeof(scratch)) : sizeof(scratch));
	if (r > 0) {
		REQUIRE(right(key_up(s), s->up.got, scratch, (size_t)r));
		s->up.got += (uint64_t)r;
	} else if (!r) {
		s->up.end = true;
	} else {
		REQUIRE(errno == EAGAIN);
	}
}

/* ---- all of it ---- */

struct driver {
	struct loop_task task;
	uint64_t deadline_ns;
};

static bool finished(void)
{
	for (unsigned i = 0; i < nstreams; i++) {
		const struct stream *s = &st[i];

		if (!s->reset || !s->up.end)
			return false;
	}
	return true;
}

static void drive(struct loop_task *t)
{
	struct driver *d = container_of(t, struct driver, task);
	struct dev_vsock_stats stats;

	guest_step();
	for (unsigned i = 0; i < nstreams; i++) {
		if (!random_cuts || !rnd(4)) /* host ends are slow and fast by turns */
			host_step(&st[i]);
	}
	dev_vsock_stats(dev, &stats);
	most_memory = MAX(most_memory, stats.buffer_bytes);
	if (finished() || loop_now_ns() > d->deadline_ns)
		loop_stop(loop);
	else
		loop_defer(loop, t);
}

static void open_streams(void)
{
	for (uint32_t i = 0; i < nstreams; i++) {
		struct stream *s = &st[i];
		int sv[2];

		*s = (struct stream){ .gport = GPORT + i, .hport = HPORT + i % 3 };
		REQUIRE(!socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv));
		REQUIRE(!fcntl(sv[0], F_SETFL, O_NONBLOCK));
		s->fd = sv[0];
		if (i % 2)
			REQUIRE(!dev_vsock_host_connect(dev, s->gport, sv[1]));
		else
			REQUIRE(!dev_vsock_host_accept(dev, s->hport, sv[1]));
	}
	/* slots of a port are given out in order, so the guest must ask in order */
	for (uint32_t i = 0; i < nstreams; i += 2) {
		while (!vsguest_can_send(g))
			vdriver_run(loop, 1);
		say(&st[i], VSOCK_OP_REQUEST, 0);
	}
}

static void run(unsigned n, uint64_t bytes, bool cuts, uint32_t rx_size)
{
	struct driver d = { .task.run = drive };
	uint64_t start, took, total = 2 * n * bytes;

	nstreams = n;
	goal = bytes;
	random_cuts = cuts;
	most_memory = 0;
	g = calloc(1, sizeof(*g));
	REQUIRE(g);
	REQUIRE(!dev_vsock_create(&dev, loop, mem, VSGUEST_CID, NULL));
	vsguest_start(g, dev, UINT64_C(1) << VIRTIO_F_EVENT_IDX, VSGUEST_WHOLE, 128, rx_size);
	open_streams();
	start = loop_now_ns();
	d.deadline_ns = start + 90 * NSEC_PER_SEC;
	loop_defer(loop, &d.task);
	REQUIRE(!loop_run(loop));
	took = MAX(loop_now_ns() - start, 1);
	CHECK(finished());
	for (unsigned i = 0; i < n; i++) {
		CHECK_EQ(st[i].up.got, goal);
		CHECK_EQ(st[i].down.got, goal);
		close(st[i].fd);
	}
	printf("%u streams, %" PRIu64 " bytes each way: %" PRIu64 " ms, %" PRIu64
	       " MB/s, at most %zu bytes of buffers\n",
		n, bytes, took / NSEC_PER_MSEC, total * 1000 / took, most_memory);
	vdriver_run(loop, 5);
	CHECK(!virtio_busy(dev));
	vdriver_finish(&g->v);
	free(g);
}

int main(int argc, char **argv)
{
	struct error e = { 0 };

	signal(SIGPIPE, SIG_IGN);
	log_init("test", LOG_ERROR);
	REQUIRE(!loop_create(&loop, 256, &e));
	REQUIRE(!loop_start(loop, true, &e));
	REQUIRE(!gmem_create(&mem, 32 * MIB, &e));
	if (argc == 3) {
		run((unsigned)MIN(strtoul(argv[1], NULL, 10), STREAMS_MAX),
			strtoull(argv[2], NULL, 10), false, 4096);
	} else {
		run(500, 50000, true, 3700);
		run(20, 3000000, true, 4096);
		run(1, 64 * MIB, false, 4096);
	}
	loop_destroy(loop);
	gmem_destroy(mem);
	TEST_END();
}

/*
 * The socket device: packets of a guest against live socketpairs, through rings and the real loop. Each test names
 * the rule it checks; section numbers are VIRTIO 1.2's.
 */
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>

#include "tests/lib/test.h"
#include "tests/lib/vsguest.h"
#include "vmm/vsock_dev.h"

#define HPORT 1024
#define GPORT 70000

static struct loop *loop;
static struct gmem *mem;
static bool nonblocking; /* the device's ends; each test runs both ways */
static struct vsguest *g;
static struct virtio_dev *dev;

static void begin_with(enum vsguest_layout layout, unsigned nrx, uint32_t rx_size)
{
	g = calloc(1, sizeof(*g));
	REQUIRE(g);
	REQUIRE(!dev_vsock_create(&dev, loop, mem, VSGUEST_CID, NULL));
	vsguest_start(g, dev, UINT64_C(1) << VIRTIO_F_EVENT_IDX, layout, nrx, rx_size);
}

static void begin(void)
{
	begin_with(VSGUEST_SPLIT, 64, 4096);
}

static void end(void)
{
	struct dev_vsock_stats st;

	virtio_stop(dev);
	for (unsigned i = 0; i < 1000 && virtio_busy(dev); i++)
		vdriver_run(loop, 1);
	CHECK(!virtio_busy(dev));
	dev_vsock_stats(dev, &st);
	CHECK_EQ(st.streams, 0);
	CHECK(st.buffer_bytes <= VSOCK_STAGES_MAX * VSOCK_STAGE_SIZE);
	vdriver_finish(&g->v);
	free(g);
}

static unsigned streams(void)
{
	struct dev_vsock_stats st;

	dev_vsock_stats(dev, &st);
	return st.streams;
}

static size_t buffer_bytes(void)
{
	struct dev_vsock_stats st;

	dev_vsock_stats(dev, &st);
	return st.buffer_bytes;
}

/* A pair of sockets: the test's end is returned, non-blocking; the other is for the device. */
static int pair(int *ret_device)
{
	int sv[2];

	REQUIRE(!socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv));
	REQUIRE(!fcntl(sv[0], F_SETFL, O_NONBLOCK));
	if (nonblocking)
		REQUIRE(!fcntl(sv[1], F_SETFL, O_NONBLOCK));
	*ret_device = sv[1];
	return sv[0];
}

static int offer(uint32_t port)
{
	int theirs, fd = pair(&theirs);

	REQUIRE(!dev_vsock_host_accept(dev, port, theirs));
	return fd;
}

/* The next packet has op @want; it is in @h. */
#define EXPECT(want, h)                                                                            \
	do {                                                                                       \
		REQUIRE(vsguest_recv(g, h));                                                       \
		CHECK_EQ((h)->op, want);                                                           \
		CHECK_EQ((h)->dst_cid, VSGUEST_CID);                                               \
	} while (0)

static struct vsock_hdr ph; /* the last packet, where a test doesn't care for more */

/* A stream that the guest opened with @credit. */
static int open_stream_credit(uint32_t gport, uint32_t credit)
{
	struct vsock_hdr h = vsguest_hdr(VSOCK_OP_REQUEST, gport, HPORT);
	int fd = offer(HPORT);

	h.buf_alloc = credit;
	vsguest_send(g, &h, NULL, 0);
	EXPECT(VSOCK_OP_RESPONSE, &ph);
	CHECK_EQ(ph.dst_port, gport);
	return fd;
}

static int open_stream(uint32_t gport)
{
	return open_stream_credit(gport, 256 * KIB);
}

static void send_data(uint32_t gport, const void *data, uint32_t len)
{
	struct vsock_hdr h = vsguest_hdr(VSOCK_OP_RW, gport, HPORT);

	h.len = len;
	vsguest_send(g, &h, data, len);
}

static void send_shutdown(uint32_t gport, uint32_t flags)
{
	struct vsock_hdr h = vsguest_hdr(VSOCK_OP_SHUTDOWN, gport, HPORT);

	h.flags = flags;
	vsguest_send(g, &h, NULL, 0);
}

struct host_wait {
	int fd;
	short events;
};

static bool host_ready(void *ctx)
{
	struct host_wait *w = ctx;
	struct pollfd p = { .fd = w->fd, .events = w->events };

	return poll(&p, 1, 0) > 0 && (p.revents & w->events);
}

/* Run the loop until the test's end of a stream is readable (or such). */
static bool host_wait(int fd, short events)
{
	struct host_wait w = { fd, events };

	return vdriver_run_until(loop, host_ready, &w, 5000);
}

/* Read exactly @len bytes at the host's end. */
static bool host_read(int fd, void *buf, size_t len)
{
	for (size_t done = 0; done < len;) {
		ssize_t n;

		if (!host_wait(fd, POLLIN))
			return false;
		n = read(fd, (char *)buf + done, len - done);
		if (n <= 0)
			return false;
		done += (size_t)n;
	}
	return true;
}

static bool host_eof(int fd)
{
	char c;

	return host_wait(fd, POLLIN) && read(fd, &c, 1) == 0;
}

/* The end of a stream that the device closed. */
static void host_gone(int fd)
{
	char c;
	ssize_t n;

	CHECK(host_wait(fd, POLLHUP));
	n = read(fd, &c, 1);
	CHECK(n == 0 || (n < 0 && errno == ECONNRESET)); /* it closed with unread bytes of ours */
	close(fd);
}

static uint8_t pattern(size_t i)
{
	return (uint8_t)((i * 2654435761u) >> 13);
}

static void fill(uint8_t *p, size_t off, size_t len)
{
	for (size_t i = 0; i < len; i++)
		p[i] = pattern(off + i);
}

static bool filled(const uint8_t *p, size_t off, size_t len)
{
	for (size_t i = 0; i < len; i++) {
		if (p[i] != pattern(off + i))
			return false;
	}
	return true;
}

/* ---- device ---- */

/* 5.10.4: the configuration holds the CID; reserved ones are refused */
static void identity(void)
{
	static const uint64_t bad[] = { 0, 1, 2, 0xffffffff, 0x100000003, UINT64_MAX };
	uint64_t cid;
	struct error e;

	begin();
	virtio_config_read(dev, 0, &cid, 8);
	CHECK_EQ(cid, VSGUEST_CID);
	CHECK_EQ(dev->class->id, 19);
	CHECK_EQ(dev->class->nqueues, 3);
	end();
	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++)
		CHECK_EQ(dev_vsock_create(&dev, loop, mem, bad[i], &e), -EINVAL);
}

/* ---- connecting ---- */

/* 5.10.6.5: RST where nobody listens; addresses are turned round */
static void nobody_listens(void)
{
	begin();
	vsguest_op(g, VSOCK_OP_REQUEST, GPORT, HPORT);
	EXPECT(VSOCK_OP_RST, &ph);
	CHECK_EQ(ph.src_cid, VSOCK_CID_HOST);
	CHECK_EQ(ph.src_port, HPORT);
	CHECK_EQ(ph.dst_port, GPORT);
	CHECK_EQ(ph.type, VSOCK_TYPE_STREAM);
	CHECK_EQ(ph.len, 0);
	end();
}

/* A slot serves one connection, slots of a port in order */
static void slots(void)
{
	int a, b, other;
	char c;

	begin();
	other = offer(HPORT + 1);
	a = offer(HPORT);
	b = offer(HPORT);
	CHECK_EQ(streams(), 3);
	vsguest_op(g, VSOCK_OP_REQUEST, GPORT, HPORT);
	EXPECT(VSOCK_OP_RESPONSE, &ph);
	CHECK_EQ(ph.src_cid, VSOCK_CID_HOST);
	CHECK_EQ(ph.src_port, HPORT);
	CHECK_EQ(ph.dst_port, GPORT);
	CHECK_EQ(ph.buf_alloc, VSOCK_WINDOW);
	CHECK_EQ(ph.fwd_cnt, 0);
	vsguest_op(g, VSOCK_OP_REQUEST, GPORT + 1, HPORT);
	EXPECT(VSOCK_OP_RESPONSE, &ph);
	vsguest_op(g, VSOCK_OP_REQUEST, GPORT + 2, HPORT);
	EXPECT(VSOCK_OP_RST, &ph);
	send_data(GPORT, "a", 1);
	send_data(GPORT + 1, "b", 1);
	CHECK(host_read(a, &c, 1) && c == 'a');
	CHECK(host_read(b, &c, 1) && c == 'b');
	CHECK(vsguest_quiet(g, 20));
	close(a);
	close(b);
	close(other);
	end();
}

/* A slot whose other end is closed is none */
static void slot_withdrawn(void)
{
	int fd, half;

	begin();
	fd = offer(HPORT);
	close(fd);
	vdriver_run(loop, 20);
	CHECK_EQ(streams(), 0);
	vsguest_op(g, VSOCK_OP_REQUEST, GPORT, HPORT);
	EXPECT(VSOCK_OP_RST, &ph);
	half = offer(HPORT); /* sends nothing, but wants to read */
	REQUIRE(!shutdown(half, SHUT_WR));
	vdriver_run(loop, 20);
	CHECK_EQ(streams(), 1);
	vsguest_op(g, VSOCK_OP_REQUEST, GPORT, HPORT);
	EXPECT(VSOCK_OP_RESPONSE, &ph);
	EXPECT(VSOCK_OP_SHUTDOWN, &ph);
	CHECK_EQ(ph.flags, VSOCK_SHUTDOWN_SEND);
	close(half);
	end();
}

/* What the host writes before the guest connects arrives after RESPONSE */
static void early_data(void)
{
	int fd;

	begin();
	fd = offer(HPORT);
	REQUIRE(write(fd, "hello", 5) == 5);
	vdriver_run(loop, 10);
	vsguest_op(g, VSOCK_OP_REQUEST, GPORT, HPORT);
	EXPECT(VSOCK_OP_RESPONSE, &ph);
	EXPECT(VSOCK_OP_RW, &ph);
	CHECK_EQ(ph.len, 5);
	CHECK(!memcmp(g->payload, "hello", 5));
	close(fd);
	end();
}

static void host_connects(void)
{
	int theirs, fd;
	struct vsock_hdr h;
	uint32_t port;
	char buf[4];

	begin();
	fd = pair(&theirs);
	REQUIRE(write(fd, "ping", 4) == 4);
	REQUIRE(!dev_vsock_host_connect(dev, 22, theirs));
	EXPECT(VSOCK_OP_REQUEST, &ph);
	CHECK_EQ(ph.src_cid, VSOCK_CID_HOST);
	CHECK_EQ(ph.dst_port, 22);
	CHECK_EQ(ph.buf_alloc, VSOCK_WINDOW);
	CHECK(vsguest_quiet(g, 20)); /* no data before the answer */
	port = ph.src_port;
	vsguest_op(g, VSOCK_OP_RESPONSE, 22, port);
	EXPECT(VSOCK_OP_RW, &ph);
	CHECK_EQ(ph.src_port, port);
	CHECK(!memcmp(g->payload, "ping", 4));
	h = vsguest_hdr(VSOCK_OP_RW, 22, port);
	h.len = 4;
	vsguest_send(g, &h, "pong", 4);
	CHECK(host_read(fd, buf, 4) && !memcmp(buf, "pong", 4));
	close(fd);

	/* another one gets another port, also once the numbers come round; RST is a refusal */
	container_of(dev, struct vsock, dev)->next_port = port;
	fd = pair(&theirs);
	REQUIRE(!dev_vsock_host_connect(dev, 22, theirs));
	do {
		REQUIRE(vsguest_recv(g, &ph));
	} while (ph.op != VSOCK_OP_REQUEST);
	CHECK(ph.src_port != port);
	vsguest_op(g, VSOCK_OP_RST, 22, ph.src_port);
	host_gone(fd);
	end();
}

/* Before the driver is there, and through its first reset, a request waits */
static void host_connects_early(void)
{
	int theirs, fd;

	g = calloc(1, sizeof(*g));
	REQUIRE(g);
	REQUIRE(!dev_vsock_create(&dev, loop, mem, VSGUEST_CID, NULL));
	fd = pair(&theirs);
	REQUIRE(!dev_vsock_host_connect(dev, 9, theirs));
	vdriver_run(loop, 5);
	vsguest_start(g, dev, 0, VSGUEST_WHOLE, 8, 4096);
	EXPECT(VSOCK_OP_REQUEST, &ph);
	close(fd); /* gives up: the guest hears of it */
	EXPECT(VSOCK_OP_RST, &ph);
	end();
}

/* Nobody answers, neither REQUEST nor our SHUTDOWN: RST after the time limits */
static void timeouts(void)
{
	uint64_t start = loop_now_ns(), closed, refused;
	int theirs, fd, other;

	begin();
	other = open_stream(GPORT);
	fd = pair(&theirs);
	REQUIRE(!dev_vsock_host_connect(dev, 22, theirs));
	EXPECT(VSOCK_OP_REQUEST, &ph);
	close(other);
	EXPECT(VSOCK_OP_SHUTDOWN, &ph);
	CHECK_EQ(ph.flags, VSOCK_SHUTDOWN_BOTH);
	EXPECT(VSOCK_OP_RST, &ph);
	CHECK_EQ(ph.dst_port, GPORT);
	closed = loop_now_ns() - start;
	CHECK(closed >= 2 * NSEC_PER_SEC && closed < 4 * NSEC_PER_SEC);
	CHECK_EQ(streams(), 1);
	EXPECT(VSOCK_OP_RST, &ph);
	CHECK_EQ(ph.dst_port, 22);
	refused = loop_now_ns() - start;
	CHECK(refused >= 5 * NSEC_PER_SEC && refused < 7 * NSEC_PER_SEC);
	host_gone(fd);
	vdriver_run(loop, 5);
	CHECK_EQ(streams(), 0);
	end();
}

static void table_full(void)
{
	int fds[VSOCK_CONN_MAX], theirs, fd;

	begin();
	CHECK_EQ(dev_vsock_host_accept(dev, HPORT, 9999), -EBADF);
	CHECK_EQ(dev_vsock_host_connect(dev, HPORT, 9999), -EBADF);
	CHECK_EQ(streams(), 0);
	for (unsigned i = 0; i < VSOCK_CONN_MAX; i++)
		fds[i] = offer(HPORT);
	fd = pair(&theirs);
	CHECK_EQ(dev_vsock_host_accept(dev, HPORT, theirs), -ENFILE);
	CHECK_EQ(dev_vsock_host_connect(dev, HPORT, theirs), -ENFILE);
	REQUIRE(write(theirs, "x", 1) == 1); /* still ours */
	close(fds[0]);
	vdriver_run(loop, 10);
	CHECK_EQ(dev_vsock_host_accept(dev, HPORT, theirs), 0);
	for (unsigned i = 1; i < VSOCK_CONN_MAX; i++)
		close(fds[i]);
	close(fd);
	end();
}

/* ---- data and credit ---- */

static void data_both_ways(void)
{
	static uint8_t out[200000], in[sizeof(out)];
	size_t got = 0;
	int fd;

	begin();
	fd = open_stream(GPORT);
	fill(out, 0, sizeof(out));
	for (size_t off = 0; off < sizeof(out); off += 50000)
		send_data(GPORT, out + off, 50000);
	CHECK(host_read(fd, in, sizeof(in)));
	CHECK(!memcmp(in, out, sizeof(in)));

	memset(in, 0, sizeof(in));
	for (size_t put = 0; got < sizeof(in);) {
		ssize_t n = write(fd, out + put, sizeof(out) - put);

		put += n > 0 ? (size_t)n : 0;
		REQUIRE(vsguest_recv(g, &ph));
		if (ph.op == VSOCK_OP_CREDIT_UPDATE)
			continue;
		REQUIRE(ph.op == VSOCK_OP_RW);
		CHECK(ph.len > 0 && ph.len <= g->rx_size);
		CHECK_EQ(ph.fwd_cnt, sizeof(out));
		REQUIRE(ph.len <= sizeof(in) - got);
		memcpy(in + got, g->payload, ph.len);
		got += ph.len;
	}
	CHECK(!memcmp(in, out, sizeof(in)));
	close(fd);
	end();
}

/* 5.10.6.3: no more is sent than buf_alloc - (tx_cnt - fwd_cnt), whatever buffers there are */
static void peer_credit_is_kept(void)
{
	struct vsock_hdr h;
	uint8_t data[5000];
	uint32_t got = 0;
	int fd;

	begin();
	fill(data, 0, sizeof(data));
	fd = open_stream_credit(GPORT, 1000);
	REQUIRE(write(fd, data, sizeof(data)) == sizeof(data));
	EXPECT(VSOCK_OP_RW, &ph);
	CHECK_EQ(ph.len, 1000);
	got += ph.len;
	CHECK(vsguest_quiet(g, 50));
	CHECK(!TAILQ_FIRST(&container_of(dev, struct vsock, dev)->all)->stage); /* nor is it read */
	EXPECT(VSOCK_OP_CREDIT_REQUEST, &ph); /* after a while it asks, once */
	CHECK(vsguest_quiet(g, 400));
	h = vsguest_hdr(VSOCK_OP_CREDIT_UPDATE, GPORT, HPORT);
	h.buf_alloc = 1000;
	h.fwd_cnt = 300;
	vsguest_send(g, &h, NULL, 0);
	EXPECT(VSOCK_OP_RW, &ph);
	CHECK_EQ(ph.len, 300);
	CHECK(filled(g->payload, got, ph.len));
	got += ph.len;
	CHECK(vsguest_quiet(g, 20));
	h.buf_alloc = 100000;
	h.fwd_cnt = got;
	vsguest_send(g, &h, NULL, 0);
	EXPECT(VSOCK_OP_RW, &ph);
	CHECK_EQ(ph.len, 5000 - 1300);
	CHECK(filled(g->payload, got, ph.len));
	close(fd);
	end();
}

/* Credit taken back after the host was read: the data waits, and other streams don't */
static void credit_taken_back(void)
{
	enum { N = VSOCK_STAGES_MAX + 4 };
	struct vsock_hdr h;
	int fd[N], last;
	char data[8000];

	begin_with(VSGUEST_SPLIT, N + 1, 1000);
	g->rx_hold = true;
	memset(data, 'x', sizeof(data));
	for (uint32_t i = 0; i < N; i++)
		fd[i] = open_stream_credit(GPORT + i, 8000);
	CHECK_EQ(g->rx_posted, 1);
	for (unsigned i = 0; i < N; i++)
		REQUIRE(write(fd[i], data, sizeof(data)) == sizeof(data));
	EXPECT(VSOCK_OP_RW, &ph); /* stages are full now */
	vdriver_run(loop, 10);
	for (uint32_t i = 0; i < N; i++) {
		h = vsguest_hdr(VSOCK_OP_CREDIT_UPDATE, GPORT + i, HPORT);
		h.buf_alloc = 10;
		vsguest_send(g, &h, NULL, 0);
	}
	vdriver_run(loop, 10);
	g->rx_hold = false;
	vsguest_post(g, N + 1);
	last = open_stream(GPORT + N);
	REQUIRE(write(last, "y", 1) == 1);
	do { /* the others get ten bytes each, but for the one that got more already, and questions */
		REQUIRE(vsguest_recv(g, &ph));
		if (ph.dst_port != GPORT + N && ph.op == VSOCK_OP_RW)
			CHECK_EQ(ph.len, 10);
	} while (ph.dst_port != GPORT + N);
	CHECK_EQ(ph.len, 1);
	for (unsigned i = 0; i < N; i++)
		close(fd[i]);
	close(last);
	end();
}

/* 5.10.6.3: a guest that sends more than it was given room for loses the connection */
static void credit_overrun(void)
{
	static uint8_t data[64 * 1024];
	int fd, other;

	begin();
	other = open_stream(GPORT + 1);
	fd = open_stream(GPORT);
	for (int bytes = 4096; setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &bytes, sizeof(bytes));)
		REQUIRE(!"SO_RCVBUF");
	/* the socket takes some, the window 256 KiB; nobody reads */
	for (unsigned i = 0; i < 60; i++) {
		if (!vsguest_can_send(g))
			vdriver_run(loop, 1);
		send_data(GPORT, data, sizeof(data));
		if (vsguest_poll(g, &ph) && ph.op == VSOCK_OP_RST)
			break;
	}
	if (ph.op != VSOCK_OP_RST)
		EXPECT(VSOCK_OP_RST, &ph);
	CHECK_EQ(ph.dst_port, GPORT);
	CHECK(buffer_bytes() <= VSOCK_WINDOW + VSOCK_STAGES_MAX * VSOCK_STAGE_SIZE);
	send_data(GPORT + 1, "ok", 2); /* and nobody else does */
	CHECK(host_wait(other, POLLIN));
	CHECK(host_wait(fd, POLLHUP));
	close(fd);
	close(other);
	end();
}

/* CREDIT_UPDATE comes once half the window is free again, and in answer to CREDIT_REQUEST */
static void credit_updates(void)
{
	static uint8_t data[64 * 1024], in[64 * 1024];
	int fd;

	begin();
	fd = open_stream(GPORT);
	send_data(GPORT, data, 65536);
	CHECK(host_read(fd, in, 65536));
	CHECK(vsguest_quiet(g, 30));
	vsguest_op(g, VSOCK_OP_CREDIT_REQUEST, GPORT, HPORT);
	EXPECT(VSOCK_OP_CREDIT_UPDATE, &ph);
	CHECK_EQ(ph.fwd_cnt, 65536);
	CHECK_EQ(ph.buf_alloc, VSOCK_WINDOW);
	send_data(GPORT, data, 65536);
	send_data(GPORT, data, 65535);
	CHECK(host_read(fd, in, 65536) && host_read(fd, in, 65535));
	CHECK(vsguest_quiet(g, 30));
	send_data(GPORT, data, 1);
	EXPECT(VSOCK_OP_CREDIT_UPDATE, &ph);
	CHECK_EQ(ph.fwd_cnt, 3 * 65536);
	close(fd);
	end();
}

/* The first streams have a large window; with many more, each has a small one, which works as well */
static void windows(void)
{
	enum { N = VSOCK_WINDOWS_LARGE + 3 };
	static uint8_t data[VSOCK_WINDOW_SMALL], in[VSOCK_WINDOW_SMALL];
	int fd[N];

	begin();
	for (uint32_t i = 0; i < N; i++) {
		fd[i] = open_stream(GPORT + i);
		CHECK_EQ(ph.buf_alloc, i < VSOCK_WINDOWS_LARGE ? VSOCK_WINDOW : VSOCK_WINDOW_SMALL);
	}
	for (unsigned k = 0; k < 5; k++) {
		fill(data, k, sizeof(data));
		send_data(GPORT + N - 1, data, sizeof(data));
		CHECK(host_read(fd[N - 1], in, sizeof(in)));
		CHECK(!memcmp(in, data, sizeof(in)));
		EXPECT(VSOCK_OP_CREDIT_UPDATE, &ph);
	}
	/* a large one that ends makes room for another */
	vsguest_op(g, VSOCK_OP_RST, GPORT, HPORT);
	host_gone(fd[0]);
	vdriver_run(loop, 5);
	fd[0] = open_stream(GPORT + N);
	CHECK_EQ(ph.buf_alloc, VSOCK_WINDOW);
	for (unsigned i = 0; i < N; i++)
		close(fd[i]);
	end();
}

/* A host end that nobody reads stops its stream, no other, and memory stays bounded */
static void slow_host(void)
{
	static uint8_t data[65536], in[65536];
	uint32_t sent = 0, fwd = 0;
	int slow, quick;

	begin();
	slow = open_stream(GPORT);
	quick = open_stream(GPORT + 1);
	while (sent - fwd + sizeof(data) <=
		VSOCK_WINDOW) { /* as a good guest: until it has no credit */
		fill(data, sent, sizeof(data));
		send_data(GPORT, data, sizeof(data));
		sent += sizeof(data);
		vdriver_run(loop, 3);
		while (vsguest_poll(g, &ph)) {
			CHECK_EQ(ph.op, VSOCK_OP_CREDIT_UPDATE);
			fwd = ph.fwd_cnt;
		}
	}
	for (uint32_t off = 0; off < 3 * MIB; off += sizeof(data)) {
		fill(data, off, sizeof(data));
		send_data(GPORT + 1, data, sizeof(data));
		CHECK(host_read(quick, in, sizeof(in)));
		CHECK(!memcmp(in, data, sizeof(in)));
		while (vsguest_poll(g, &ph))
			CHECK_EQ(ph.dst_port, GPORT + 1);
	}
	CHECK(buffer_bytes() <= 2 * VSOCK_WINDOW);
	for (uint32_t off = 0; off < sent; off += sizeof(in)) { /* nothing was lost meanwhile */
		CHECK(host_read(slow, in, sizeof(in)));
		CHECK(filled(in, off, sizeof(in)));
	}
	CHECK(vsguest_recv(g, &ph) && ph.op == VSOCK_OP_CREDIT_UPDATE && ph.dst_port == GPORT);
	close(slow);
	close(quick);
	end();
}

/* Without rx buffers host ends aren't read beyond the stages; then all arrives */
static void stopped_guest(void)
{
	enum { N = 100, BYTES = 100000 };
	static uint8_t data[BYTES];
	static uint32_t got[N], put[N];
	int fd[N];
	uint64_t left = (uint64_t)N * BYTES;

	begin_with(VSGUEST_WHOLE, N, 4096);
	g->rx_hold = true;
	for (uint32_t i = 0; i < N; i++)
		fd[i] = open_stream(GPORT + i);
	CHECK_EQ(g->rx_posted, 0);
	fill(data, 0, sizeof(data));
	for (unsigned i = 0; i < N; i++) {
		ssize_t n = write(fd[i], data, BYTES);

		REQUIRE(n > 0);
		put[i] = (uint32_t)n;
		got[i] = 0;
	}
	vdriver_run(loop, 50);
	CHECK(buffer_bytes() <= VSOCK_STAGES_MAX * VSOCK_STAGE_SIZE);
	g->rx_hold = false;
	vsguest_post(g, N);
	while (left) {
		uint32_t i;

		REQUIRE(vsguest_recv(g, &ph));
		REQUIRE(ph.op == VSOCK_OP_RW);
		i = ph.dst_port - GPORT;
		REQUIRE(i < N && got[i] + ph.len <= BYTES);
		CHECK(!memcmp(g->payload, data + got[i], ph.len));
		got[i] += ph.len;
		left -= ph.len;
		if (put[i] < BYTES) {
			ssize_t n = write(fd[i], data + put[i], BYTES - put[i]);

			put[i] += n > 0 ? (uint32_t)n : 0;
		}
	}
	for (unsigned i = 0; i < N; i++)
		close(fd[i]);
	end();
}

/* Streams take turns packet by packet */
static void fair_turns(void)
{
	enum { N = 5 };
	static uint8_t data[60000];
	unsigned count[N] = { 0 };
	int fd[N];

	begin_with(VSGUEST_WHOLE, N, 4096);
	g->rx_hold = true;
	for (uint32_t i = 0; i < N; i++)
		fd[i] = open_stream(GPORT + i);
	for (unsigned i = 0; i < N; i++)
		REQUIRE(write(fd[i], data, sizeof(data)) == sizeof(data));
	vdriver_run(loop, 20);
	for (unsigned k = 0; k < 10 * N; k++) {
		vsguest_post(g, 1);
		EXPECT(VSOCK_OP_RW, &ph);
		count[ph.dst_port - GPORT]++;
	}
	for (unsigned i = 0; i < N; i++) {
		CHECK_EQ(count[i], 10);
		close(fd[i]);
	}
	end();
}

/* More packets than one turn handles, both ways: the rest comes in the next */
static void budgets(void)
{
	static uint8_t data[60000];
	struct vsock_hdr h = vsguest_hdr(VSOCK_OP_CREDIT_REQUEST, GPORT, HPORT);
	enum { N = 3 * VIRTIO_KICK_BUDGET };
	uint64_t gpa, seq = 0;
	int fd[4];

	begin_with(VSGUEST_WHOLE, VSGUEST_RX_MAX, 1000);
	for (uint32_t i = 0; i < ARRAY_SIZE(fd); i++)
		fd[i] = open_stream(GPORT + i);
	CHECK(vsguest_can_send(g)); /* takes back what was used */
	gpa = vdriver_alloc(&g->v, VSOCK_HDR_SIZE, 1);
	vsock_hdr_encode(vdriver_ptr(&g->v, gpa, VSOCK_HDR_SIZE), &h);
	for (unsigned i = 0; i < N; i++)
		vdriver_add(&g->v, VSGUEST_TX, (struct vdbuf[]){ { gpa, VSOCK_HDR_SIZE } }, 1, 0);
	vdriver_kick(&g->v, VSGUEST_TX);
	while (vdriver_used(&g->v, VSGUEST_TX, NULL, NULL))
		seq++;
	CHECK_EQ(seq, VIRTIO_KICK_BUDGET);
	while (vdriver_wait_used(&g->v, VSGUEST_TX, NULL, NULL, 100))
		seq++;
	CHECK_EQ(seq, N);
	g->rx_hold = true; /* no kick but the loop's own */
	for (unsigned i = 0; i < ARRAY_SIZE(fd); i++)
		REQUIRE(write(fd[i], data, sizeof(data)) == sizeof(data));
	for (unsigned left = ARRAY_SIZE(fd) * sizeof(data); left;) {
		REQUIRE(vsguest_recv(g, &ph));
		left -= ph.op == VSOCK_OP_RW ? ph.len : 0;
	}
	for (unsigned i = 0; i < ARRAY_SIZE(fd); i++)
		close(fd[i]);
	end();
}

/* ---- closing ---- */

/* SHUTDOWN(SEND) of the guest: the host has all bytes, then end of file, and may still send */
static void guest_half_closes(void)
{
	static uint8_t data[65536], in[65536];
	int fd;

	begin();
	fd = open_stream(GPORT);
	for (unsigned i = 0; i < 4; i++) {
		fill(data, i * sizeof(data), sizeof(data));
		send_data(GPORT, data, sizeof(data));
	}
	send_shutdown(GPORT, VSOCK_SHUTDOWN_SEND);
	for (unsigned i = 0; i < 4; i++) {
		CHECK(host_read(fd, in, sizeof(in)));
		CHECK(filled(in, i * sizeof(in), sizeof(in)));
	}
	CHECK(host_eof(fd));
	REQUIRE(write(fd, "late", 4) == 4);
	EXPECT(VSOCK_OP_RW, &ph);
	CHECK_EQ(ph.len, 4);
	close(fd);
	EXPECT(VSOCK_OP_SHUTDOWN, &ph); /* both directions are over: a clean end */
	CHECK_EQ(ph.flags, VSOCK_SHUTDOWN_BOTH);
	vsguest_op(g, VSOCK_OP_RST, GPORT, HPORT);
	CHECK(vsguest_quiet(g, 20));
	CHECK_EQ(streams(), 0);
	end();
}

/* End of file at the host: SHUTDOWN(SEND) after the last byte, and the guest may still send */
static void host_half_closes(void)
{
	char c;
	int fd;

	begin();
	fd = open_stream(GPORT);
	REQUIRE(write(fd, "bye", 3) == 3);
	REQUIRE(!shutdown(fd, SHUT_WR));
	EXPECT(VSOCK_OP_RW, &ph);
	CHECK_EQ(ph.len, 3);
	EXPECT(VSOCK_OP_SHUTDOWN, &ph);
	CHECK_EQ(ph.flags, VSOCK_SHUTDOWN_SEND);
	for (unsigned i = 0; i < 3; i++) {
		send_data(GPORT, "z", 1);
		CHECK(host_read(fd, &c, 1) && c == 'z');
	}
	CHECK(vsguest_quiet(g, 20));
	send_shutdown(GPORT, VSOCK_SHUTDOWN_BOTH);
	EXPECT(VSOCK_OP_RST, &ph); /* 5.10.6.5 */
	CHECK(host_eof(fd));
	CHECK_EQ(streams(), 0);
	close(fd);
	end();
}

/* Half closed by the host, then wholly: noticed though nothing is sent */
static void host_half_closes_then_closes(void)
{
	int fd;

	begin();
	fd = open_stream(GPORT);
	REQUIRE(!shutdown(fd, SHUT_WR));
	EXPECT(VSOCK_OP_SHUTDOWN, &ph);
	CHECK_EQ(ph.flags, VSOCK_SHUTDOWN_SEND);
	vdriver_run(loop, 20);
	close(fd);
	EXPECT(VSOCK_OP_SHUTDOWN, &ph);
	CHECK_EQ(ph.flags, VSOCK_SHUTDOWN_BOTH);
	end();
}

static void host_closes(void)
{
	static uint8_t data[100000];
	size_t got = 0;
	int fd;

	begin();
	fd = open_stream(GPORT);
	fill(data, 0, sizeof(data));
	REQUIRE(write(fd, data, sizeof(data)) == sizeof(data));
	close(fd);
	for (; got < sizeof(data); got += ph.len) {
		EXPECT(VSOCK_OP_RW, &ph);
		CHECK(filled(g->payload, got, ph.len));
	}
	EXPECT(VSOCK_OP_SHUTDOWN, &ph);
	CHECK_EQ(ph.flags, VSOCK_SHUTDOWN_BOTH);
	vsguest_op(g, VSOCK_OP_REQUEST, GPORT, HPORT); /* the ports are in use until RST: void */
	CHECK(vsguest_quiet(g, 20));
	vsguest_op(g, VSOCK_OP_RST, GPORT, HPORT);
	vdriver_run(loop, 5);
	CHECK_EQ(streams(), 0);
	vsguest_op(g, VSOCK_OP_REQUEST, GPORT, HPORT);
	EXPECT(VSOCK_OP_RST, &ph);
	end();
}

/* The host closes with bytes unread: an error, RST */
static void host_aborts(void)
{
	int fd;

	begin();
	fd = open_stream(GPORT);
	send_data(GPORT, "unread", 6);
	CHECK(host_wait(fd, POLLIN));
	close(fd);
	EXPECT(VSOCK_OP_RST, &ph);
	vdriver_run(loop, 5);
	CHECK_EQ(streams(), 0);
	end();
}

/* The host reads no more: SHUTDOWN(RCV), and the other direction goes on */
static void host_reads_no_more(void)
{
	int fd;

	begin();
	fd = open_stream(GPORT);
	REQUIRE(!shutdown(fd, SHUT_RD));
	send_data(GPORT, "x", 1);
	EXPECT(VSOCK_OP_SHUTDOWN, &ph);
	CHECK_EQ(ph.flags, VSOCK_SHUTDOWN_RCV);
	send_data(GPORT, "x", 1); /* was under way */
	REQUIRE(write(fd, "y", 1) == 1);
	EXPECT(VSOCK_OP_RW, &ph);
	CHECK_EQ(ph.len, 1);
	CHECK_EQ(ph.fwd_cnt, 2);
	close(fd);
	end();
}

/* SHUTDOWN(RCV) of the guest: the host's writes fail; the guest may still send */
static void guest_reads_no_more(void)
{
	char c;
	int fd;

	begin();
	fd = open_stream(GPORT);
	send_shutdown(GPORT, VSOCK_SHUTDOWN_RCV);
	CHECK(host_wait(fd, POLLOUT));
	vdriver_run(loop, 5);
	CHECK(write(fd, "x", 1) < 0 && errno == EPIPE);
	send_data(GPORT, "a", 1);
	CHECK(host_read(fd, &c, 1));
	send_shutdown(GPORT, VSOCK_SHUTDOWN_SEND);
	do { /* perhaps that we send no more, as there is nobody to read it */
		REQUIRE(vsguest_recv(g, &ph));
	} while (ph.op == VSOCK_OP_SHUTDOWN);
	CHECK_EQ(ph.op, VSOCK_OP_RST);
	host_gone(fd);
	end();
}

/* The guest closes with bytes still on their way to a slow host: they arrive, then end of file */
static void guest_closes_with_data(bool by_rst)
{
	static uint8_t data[65536], in[65536];
	int fd, again;

	begin();
	fd = open_stream(GPORT);
	for (unsigned i = 0; i < 4; i++) {
		fill(data, i * sizeof(data), sizeof(data));
		send_data(GPORT, data, sizeof(data));
	}
	if (by_rst) {
		vsguest_op(g, VSOCK_OP_RST, GPORT, HPORT);
		CHECK(vsguest_quiet(g, 20));
	} else {
		send_shutdown(GPORT, VSOCK_SHUTDOWN_BOTH);
		EXPECT(VSOCK_OP_RST, &ph);
	}
	again = open_stream(GPORT); /* the same ports at once: another connection */
	send_data(GPORT, "new", 3);
	CHECK(host_read(again, in, 3) && !memcmp(in, "new", 3));
	for (unsigned i = 0; i < 4; i++) {
		CHECK(host_read(fd, in, sizeof(in)));
		CHECK(filled(in, i * sizeof(in), sizeof(in)));
	}
	CHECK(host_eof(fd));
	close(fd);
	close(again);
	end();
}

/* ---- what a guest may not do ---- */

static void wrong_addresses(void)
{
	struct vsock_hdr h = vsguest_hdr(VSOCK_OP_REQUEST, GPORT, HPORT);
	int fd;

	begin();
	fd = offer(HPORT);
	h.src_cid = VSGUEST_CID + 1; /* 5.10.6.4.1: not its address: dropped */
	vsguest_send(g, &h, NULL, 0);
	h.src_cid = VSGUEST_CID | UINT64_C(1) << 32;
	vsguest_send(g, &h, NULL, 0);
	CHECK(vsguest_quiet(g, 20));
	h.src_cid = VSGUEST_CID; /* nobody there but the host */
	h.dst_cid = 3;
	vsguest_send(g, &h, NULL, 0);
	EXPECT(VSOCK_OP_RST, &ph);
	CHECK_EQ(ph.src_cid, 3);
	CHECK_EQ(ph.src_port, HPORT);
	h.dst_cid = VSOCK_CID_HOST | UINT64_C(1) << 32;
	vsguest_send(g, &h, NULL, 0);
	EXPECT(VSOCK_OP_RST, &ph);
	CHECK_EQ(streams(), 1); /* the slot is still there */
	close(fd);
	end();
}

/* 5.10.6.4.2: RST to an unknown type */
static void wrong_types(void)
{
	static const uint16_t types[] = { 0, 2, 3, 0xffff };
	int fd;

	begin();
	fd = open_stream(GPORT);
	for (unsigned i = 0; i < ARRAY_SIZE(types); i++) {
		struct vsock_hdr h = vsguest_hdr(VSOCK_OP_RW, GPORT, HPORT);

		h.type = types[i];
		vsguest_send(g, &h, NULL, 0);
		EXPECT(VSOCK_OP_RST, &ph);
		CHECK_EQ(ph.type, types[i]);
		CHECK_EQ(ph.dst_port, GPORT);
		h.op = VSOCK_OP_RST;
		vsguest_send(g, &h, NULL, 0);
		CHECK(vsguest_quiet(g, 5));
	}
	CHECK_EQ(streams(), 1);
	close(fd);
	end();
}

static void unknown_connections(void)
{
	begin();
	for (unsigned op = 0; op < 12; op++) {
		vsguest_op(g, op, GPORT, HPORT);
		if (op == VSOCK_OP_RST)
			CHECK(vsguest_quiet(g, 20));
		else
			EXPECT(VSOCK_OP_RST, &ph);
	}
	end();
}

static void unknown_ops(void)
{
	static const unsigned ops[] = { VSOCK_OP_INVALID, VSOCK_OP_REQUEST, VSOCK_OP_RESPONSE, 8,
		999, 0xffff };

	begin();
	for (unsigned i = 0; i < ARRAY_SIZE(ops); i++) {
		int fd = open_stream(GPORT + i);

		vsguest_op(g, ops[i], GPORT + i, HPORT);
		EXPECT(VSOCK_OP_RST, &ph);
		CHECK_EQ(ph.dst_port, GPORT + i);
		host_gone(fd);
	}
	vdriver_run(loop, 5);
	CHECK_EQ(streams(), 0);
	end();
}

/* A header that promises more payload than the chain has */
static void payload_missing(void)
{
	struct vsock_hdr h = vsguest_hdr(VSOCK_OP_RW, GPORT, HPORT);
	int fd;

	begin();
	h.len = 10;
	vsguest_send(g, &h, "123456789", 9); /* unknown connection */
	EXPECT(VSOCK_OP_RST, &ph);
	fd = open_stream(GPORT);
	vsguest_send(g, &h, "0123456789abcdef", 16); /* more than it says: the rest doesn't count */
	CHECK(host_wait(fd, POLLIN));
	CHECK_EQ(read(fd, g->payload, 100), 10);
	vsguest_send(g, &h, "123456789", 9);
	EXPECT(VSOCK_OP_RST, &ph);
	host_gone(fd);
	fd = open_stream(GPORT);
	h.op = VSOCK_OP_RST;
	h.len = UINT32_MAX;
	vsguest_send(g, &h, NULL, 0);
	CHECK(vsguest_quiet(g, 20));
	host_gone(fd);
	end();
}

/* What isn't a packet at all stops the device; connections end; a reset makes it work again */
static void no_packets(unsigned what)
{
	uint64_t gpa;
	int fd;

	begin();
	fd = open_stream(GPORT);
	gpa = vdriver_alloc(&g->v, 64, 1);
	switch (what) {
	case 0: /* a header cut short */
		vdriver_add(&g->v, VSGUEST_TX, (struct vdbuf[]){ { gpa, 43 } }, 1, 0);
		break;
	case 1: /* nothing readable */
		vdriver_add(&g->v, VSGUEST_TX, (struct vdbuf[]){ { gpa, 64 } }, 0, 1);
		break;
	case 2: /* not RAM */
		vdriver_add(&g->v, VSGUEST_TX, (struct vdbuf[]){ { UINT64_C(1) << 40, 64 } }, 1, 0);
		break;
	case 3: /* rx buffers without room: used when their turn comes */
		g->rx_hold = true;
		vdriver_add(&g->v, VSGUEST_RX, (struct vdbuf[]){ { gpa, 44 } }, 0, 1);
		while (g->rx_posted) {
			vsguest_op(g, VSOCK_OP_CREDIT_REQUEST, GPORT, HPORT);
			EXPECT(VSOCK_OP_CREDIT_UPDATE, &ph);
		}
		vsguest_op(g, VSOCK_OP_CREDIT_REQUEST, GPORT, HPORT);
		break;
	}
	vdriver_kick(&g->v, VSGUEST_TX);
	host_gone(fd);
	CHECK(dev->status & VIRTIO_STATUS_NEEDS_RESET);
	CHECK_EQ(g->v.config_notified, 1);
	g->rx_hold = false;
	vsguest_restart(g);
	close(open_stream(GPORT));
	end();
}

/* Replies to strangers are bounded: tx waits for rx buffers, and goes on with them */
static void reply_flood(void)
{
	enum { N = VSGUEST_TX_MAX + VSOCK_REPLIES };
	unsigned sent = 0, got = 0;
	int fd;

	begin_with(VSGUEST_WHOLE, 8, 4096);
	fd = open_stream(GPORT);
	g->rx_hold = true;
	while (g->rx_posted) {
		vsguest_op(g, VSOCK_OP_CREDIT_REQUEST, GPORT, HPORT);
		EXPECT(VSOCK_OP_CREDIT_UPDATE, &ph);
	}
	for (unsigned idle = 0; idle < 20;) { /* as many as it takes */
		if (vsguest_can_send(g)) {
			vsguest_op(g, VSOCK_OP_RW, 5 + sent++, HPORT);
			REQUIRE(sent < 2 * N);
		} else {
			idle++;
			vdriver_run(loop, 1);
		}
	}
	CHECK_EQ(sent, N);
	g->rx_hold = false;
	vsguest_post(g, 8);
	for (; got < sent; got++) {
		EXPECT(VSOCK_OP_RST, &ph);
		CHECK_EQ(ph.dst_port, 5 + got);
	}
	send_data(GPORT, "x", 1);
	CHECK(host_wait(fd, POLLIN));
	close(fd);
	end();
}

/* 5.10.6.1.2: tx goes on without rx buffers; what a connection has to say meanwhile takes no memory */
static void tx_without_rx(void)
{
	static uint8_t data[8192], in[8192];
	int fd;

	begin_with(VSGUEST_WHOLE, 1, 4096);
	g->rx_hold = true;
	fd = open_stream(GPORT);
	CHECK_EQ(g->rx_posted, 0);
	for (unsigned i = 0; i < 200; i++) { /* far more than the window */
		fill(data, i, sizeof(data));
		vsguest_op(g, VSOCK_OP_CREDIT_REQUEST, GPORT, HPORT);
		send_data(GPORT, data, sizeof(data));
		REQUIRE(host_read(fd, in, sizeof(in)));
		CHECK(!memcmp(data, in, sizeof(in)));
	}
	g->rx_hold = false;
	vsguest_post(g, 1);
	EXPECT(VSOCK_OP_CREDIT_UPDATE, &ph);
	CHECK_EQ(ph.fwd_cnt, 200 * 8192);
	CHECK(vsguest_quiet(g, 20));
	close(fd);
	end();
}

/* ---- resets, events, the end ---- */

/* A reset in mid-flight: streams end, whatever was under way, and slots live on */
static void reset_in_flight(void)
{
	static uint8_t data[65536];
	int fd[20], slot, theirs, pending;

	begin();
	for (uint32_t i = 0; i < ARRAY_SIZE(fd); i++)
		fd[i] = open_stream(GPORT + i);
	slot = offer(HPORT);
	pending = pair(&theirs);
	REQUIRE(!dev_vsock_host_connect(dev, 1, theirs));
	EXPECT(VSOCK_OP_REQUEST, &ph);
	g->rx_hold = true;
	for (uint32_t i = 0; i < ARRAY_SIZE(fd); i++) {
		REQUIRE(write(fd[i], data, sizeof(data)) > 0);
		send_data(GPORT + i, data, sizeof(data));
	}
	vdriver_run(loop, 5);
	vsguest_op(g, VSOCK_OP_RW, 1, 1); /* no buffer is left for the answer */
	vdriver_run(loop, 1);
	virtio_reset(dev);
	g->rx_hold = false;
	vsguest_restart(g);
	for (uint32_t i = 0; i < ARRAY_SIZE(fd); i++) {
		CHECK(host_wait(fd[i], POLLHUP));
		close(fd[i]);
	}
	host_gone(pending);
	vdriver_run(loop, 5);
	CHECK_EQ(streams(), 1);
	vsguest_op(g, VSOCK_OP_REQUEST, GPORT, HPORT);
	EXPECT(VSOCK_OP_RESPONSE, &ph); /* and no packet of the old life before it */
	send_data(GPORT, "x", 1);
	CHECK(host_wait(slot, POLLIN));
	close(slot);
	end();
}

/* 5.10.6.7: TRANSPORT_RESET when there is a buffer for it; connections are gone */
static void transport_reset(void)
{
	uint64_t gpa;
	uint32_t len, *id;
	int fd, slot;

	begin();
	fd = open_stream(GPORT);
	slot = offer(HPORT);
	gpa = vdriver_alloc(&g->v, 4, 4);
	id = vdriver_ptr(&g->v, gpa, 4);
	*id = 99;
	dev_vsock_transport_reset(dev);
	host_gone(fd);
	CHECK_EQ(g->v.q[VSGUEST_EVENT].notified, 0);
	vdriver_add(&g->v, VSGUEST_EVENT, (struct vdbuf[]){ { gpa, 4 } }, 0, 1);
	vdriver_kick(&g->v, VSGUEST_EVENT);
	CHECK(vdriver_wait_used(&g->v, VSGUEST_EVENT, NULL, &len, 1000));
	CHECK_EQ(len, 4);
	CHECK_EQ(*id, VSOCK_EVENT_TRANSPORT_RESET);
	CHECK_EQ(g->v.q[VSGUEST_EVENT].notified, 1);
	/* buffers are kept until there is something to say */
	vdriver_add(&g->v, VSGUEST_EVENT, (struct vdbuf[]){ { gpa, 4 } }, 0, 1);
	vdriver_kick(&g->v, VSGUEST_EVENT);
	CHECK(!vdriver_wait_used(&g->v, VSGUEST_EVENT, NULL, NULL, 20));
	send_data(GPORT, "x", 1); /* the old connection */
	EXPECT(VSOCK_OP_RST, &ph);
	vsguest_op(g, VSOCK_OP_REQUEST, GPORT, HPORT);
	EXPECT(VSOCK_OP_RESPONSE, &ph);
	dev_vsock_transport_reset(dev);
	CHECK(vdriver_wait_used(&g->v, VSGUEST_EVENT, NULL, NULL, 1000));
	host_gone(slot);
	/* one that is too small is no event buffer */
	vdriver_add(&g->v, VSGUEST_EVENT, (struct vdbuf[]){ { gpa, 3 } }, 0, 1);
	dev_vsock_transport_reset(dev);
	vdriver_run(loop, 5);
	CHECK(dev->status & VIRTIO_STATUS_NEEDS_RESET);
	end();
}

/* The end with everything under way; afterwards nothing is taken */
static void stop_in_flight(void)
{
	static uint8_t data[65536];
	int fd[8], slot, theirs, mine;

	begin();
	slot = offer(HPORT + 1);
	for (uint32_t i = 0; i < ARRAY_SIZE(fd); i++) {
		fd[i] = open_stream(GPORT + i);
		send_data(GPORT + i, data, sizeof(data));
		send_data(GPORT + i, data, sizeof(data));
		send_data(GPORT + i, data, sizeof(data));
		send_data(GPORT + i, data, sizeof(data));
		REQUIRE(write(fd[i], data, sizeof(data)) > 0);
	}
	virtio_stop(dev);
	mine = pair(&theirs);
	CHECK_EQ(dev_vsock_host_accept(dev, 1, theirs), -ESHUTDOWN);
	CHECK_EQ(dev_vsock_host_connect(dev, 1, theirs), -ESHUTDOWN);
	close(theirs);
	close(mine);
	host_gone(slot);
	for (unsigned i = 0; i < ARRAY_SIZE(fd); i++) {
		CHECK(host_wait(fd[i], POLLHUP));
		close(fd[i]);
	}
	end();
}

static void alarm_rings(struct loop_timer *t)
{
	(void)t;
	loop_stop(loop);
}

/* Nanoseconds of CPU that the loop uses while nothing happens for @ms. */
static uint64_t idle_cpu_ns(unsigned ms)
{
	struct loop_timer t = { .fire = alarm_rings };
	struct timespec a, b;

	loop_timer_set(loop, &t, loop_now_ns() + ms * NSEC_PER_MSEC);
	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &a);
	REQUIRE(!loop_run(loop));
	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &b);
	return (uint64_t)(b.tv_sec - a.tv_sec) * NSEC_PER_SEC + (uint64_t)b.tv_nsec -
	       (uint64_t)a.tv_nsec;
}

/* Streams that wait, each in another way, leave the loop alone */
static void nothing_spins(void)
{
	static uint8_t data[65536];
	int fd[11], theirs;
	unsigned n = 0;

	begin();
	fd[n++] = open_stream(GPORT);              /* idle */
	fd[n] = open_stream_credit(GPORT + 1, 10); /* no credit */
	REQUIRE(write(fd[n++], data, 100) == 100);
	fd[n] = open_stream(GPORT + 2); /* half closed by the host */
	REQUIRE(!shutdown(fd[n++], SHUT_WR));
	fd[n++] = open_stream(GPORT + 3); /* by the guest, each way */
	send_shutdown(GPORT + 3, VSOCK_SHUTDOWN_SEND);
	fd[n++] = open_stream(GPORT + 4);
	send_shutdown(GPORT + 4, VSOCK_SHUTDOWN_RCV);
	fd[n++] = open_stream(GPORT + 5); /* the host reads nothing */
	fd[n++] = open_stream(GPORT + 6); /* nor here, and the guest has gone */
	for (unsigned i = 0; i < 8; i++)
		send_data(GPORT + 5 + i / 4, data, sizeof(data));
	vsguest_op(g, VSOCK_OP_RST, GPORT + 6, HPORT);
	fd[n] = offer(HPORT + 1); /* a slot, half closed */
	REQUIRE(!shutdown(fd[n++], SHUT_WR));
	fd[n] = offer(HPORT + 1); /* another, written to */
	REQUIRE(write(fd[n++], "x", 1) == 1);
	theirs = open_stream(GPORT + 7); /* closed, and the guest doesn't say RST */
	REQUIRE(write(theirs, "x", 1) == 1);
	close(theirs);
	fd[n] = pair(&theirs); /* unanswered, half closed */
	REQUIRE(!shutdown(fd[n++], SHUT_WR));
	REQUIRE(!dev_vsock_host_connect(dev, 9, theirs));
	while (!vsguest_quiet(g, 300))
		;
	CHECK(idle_cpu_ns(400) < 40 * NSEC_PER_MSEC);
	for (unsigned i = 0; i < n; i++)
		close(fd[i]);
	end();
}

/* Any layout of descriptors will do (2.7.4.2 via 5.10.6) */
static void layouts(void)
{
	static const enum vsguest_layout all[] = { VSGUEST_SPLIT, VSGUEST_WHOLE, VSGUEST_CRUMBS };
	uint8_t data[1000];

	fill(data, 0, sizeof(data));
	for (unsigned i = 0; i < ARRAY_SIZE(all); i++) {
		size_t got = 0;
		int fd;

		begin_with(all[i], 8, 100);
		fd = open_stream(GPORT);
		REQUIRE(write(fd, data, sizeof(data)) == sizeof(data));
		while (got < sizeof(data)) {
			EXPECT(VSOCK_OP_RW, &ph);
			CHECK_EQ(ph.len, 100);
			CHECK(filled(g->payload, got, ph.len));
			got += ph.len;
		}
		close(fd);
		end();
	}
}

static void all(void)
{
	identity();
	nobody_listens();
	slots();
	slot_withdrawn();
	early_data();
	host_connects();
	host_connects_early();
	data_both_ways();
	peer_credit_is_kept();
	credit_taken_back();
	credit_overrun();
	credit_updates();
	windows();
	slow_host();
	stopped_guest();
	fair_turns();
	budgets();
	nothing_spins();
	guest_half_closes();
	host_half_closes();
	host_half_closes_then_closes();
	host_closes();
	host_aborts();
	host_reads_no_more();
	guest_reads_no_more();
	guest_closes_with_data(false);
	guest_closes_with_data(true);
	wrong_addresses();
	wrong_types();
	unknown_connections();
	unknown_ops();
	payload_missing();
	for (unsigned what = 0; what < 4; what++)
		no_packets(what);
	reply_flood();
	tx_without_rx();
	reset_in_flight();
	transport_reset();
	stop_in_flight();
	layouts();
}

int main(void)
{
	struct error e = { 0 };
	struct rlimit lim;

	signal(SIGPIPE, SIG_IGN);
	REQUIRE(!getrlimit(RLIMIT_NOFILE, &lim));
	lim.rlim_cur = lim.rlim_max; /* VSOCK_CONN_MAX pairs */
	REQUIRE(!setrlimit(RLIMIT_NOFILE, &lim));
	log_init("test", LOG_ERROR);
	REQUIRE(!loop_create(&loop, 256, &e));
	REQUIRE(!loop_start(loop, true, &e));
	REQUIRE(!gmem_create(&mem, 32 * MIB, &e));
	all();
	nonblocking = true;
	all();
	table_full();
	timeouts();
	loop_destroy(loop);
	gmem_destroy(mem);
	TEST_END();
}

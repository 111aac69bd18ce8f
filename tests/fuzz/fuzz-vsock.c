/*
 * The socket device between a guest and a host that both do as the input says: packets right and wrong, live
 * socketpairs, rx buffers that come when they come, resets and time limits at any moment.
 *
 *   first byte % OP_COUNT  then
 *   PACKET    1 ports, 1 op, 1 flags, 2 len, 3 buf_alloc, 2 fwd_cnt   a packet with that much payload
 *   LIE       the same, 2 payload, 1 type, 1 CIDs                     other payload than len, odd type and CIDs
 *   RAW       1 queue, 1 flags, 4 gpa, 4 len                          a chain of one descriptor
 *   RX        1 count, 2 size                                         rx buffers
 *   TAKE      -                                                       look at used rx buffers
 *   EVENT     1 size                                                  an event buffer
 *   OFFER     1 port                                                  a slot
 *   CONNECT   1 port                                                  from the host
 *   WRITE     1 end, 2 len                                            at a host end
 *   READ      1 end, 2 len
 *   SHUT      1 end, 1 how
 *   CLOSE     1 end
 *   TURN      1 count                                                 of the loop
 *   TIME      -                                                       all time limits of streams run out
 *   RESET     1 how                                                   of driver or transport
 *
 * What must hold: data arrives in order, without gaps, at most once; buffers, stages and windows add up; all ends when
 * the device is stopped. The seeds are written by mkseeds-vsock.py.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "tests/lib/vdriver.h"
#include "vmm/vsock_dev.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum {
	OP_PACKET,
	OP_LIE,
	OP_RAW,
	OP_RX,
	OP_TAKE,
	OP_EVENT,
	OP_OFFER,
	OP_CONNECT,
	OP_WRITE,
	OP_READ,
	OP_SHUT,
	OP_CLOSE,
	OP_TURN,
	OP_TIME,
	OP_RESET,
	OP_COUNT,
};

#define CID       77
#define OPS_MAX   400
#define SLOTS     32 /* chains in flight per queue; queues have twice as many entries */
#define QSIZE     (2 * SLOTS)
#define ENDS      8
#define PORTS     4
#define HOST_PORT 1000
#define MEM       (16 * MIB)
#define RINGS     (1 * MIB)
#define BUFFERS   (4 * MIB)
#define TX_BYTES  (72 * KIB)
#define RX_BYTES  (8 * KIB)

struct queue {
	uint16_t *desc_base, *avail, *used;
	struct vdesc *desc;
	uint16_t last_used;
	bool busy[SLOTS];
	uint32_t size[SLOTS];
};

struct end { /* a host end: bytes written count up, and so do bytes read */
	int fd;
	uint8_t wrote, next;
	bool started;
};

struct seen { /* what the guest saw last on a pair of ports */
	uint32_t hport, gport;
	uint8_t next;
	bool started;
};

struct fuzz {
	const uint8_t *p;
	size_t left;
	struct virtio_dev *dev;
	struct queue q[VSOCK_Q_COUNT];
	struct end end[ENDS];
	uint32_t hport[PORTS]; /* ports of the host's connections, as the guest learnt them */
	unsigned nhport;
	uint8_t sent[PORTS * PORTS]; /* by pair of ports: what the guest's next byte is */
	struct seen seen[64];
	unsigned nseen;
};

static struct loop *loop;
static struct gmem *mem;

static void die(const char *why)
{
	fprintf(stderr, "fuzz-vsock: %s\n", why);
	abort();
}

static uint32_t get(struct fuzz *z, unsigned n)
{
	uint32_t v = 0;

	for (unsigned i = 0; i < n && z->left; i++, z->p++, z->left--)
		v |= (uint32_t)*z->p << (8 * i);
	return v;
}

static void *ram(uint64_t gpa, size_t len)
{
	void *p = gmem_map(mem, gpa, len);

	if (!p)
		die("not RAM");
	return p;
}

/* ---- driver ---- */

static void start(struct fuzz *z)
{
	struct virtio_dev *d = z->dev;
	uint32_t status = VIRTIO_STATUS_ACKNOWLEDGE | VIRTIO_STATUS_DRIVER;

	virtio_set_status(d, 0);
	virtio_set_status(d, status);
	virtio_set_features(d, 0, (uint32_t)d->offered);
	virtio_set_features(d, 1, (uint32_t)(d->offered >> 32));
	virtio_set_status(d, status |= VIRTIO_STATUS_FEATURES_OK);
	for (unsigned i = 0; i < VSOCK_Q_COUNT; i++) {
		uint64_t base = RINGS + i * 0x10000;
		struct vq *vq = virtio_queue_setup(d, i);
		struct queue *q = &z->q[i];

		if (!vq)
			die("no queue");
		memset(ram(base, 0x10000), 0, 0x10000);
		memset(q, 0, sizeof(*q));
		q->desc = ram(base, QSIZE * 16);
		q->avail = ram(base + 0x4000, 0x1000);
		q->used = ram(base + 0x8000, 0x1000);
		vq->size = QSIZE;
		vq->desc_gpa = base;
		vq->avail_gpa = base + 0x4000;
		vq->used_gpa = base + 0x8000;
		virtio_queue_enable(d, i);
	}
	virtio_set_status(d, status | VIRTIO_STATUS_DRIVER_OK);
	if (!virtio_running(d))
		die("the device doesn't run");
	z->nseen = 0;
}

/* A used chain: its slot, and in @ret_len what was written; -1: none. */
static int used(struct queue *q, uint32_t *ret_len)
{
	uint32_t e[2];

	if (q->used[1] == q->last_used)
		return -1;
	memcpy(e, &q->used[2 + 4 * (q->last_used % QSIZE)], sizeof(e));
	q->last_used++;
	if (e[0] >= QSIZE || e[0] % 2 || !q->busy[e[0] / 2])
		die("the device used a chain that it didn't have");
	q->busy[e[0] / 2] = false;
	*ret_len = e[1];
	return (int)(e[0] / 2);
}

static int slot(struct fuzz *z, unsigned qi)
{
	struct queue *q = &z->q[qi];
	uint32_t len;

	while (qi != VSOCK_Q_RX && used(q, &len) >= 0)
		;
	for (int i = 0; i < SLOTS; i++) {
		if (!q->busy[i])
			return i;
	}
	return -1;
}

static void publish(struct fuzz *z, unsigned qi, int i, struct vdesc a, struct vdesc b)
{
	struct queue *q = &z->q[qi];

	a.next = (uint16_t)(2 * i + 1);
	q->desc[2 * i] = a;
	q->desc[2 * i + 1] = b;
	q->busy[i] = true;
	q->avail[2 + q->avail[1] % QSIZE] = (uint16_t)(2 * i);
	__atomic_store_n(&q->avail[1], (uint16_t)(q->avail[1] + 1), __ATOMIC_RELEASE);
	virtio_kick(z->dev, qi);
}

/* ---- the guest ---- */

static uint32_t guest_port(unsigned i)
{
	return 5000 + i % PORTS;
}

static uint32_t host_port(const struct fuzz *z, unsigned i)
{
	i %= PORTS;
	return i < PORTS / 2 || !z->nhport ? HOST_PORT + i : z->hport[i % MIN(z->nhport, PORTS)];
}

static void packet(struct fuzz *z, bool lie)
{
	unsigned ports = get(z, 1), gp = ports % PORTS, hp = ports / PORTS % PORTS;
	struct vsock_hdr h = {
		.src_cid = CID, .dst_cid = VSOCK_CID_HOST, .type = VSOCK_TYPE_STREAM
	};
	int i = slot(z, VSOCK_Q_TX);
	uint8_t *p, *seq = &z->sent[gp * PORTS + hp];
	uint32_t payload;

	h.src_port = guest_port(gp);
	h.dst_port = host_port(z, hp);
	h.op = (uint16_t)(get(z, 1) % 10);
	h.flags = get(z, 1);
	payload = h.len = get(z, 2);
	h.buf_alloc = get(z, 3);
	h.fwd_cnt = get(z, 2);
	if (lie) {
		payload = get(z, 2);
		h.type = (uint16_t)get(z, 1);
		h.src_cid ^= get(z, 1) & 3;
		h.dst_cid ^= h.type >> 4;
	}
	if (i < 0)
		return;
	p = ram(BUFFERS + (uint64_t)i * TX_BYTES, TX_BYTES);
	vsock_hdr_encode(p, &h);
	for (uint32_t k = 0; k < payload; k++)
		p[VSOCK_HDR_SIZE + k] = (uint8_t)(*seq + k);
	if (h.op == VSOCK_OP_RW && h.len <= payload && h.type == VSOCK_TYPE_STREAM &&
		h.src_cid == CID && h.dst_cid == VSOCK_CID_HOST)
		*seq = (uint8_t)(*seq + h.len);
	publish(z, VSOCK_Q_TX, i,
		(struct vdesc){ BUFFERS + (uint64_t)i * TX_BYTES, VSOCK_HDR_SIZE,
			payload ? VDESC_NEXT : 0, 0 },
		(struct vdesc){ BUFFERS + (uint64_t)i * TX_BYTES + VSOCK_HDR_SIZE, payload, 0, 0 });
}

static void raw_chain(struct fuzz *z)
{
	unsigned qi = get(z, 1) % VSOCK_Q_COUNT, flags = get(z, 1);
	int i = slot(z, qi);
	struct vdesc d = { .addr = get(z, 4), .flags = (uint16_t)(flags & 7) };

	d.len = get(z, 4);
	if (i < 0)
		return;
	z->q[qi].size[i] = 0;
	publish(z, qi, i, d, d);
}

static void rx_buffers(struct fuzz *z)
{
	unsigned n = get(z, 1) % SLOTS + 1;
	uint32_t size = get(z, 2) % RX_BYTES;
	int i;

	for (; n && (i = slot(z, VSOCK_Q_RX)) >= 0; n--) {
		uint64_t gpa = BUFFERS + SLOTS * TX_BYTES + (uint64_t)i * RX_BYTES;

		z->q[VSOCK_Q_RX].size[i] = size;
		publish(z, VSOCK_Q_RX, i,
			(struct vdesc){ gpa, size / 2, VDESC_WRITE | VDESC_NEXT, 0 },
			(struct vdesc){ gpa + size / 2, size - size / 2, VDESC_WRITE, 0 });
	}
}

static void event_buffer(struct fuzz *z)
{
	uint32_t size = get(z, 1);
	int i = slot(z, VSOCK_Q_EVENT);

	if (i >= 0)
		publish(z, VSOCK_Q_EVENT, i, (struct vdesc){ BUFFERS, size, VDESC_WRITE, 0 },
			(struct vdesc){ 0 });
}

static struct seen *seen(struct fuzz *z, const struct vsock_hdr *h)
{
	for (unsigned i = 0; i < z->nseen; i++) {
		if (z->seen[i].hport == h->src_port && z->seen[i].gport == h->dst_port)
			return &z->seen[i];
	}
	z->nseen = z->nseen < ARRAY_SIZE(z->seen) ? z->nseen + 1 : 1;
	z->seen[z->nseen - 1] = (struct seen){ .hport = h->src_port, .gport = h->dst_port };
	return &z->seen[z->nseen - 1];
}

static void check_data(struct seen *s, const uint8_t *p, uint32_t len)
{
	for (uint32_t k = 0; k < len; k++) {
		if (s->started && p[k] != s->next)
			die("the guest got bytes out of order");
		s->started = true;
		s->next = (uint8_t)(p[k] + 1);
	}
}

static void check_packet(struct fuzz *z, const uint8_t *p, uint32_t len)
{
	struct vsock_hdr h;
	struct seen *s;

	vsock_hdr_decode(&h, p);
	if (h.dst_cid != CID || h.op < VSOCK_OP_REQUEST || h.op > VSOCK_OP_CREDIT_REQUEST ||
		h.len != len - VSOCK_HDR_SIZE)
		die("the device sent nonsense");
	if (h.op != VSOCK_OP_RST &&
		(h.src_cid != VSOCK_CID_HOST || h.type != VSOCK_TYPE_STREAM || !h.buf_alloc))
		die("the device sent a wrong address or no credit");
	if (h.len && h.op != VSOCK_OP_RW)
		die("payload where there is none");
	if (h.op == VSOCK_OP_REQUEST)
		z->hport[z->nhport++ % PORTS] = h.src_port;
	s = seen(z, &h);
	if (h.op == VSOCK_OP_REQUEST || h.op == VSOCK_OP_RESPONSE || h.op == VSOCK_OP_RST)
		s->started = false;
	check_data(s, p + VSOCK_HDR_SIZE, h.len);
}

static void rx_take(struct fuzz *z)
{
	struct queue *q = &z->q[VSOCK_Q_RX];
	uint32_t len;
	int i;

	while ((i = used(q, &len)) >= 0) {
		if (!q->size[i])
			continue; /* a raw chain, anywhere in memory */
		if (len < VSOCK_HDR_SIZE || len > q->size[i])
			die("the device used an impossible length");
		check_packet(z, ram(BUFFERS + SLOTS * TX_BYTES + (uint64_t)i * RX_BYTES, len), len);
	}
}

/* ---- the host ---- */

static void make_end(struct fuzz *z, bool connect)
{
	unsigned port = get(z, 1);
	int sv[2], r;

	for (unsigned i = 0; i < ENDS; i++) {
		struct end *e = &z->end[i];

		if (e->fd >= 0)
			continue;
		if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv))
			die("socketpair");
		fcntl(sv[0], F_SETFL, O_NONBLOCK);
		if (port & 0x80)
			fcntl(sv[1], F_SETFL, O_NONBLOCK);
		*e = (struct end){ .fd = sv[0] };
		r = connect ? dev_vsock_host_connect(z->dev, guest_port(port), sv[1])
			    : dev_vsock_host_accept(z->dev, HOST_PORT + port % PORTS, sv[1]);
		if (r)
			die("the device refused a host end");
		return;
	}
}

static void end_write(struct end *e, uint32_t len)
{
	static uint8_t buf[65536];
	ssize_t n;

	for (uint32_t k = 0; k < len; k++)
		buf[k] = (uint8_t)(e->wrote + k);
	n = write(e->fd, buf, len);
	if (n > 0)
		e->wrote = (uint8_t)(e->wrote + n);
}

static void end_read(struct end *e, uint32_t len)
{
	static uint8_t buf[65536];
	ssize_t n = read(e->fd, buf, len);

	for (ssize_t k = 0; k < n; k++) {
		if (e->started && buf[k] != e->next)
			die("the host got bytes out of order");
		e->started = true;
		e->next = (uint8_t)(buf[k] + 1);
	}
}

static void host(struct fuzz *z, unsigned op)
{
	struct end *e = &z->end[get(z, 1) % ENDS];
	uint32_t arg = op == OP_CLOSE ? 0 : get(z, op == OP_SHUT ? 1 : 2);

	if (e->fd < 0)
		return;
	if (op == OP_WRITE)
		end_write(e, arg);
	else if (op == OP_READ)
		end_read(e, arg);
	else if (op == OP_SHUT)
		shutdown(e->fd, (int)(arg % 3));
	else
		close_fd(&e->fd);
}

/* ---- time ---- */

struct turn {
	struct loop_task task;
	unsigned left;
};

static void turn_run(struct loop_task *t)
{
	struct turn *turn = container_of(t, struct turn, task);

	if (turn->left--)
		loop_defer(loop, t);
	else
		loop_stop(loop);
}

static void turns(unsigned n)
{
	struct turn t = { .task.run = turn_run, .left = n };

	loop_defer(loop, &t.task);
	if (loop_run(loop))
		die("the loop broke");
}

static void time_passes(struct fuzz *z)
{
	struct vsock *v = container_of(z->dev, struct vsock, dev);
	struct vsock_stream *s;

	TAILQ_FOREACH (s, &v->all, all) {
		if (!s->timer.heap_pos)
			continue;
		loop_timer_clear(loop, &s->timer);
		s->timer.fire(&s->timer);
	}
}

static void reset(struct fuzz *z)
{
	if (get(z, 1) & 1)
		dev_vsock_transport_reset(z->dev);
	else
		start(z);
}

/* ---- what must hold ---- */

static void check(const struct virtio_dev *d)
{
	const struct vsock *v = container_of((struct virtio_dev *)(uintptr_t)d, struct vsock, dev);
	size_t bytes = v->nstage_free * VSOCK_STAGE_SIZE;
	unsigned n = 0, stages = 0, large = 0;
	const struct vsock_stream *s;

	TAILQ_FOREACH (s, &v->all, all) {
		const struct vsock_conn *c = &s->conn;
		uint32_t buffered = vsock_conn_buffered(c);

		n++;
		stages += s->stage_counted;
		large += s->large;
		bytes += s->ring.size + (s->stage ? VSOCK_STAGE_SIZE : 0);
		if (buffered && buffered != s->ring.len)
			die("ring and counters disagree");
		if (s->ring.size > VSOCK_WINDOW || s->ring.len > s->ring.size ||
			buffered > c->window)
			die("more than the window is buffered");
		if (vsock_conn_known(c) !=
			(vsock_table_find(&v->table, c->host_port, c->guest_port) == c))
			die("a connection is in the table and shouldn't be, or the other way round");
		if (s->on_control != !!c->pending)
			die("a pending packet that nobody will send");
	}
	if (n != v->nstreams || stages != v->nstages || large != v->nlarge ||
		bytes != v->buffer_bytes)
		die("streams, stages, windows or bytes don't add up");
	if (v->nreplies > VSOCK_REPLIES || stages > VSOCK_STAGES_MAX + ENDS)
		die("a limit is exceeded");
}

static void step(struct fuzz *z)
{
	unsigned op = get(z, 1) % OP_COUNT;

	switch (op) {
	case OP_PACKET:
	case OP_LIE:
		packet(z, op == OP_LIE);
		break;
	case OP_RAW:
		raw_chain(z);
		break;
	case OP_RX:
		rx_buffers(z);
		break;
	case OP_TAKE:
		rx_take(z);
		break;
	case OP_EVENT:
		event_buffer(z);
		break;
	case OP_OFFER:
	case OP_CONNECT:
		make_end(z, op == OP_CONNECT);
		break;
	case OP_TURN:
		turns(get(z, 1) % 8);
		break;
	case OP_TIME:
		time_passes(z);
		break;
	case OP_RESET:
		reset(z);
		break;
	default:
		host(z, op);
	}
}

static bool idle(void *d)
{
	return !virtio_busy(d);
}

static void finish(struct fuzz *z)
{
	virtio_stop(z->dev);
	if (!vdriver_run_until(loop, idle, z->dev, 10000))
		die("operations are still in flight after 10 s");
	virtio_destroy(z->dev);
	for (unsigned i = 0; i < ENDS; i++) {
		ssize_t n = 1;
		char c;

		while (z->end[i].fd >= 0 && n > 0)
			n = read(z->end[i].fd, &c, 1);
		if (n < 0 && errno == EAGAIN)
			die("a host end is still open");
		close_fd(&z->end[i].fd);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz z = { .p = data, .left = size };
	struct error e;

	if (!loop) {
		signal(SIGPIPE, SIG_IGN);
		log_init("fuzz", LOG_ERROR);
		if (loop_create(&loop, 256, &e) || loop_start(loop, true, &e) ||
			gmem_create(&mem, 32 * MIB, &e))
			die(e.msg);
	}
	for (unsigned i = 0; i < ENDS; i++)
		z.end[i].fd = -1;
	if (dev_vsock_create(&z.dev, loop, mem, CID, &e))
		die(e.msg);
	start(&z);
	for (unsigned i = 0; i < OPS_MAX && z.left; i++) {
		step(&z);
		check(z.dev);
	}
	turns(4);
	rx_take(&z);
	check(z.dev);
	finish(&z);
	return 0;
}

/*
 * vmm/dev_vsock.c - virtio socket device: queues, addresses, turns
 *
 * What:    tx packets go to their connection (vsock_conn.c) and their payload to its host end (vsock_stream.c). All
 *          that goes to the guest is sent by one task, the pump, that runs at most once a turn of the loop, so
 *          that rx buffers are used and interrupts raised in batches. First RSTs for packets that belong to nobody,
 *          then control packets, then data: one packet per stream in turn.
 * Bounds:  payload never needs more room than its connection gave credit for, and control packets of connections
 *          are bits in them, so tx is popped whatever the guest does with rx (5.10.6.1.2); but for VSOCK_REPLIES RSTs
 *          to strangers: when those wait for rx buffers, so does tx. Without rx buffers no more than VSOCK_STAGES_MAX
 *          host ends are read.
 * Trust:   headers are copied once, then checked. A packet that is no packet stops the device until it is reset; one
 *          from a wrong address is dropped; all other nonsense gets RST, unless it is an RST.
 * Threads: loop thread, but reset on a vCPU's; all under the device lock. Reset only forgets; descriptors are closed by
 *          the pump.
 * Limits:  VSOCK_CONN_MAX; each needs a descriptor that the supervisor handed out. RX_BUDGET packets and
 *          VIRTIO_KICK_BUDGET tx chains a turn.
 * Spec:    VIRTIO 1.2, 5.10
 */
#include "vmm/dev_vsock.h"

#include <assert.h>
#include <errno.h>

#include "vmm/vsock_dev.h"

#define F_STREAM 0 /* 5.10.3 */

#define RX_BUDGET 128

/* Ports of connections from the host, far from those with slots. */
#define HOST_PORT_FIRST UINT32_C(0x40000000)
#define HOST_PORT_LAST  UINT32_C(0x7fffffff)

static struct vsock *to_vsock(struct virtio_dev *d)
{
	return container_of(d, struct vsock, dev);
}

static struct vsock_stream *to_stream(struct vsock_conn *c)
{
	return container_of(c, struct vsock_stream, conn);
}

/* ---- all connections end ---- */

/* True for what the guest knows of. */
static bool guest_knows(const struct vsock_stream *s)
{
	return s->conn.state != VSOCK_LISTEN &&
	       !(s->conn.state == VSOCK_CONNECT && (s->conn.pending & 1u << VSOCK_OP_REQUEST));
}

/* Any thread. */
static void forget_all(struct vsock *v)
{
	struct vsock_stream *s;

	TAILQ_FOREACH (s, &v->all, all) {
		if (!guest_knows(s))
			continue;
		vsock_conn_forget(&s->conn);
		vsock_stream_detach(s);
	}
	v->nreplies = 0;
	v->tx_waits = false;
}

static void broken(struct vsock *v, const char *why)
{
	virtio_needs_reset(&v->dev, why);
	forget_all(v);
}

/* ---- to the guest ---- */

/* An rx chain in v->chain with room for a header and payload; false: none now. */
static bool rx_pop(struct vsock *v)
{
	int got = vq_pop(&v->dev.vq[VSOCK_Q_RX], &v->chain);

	if (got > 0 && v->chain.in_len > VSOCK_HDR_SIZE)
		return true;
	if (got)
		broken(v, got < 0 ? "malformed descriptor chain"
				  : "receive buffer without room for a packet");
	return false;
}

/* Use the popped chain: header @h and what is already behind it. */
static void rx_push(struct vsock *v, const struct vsock_hdr *h)
{
	uint8_t raw[VSOCK_HDR_SIZE];

	vsock_hdr_encode(raw, h);
	vq_chain_write(&v->chain, 0, raw, sizeof(raw));
	vq_push(&v->dev.vq[VSOCK_Q_RX], v->chain.head, VSOCK_HDR_SIZE + h->len);
}

static void rx_reply(struct vsock *v)
{
	const struct vsock_reply *r = &v->reply[v->reply_first];
	struct vsock_hdr h = {
		.src_cid = r->src_cid,
		.dst_cid = v->cid,
		.src_port = r->src_port,
		.dst_port = r->dst_port,
		.type = r->type,
		.op = VSOCK_OP_RST,
	};

	v->reply_first = (v->reply_first + 1) % VSOCK_REPLIES;
	v->nreplies--;
	rx_push(v, &h);
	if (v->tx_waits) {
		v->tx_waits = false;
		virtio_kick_later(&v->dev, VSOCK_Q_TX);
	}
}

static void rx_packet(struct vsock *v, struct vsock_hdr *h)
{
	h->src_cid = VSOCK_CID_HOST;
	h->dst_cid = v->cid;
	h->type = VSOCK_TYPE_STREAM;
	rx_push(v, h);
}

static void rx_control(struct vsock *v, struct vsock_stream *s)
{
	struct vsock_hdr h;
	bool any = vsock_conn_next(&s->conn, &h);

	assert(any); /* it was on the list */
	(void)any;
	rx_packet(v, &h);
	vsock_stream_update(s);
}

static void rx_data(struct vsock *v, struct vsock_stream *s)
{
	uint32_t len = MIN(s->stage_len - s->stage_off, vsock_conn_room(&s->conn));
	struct vsock_hdr h;

	len = (uint32_t)MIN(len, v->chain.in_len - VSOCK_HDR_SIZE);
	vq_chain_write(&v->chain, VSOCK_HDR_SIZE, s->stage + s->stage_off, len);
	vsock_conn_data(&s->conn, len, &h);
	rx_packet(v, &h);
	vsock_stream_rotate(s);
	vsock_stream_sent(s, len);
	vsock_stream_update(s);
}

static bool rx_waiting(const struct vsock *v)
{
	return v->nreplies || !TAILQ_EMPTY(&v->control) || !TAILQ_EMPTY(&v->turn_send);
}

static void rx_run(struct vsock *v)
{
	unsigned budget = RX_BUDGET;

	for (; budget && rx_waiting(v) && rx_pop(v); budget--) {
		if (v->nreplies)
			rx_reply(v);
		else if (!TAILQ_EMPTY(&v->control))
			rx_control(v, TAILQ_FIRST(&v->control));
		else
			rx_data(v, TAILQ_FIRST(&v->turn_send));
	}
	virtio_notify(&v->dev, VSOCK_Q_RX);
	if (!budget)
		loop_defer(v->dev.loop, &v->pump);
}

static void pump(struct loop_task *t)
{
	struct vsock *v = container_of(t, struct vsock, pump);

	vsock_stream_todo(v);
	if (virtio_running(&v->dev))
		rx_run(v);
	while (v->nstages < VSOCK_STAGES_MAX && !TAILQ_EMPTY(&v->turn_read))
		vsock_stream_read(TAILQ_FIRST(&v->turn_read));
	vsock_stream_todo(v);
}

/* ---- from the guest ---- */

/* RST to a packet that belongs to no connection, from the address it was for. */
static void reply_rst(struct vsock *v, const struct vsock_hdr *h)
{
	struct vsock_reply *r = &v->reply[(v->reply_first + v->nreplies) % VSOCK_REPLIES];

	if (h->op == VSOCK_OP_RST)
		return;
	assert(v->nreplies < VSOCK_REPLIES); /* else tx isn't popped */
	*r = (struct vsock_reply){
		.src_cid = h->dst_cid,
		.src_port = h->dst_port,
		.dst_port = h->src_port,
		.type = h->type,
	};
	v->nreplies++;
	loop_defer(v->dev.loop, &v->pump);
}

static uint32_t window_take(struct vsock *v, struct vsock_stream *s)
{
	s->large = v->nlarge < VSOCK_WINDOWS_LARGE;
	v->nlarge += s->large;
	return s->large ? VSOCK_WINDOW : VSOCK_WINDOW_SMALL;
}

/* 5.10.6.5: a listening socket answers with RESPONSE; none, with RST. */
static void request(struct vsock *v, const struct vsock_hdr *h)
{
	struct vsock_stream *s;

	TAILQ_FOREACH (s, &v->all, all) {
		if (s->conn.state == VSOCK_LISTEN && s->conn.host_port == h->dst_port)
			break;
	}
	if (!s) {
		reply_rst(v, h);
		return;
	}
	vsock_conn_accept(&s->conn, h, window_take(v, s));
	vsock_table_add(&v->table, &s->conn);
	vsock_stream_update(s);
}

static void receive(struct vsock *v, const struct vsock_hdr *h)
{
	bool whole = h->len <= v->chain.out_len - VSOCK_HDR_SIZE;
	struct vsock_conn *c;

	if (h->src_cid !=
		v->cid) /* 5.10.6.4.1: not the guest's address; there is nobody to answer */
		return;
	if (h->dst_cid != VSOCK_CID_HOST || h->type != VSOCK_TYPE_STREAM) { /* 5.10.6.4.2 */
		reply_rst(v, h);
		return;
	}
	c = vsock_table_find(&v->table, h->dst_port, h->src_port);
	if (!c && h->op == VSOCK_OP_REQUEST && whole) {
		request(v, h);
		return;
	}
	if (!c) {
		reply_rst(v, h);
		return;
	}
	if (!whole && h->op != VSOCK_OP_RST)
		vsock_conn_abort(c);
	else if (vsock_conn_receive(c, h))
		vsock_stream_store(to_stream(c), &v->chain, h->len);
	vsock_stream_update(to_stream(c));
}

static bool tx_pop(struct vsock *v)
{
	int got;

	v->tx_waits = v->nreplies == VSOCK_REPLIES;
	if (v->tx_waits)
		return false;
	got = vq_pop(&v->dev.vq[VSOCK_Q_TX], &v->chain);
	if (got > 0 && v->chain.out_len >= VSOCK_HDR_SIZE)
		return true;
	if (got)
		broken(v, got < 0 ? "malformed descriptor chain" : "packet without a header");
	return false;
}

static void tx_run(struct vsock *v)
{
	unsigned budget = VIRTIO_KICK_BUDGET;

	for (; budget && tx_pop(v); budget--) {
		uint8_t raw[VSOCK_HDR_SIZE];
		struct vsock_hdr h;

		vq_chain_read(&v->chain, 0, raw, sizeof(raw));
		vsock_hdr_decode(&h, raw);
		receive(v, &h);
		vq_push(&v->dev.vq[VSOCK_Q_TX], v->chain.head, 0);
	}
	virtio_notify(&v->dev, VSOCK_Q_TX);
	if (!budget)
		virtio_kick_later(&v->dev, VSOCK_Q_TX);
}

/* ---- events ---- */

/* Event buffers stay in their queue until there is an event. */
static void event_run(struct vsock *v)
{
	const uint32_t id = htole32(VSOCK_EVENT_TRANSPORT_RESET);
	struct vq_chain *c = &v->chain;
	int got;

	if (!v->event_pending)
		return;
	got = vq_pop(&v->dev.vq[VSOCK_Q_EVENT], c);
	if (got < 0 || (got && c->in_len < sizeof(id))) {
		broken(v, got < 0 ? "malformed descriptor chain" : "event buffer too small");
		return;
	}
	if (!got)
		return;
	v->event_pending = false;
	vq_chain_write(c, 0, &id, sizeof(id));
	vq_push(&v->dev.vq[VSOCK_Q_EVENT], c->head, sizeof(id));
	virtio_notify(&v->dev, VSOCK_Q_EVENT);
}

void dev_vsock_transport_reset(struct virtio_dev *d)
{
	struct vsock *v = to_vsock(d);

	forget_all(v);
	if (!virtio_running(d))
		return; /* the driver starts without connections anyhow */
	v->event_pending = true;
	virtio_kick_later(d, VSOCK_Q_EVENT);
}

/* ---- the device ---- */

static void vsock_kick(struct virtio_dev *d, unsigned q)
{
	struct vsock *v = to_vsock(d);

	if (q == VSOCK_Q_TX)
		tx_run(v);
	else if (q == VSOCK_Q_EVENT)
		event_run(v);
	else if (rx_waiting(v))
		loop_defer(d->loop, &v->pump);
}

static void vsock_reset(struct virtio_dev *d)
{
	struct vsock *v = to_vsock(d);

	forget_all(v);
	v->event_pending = false;
}

static void vsock_stop(struct virtio_dev *d)
{
	struct vsock *v = to_vsock(d);
	struct vsock_stream *s;

	v->stopping = true;
	TAILQ_FOREACH (s, &v->all, all) {
		vsock_conn_forget(&s->conn);
		vsock_stream_update(s);
	}
}

static bool vsock_busy(const struct virtio_dev *d)
{
	return container_of((struct virtio_dev *)(uintptr_t)d, struct vsock, dev)->nstreams;
}

static void vsock_destroy(struct virtio_dev *d)
{
	struct vsock *v = to_vsock(d);

	loop_undefer(d->loop, &v->pump);
	while (v->nstage_free)
		free(v->stage_free[--v->nstage_free]);
	free(v);
}

static const struct virtio_class vsock_class = {
	.name = "vsock",
	.id = 19,
	.nqueues = VSOCK_Q_COUNT,
	.queue_size = VSOCK_QUEUE_SIZE,
	.kick = vsock_kick,
	.reset = vsock_reset,
	.stop = vsock_stop,
	.busy = vsock_busy,
	.destroy = vsock_destroy,
};

int dev_vsock_create(struct virtio_dev **ret, struct loop *loop, struct gmem *mem,
	uint64_t guest_cid, struct error *e)
{
	struct vsock *v;

	if (guest_cid < VSOCK_CID_FIRST || guest_cid >= VSOCK_CID_RESERVED)
		return error_set(e, EINVAL,
			"vsock: guest CID %llu is reserved; use 3 to 4294967294",
			(unsigned long long)guest_cid);
	v = calloc(1, sizeof(*v));
	if (!v)
		return error_set(e, ENOMEM, "vsock: out of memory");
	v->cid = guest_cid;
	v->config_cid = htole64(guest_cid);
	v->next_port = HOST_PORT_FIRST;
	v->pump.run = pump;
	TAILQ_INIT(&v->all);
	TAILQ_INIT(&v->control);
	TAILQ_INIT(&v->turn_read);
	TAILQ_INIT(&v->turn_send);
	TAILQ_INIT(&v->todo);
	v->dev.class = &vsock_class;
	v->dev.tag = "vsock";
	v->dev.loop = loop;
	v->dev.mem = mem;
	v->dev.offered = 1 << F_STREAM;
	v->dev.config = &v->config_cid;
	v->dev.config_len = sizeof(v->config_cid);
	virtio_init(&v->dev);
	*ret = &v->dev;
	return 0;
}

/* A port of the host that makes a new pair with @guest_port: there are more ports than connections. */
static uint32_t host_port(struct vsock *v, uint32_t guest_port)
{
	uint32_t port;

	do {
		port = v->next_port;
		v->next_port = port == HOST_PORT_LAST ? HOST_PORT_FIRST : port + 1;
	} while (vsock_table_find(&v->table, port, guest_port));
	return port;
}

int dev_vsock_host_connect(struct virtio_dev *d, uint32_t port, int fd)
{
	struct vsock *v = to_vsock(d);
	struct vsock_stream *s;
	int r = vsock_stream_create(&s, v, fd);

	if (r)
		return r;
	vsock_conn_connect(&s->conn, host_port(v, port), port, window_take(v, s));
	vsock_table_add(&v->table, &s->conn);
	vsock_stream_update(s);
	return 0;
}

int dev_vsock_host_accept(struct virtio_dev *d, uint32_t port, int fd)
{
	struct vsock_stream *s;
	int r = vsock_stream_create(&s, to_vsock(d), fd);

	if (r)
		return r;
	vsock_conn_listen(&s->conn, port);
	vsock_stream_update(s);
	return 0;
}

void dev_vsock_stats(const struct virtio_dev *d, struct dev_vsock_stats *ret)
{
	const struct vsock *v = container_of((struct virtio_dev *)(uintptr_t)d, struct vsock, dev);

	ret->streams = v->nstreams;
	ret->buffer_bytes = v->buffer_bytes;
}

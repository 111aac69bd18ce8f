#include "vmm/vsock_conn.h"

#include <assert.h>

#include "base/log.h"

#define BIT(n) (1u << (n))

static const char *const state_names[VSOCK_NSTATES] = {
	[VSOCK_LISTEN] = "listen",
	[VSOCK_CONNECT] = "connect",
	[VSOCK_OPEN] = "open",
	[VSOCK_CLOSING] = "closing",
	[VSOCK_ENDING] = "ending",
	[VSOCK_DONE] = "done",
};

static const uint8_t state_next[VSOCK_NSTATES] = {
	[VSOCK_LISTEN] = BIT(VSOCK_OPEN) | BIT(VSOCK_DONE),
	[VSOCK_CONNECT] = BIT(VSOCK_OPEN) | BIT(VSOCK_ENDING) | BIT(VSOCK_DONE),
	[VSOCK_OPEN] = BIT(VSOCK_CLOSING) | BIT(VSOCK_ENDING) | BIT(VSOCK_DONE),
	[VSOCK_CLOSING] = BIT(VSOCK_ENDING) | BIT(VSOCK_DONE),
	[VSOCK_ENDING] = BIT(VSOCK_DONE),
};

const char *vsock_state_name(enum vsock_state s)
{
	return s < VSOCK_NSTATES ? state_names[s] : "?";
}

static void state_set(struct vsock_conn *c, enum vsock_state next)
{
	assert(state_next[c->state] & BIT(next));
	log_debug("vsock %u:%u: %s -> %s", c->host_port, c->guest_port, state_names[c->state],
		state_names[next]);
	c->state = next;
}

static void ask(struct vsock_conn *c, enum vsock_op op)
{
	c->pending = (uint16_t)(c->pending | BIT(op));
}

static bool asked(const struct vsock_conn *c, enum vsock_op op)
{
	return c->pending & BIT(op);
}

/* ---- begin ---- */

void vsock_conn_listen(struct vsock_conn *c, uint32_t host_port)
{
	*c = (struct vsock_conn){ .state = VSOCK_LISTEN, .host_port = host_port };
}

void vsock_conn_connect(
	struct vsock_conn *c, uint32_t host_port, uint32_t guest_port, uint32_t window)
{
	*c = (struct vsock_conn){
		.state = VSOCK_CONNECT,
		.host_port = host_port,
		.guest_port = guest_port,
		.window = window,
	};
	ask(c, VSOCK_OP_REQUEST);
}

static void credit_take(struct vsock_conn *c, const struct vsock_hdr *h)
{
	c->peer_buf_alloc = h->buf_alloc;
	c->peer_fwd_cnt = h->fwd_cnt;
}

void vsock_conn_accept(struct vsock_conn *c, const struct vsock_hdr *h, uint32_t window)
{
	c->guest_port = h->src_port;
	c->window = window;
	credit_take(c, h);
	state_set(c, VSOCK_OPEN);
	ask(c, VSOCK_OP_RESPONSE);
}

/* ---- end ---- */

/* ENDING is over when RST is sent, or needn't be, and the host has all bytes. */
static void ending_settle(struct vsock_conn *c)
{
	if (c->state == VSOCK_ENDING && !c->pending && c->rx_cnt == c->fwd_cnt)
		state_set(c, VSOCK_DONE);
}

static void end(struct vsock_conn *c, bool rst)
{
	c->pending = rst ? BIT(VSOCK_OP_RST) : 0;
	if (c->state != VSOCK_ENDING)
		state_set(c, VSOCK_ENDING);
	ending_settle(c);
}

void vsock_conn_abort(struct vsock_conn *c)
{
	/* ENDING has sent its RST or needs none, or it is among the pending. */
	bool rst = c->state == VSOCK_ENDING ? asked(c, VSOCK_OP_RST) : !asked(c, VSOCK_OP_REQUEST);

	c->fwd_cnt = c->rx_cnt;
	if (c->state == VSOCK_LISTEN)
		state_set(c, VSOCK_DONE);
	else if (c->state != VSOCK_DONE)
		end(c, rst);
}

void vsock_conn_forget(struct vsock_conn *c)
{
	c->pending = 0;
	c->fwd_cnt = c->rx_cnt;
	if (c->state != VSOCK_DONE)
		state_set(c, VSOCK_DONE);
}

/* Once neither direction can carry anything more, tell the guest and wait for its RST. */
static void open_settle(struct vsock_conn *c)
{
	bool to_guest =
		!(c->guest_shut & VSOCK_SHUTDOWN_RCV) && !(c->host_shut & VSOCK_SHUTDOWN_SEND);
	bool to_host = !(c->host_shut & VSOCK_SHUTDOWN_RCV) &&
		       (!(c->guest_shut & VSOCK_SHUTDOWN_SEND) || c->rx_cnt != c->fwd_cnt);

	if (c->state != VSOCK_OPEN || to_guest || to_host)
		return;
	c->host_shut = VSOCK_SHUTDOWN_BOTH;
	ask(c, VSOCK_OP_SHUTDOWN);
	state_set(c, VSOCK_CLOSING);
}

void vsock_conn_host_shut(struct vsock_conn *c, uint8_t flags)
{
	if (flags & VSOCK_SHUTDOWN_RCV)
		c->fwd_cnt = c->rx_cnt;
	ending_settle(c);
	if (c->state != VSOCK_OPEN || (c->host_shut | flags) == c->host_shut)
		return;
	c->host_shut |= flags;
	ask(c, VSOCK_OP_SHUTDOWN);
	open_settle(c);
}

void vsock_conn_timeout(struct vsock_conn *c)
{
	if (c->state == VSOCK_CONNECT || c->state == VSOCK_CLOSING)
		vsock_conn_abort(c);
	else if (c->state == VSOCK_OPEN)
		ask(c, VSOCK_OP_CREDIT_REQUEST);
}

/* ---- from the guest ---- */

static bool receive_data(struct vsock_conn *c, const struct vsock_hdr *h)
{
	if ((c->guest_shut & VSOCK_SHUTDOWN_SEND) || h->len > c->window - vsock_conn_buffered(c)) {
		vsock_conn_abort(c); /* 5.10.6.3: more than we have room for */
		return false;
	}
	c->rx_cnt += h->len;
	if (c->host_shut & VSOCK_SHUTDOWN_RCV) {
		c->fwd_cnt = c->rx_cnt; /* sent before the guest heard that nobody reads */
		return false;
	}
	return h->len;
}

/* 5.10.6.5: hints are permanent. Both together ask for RST. */
static void receive_shutdown(struct vsock_conn *c, const struct vsock_hdr *h)
{
	c->guest_shut |= (uint8_t)(h->flags & VSOCK_SHUTDOWN_BOTH);
	if (c->guest_shut == VSOCK_SHUTDOWN_BOTH)
		end(c, true);
	else
		open_settle(c);
}

static bool receive_open(struct vsock_conn *c, const struct vsock_hdr *h)
{
	credit_take(c, h);
	switch (h->op) {
	case VSOCK_OP_RW:
		return receive_data(c, h);
	case VSOCK_OP_CREDIT_UPDATE:
		break;
	case VSOCK_OP_CREDIT_REQUEST:
		ask(c, VSOCK_OP_CREDIT_UPDATE);
		break;
	case VSOCK_OP_SHUTDOWN:
		receive_shutdown(c, h);
		break;
	case VSOCK_OP_RST:
		end(c, false);
		break;
	default:
		vsock_conn_abort(c);
	}
	return false;
}

bool vsock_conn_receive(struct vsock_conn *c, const struct vsock_hdr *h)
{
	switch (c->state) {
	case VSOCK_CONNECT:
		if (h->op == VSOCK_OP_RESPONSE && !asked(c, VSOCK_OP_REQUEST)) {
			credit_take(c, h);
			state_set(c, VSOCK_OPEN);
		} else if (h->op == VSOCK_OP_RST) {
			end(c, false);
		} else {
			end(c, true);
		}
		return false;
	case VSOCK_OPEN:
		return receive_open(c, h);
	case VSOCK_CLOSING:
		if (h->op ==
			VSOCK_OP_SHUTDOWN) /* the two crossed: the guest waits for RST as well */
			receive_shutdown(c, h);
		else if (h->op == VSOCK_OP_RST)
			end(c, false);
		return false;
	case VSOCK_ENDING: /* RST is on its way; what the guest sent before it sees that is void */
		if (h->op == VSOCK_OP_RST)
			end(c, false);
		return false;
	default:
		return false;
	}
}

/* ---- to the guest ---- */

static void header(struct vsock_conn *c, enum vsock_op op, uint32_t len, struct vsock_hdr *ret)
{
	*ret = (struct vsock_hdr){
		.src_port = c->host_port,
		.dst_port = c->guest_port,
		.len = len,
		.op = (uint16_t)op,
		.flags = op == VSOCK_OP_SHUTDOWN ? c->host_shut : 0,
		.buf_alloc = c->window,
		.fwd_cnt = c->fwd_cnt,
	};
	c->fwd_told = c->fwd_cnt;
}

bool vsock_conn_next(struct vsock_conn *c, struct vsock_hdr *ret)
{
	/* RESPONSE before all else; RST is alone. */
	static const enum vsock_op order[] = {
		VSOCK_OP_RST,
		VSOCK_OP_REQUEST,
		VSOCK_OP_RESPONSE,
		VSOCK_OP_CREDIT_UPDATE,
		VSOCK_OP_CREDIT_REQUEST,
		VSOCK_OP_SHUTDOWN,
	};

	for (size_t i = 0; i < ARRAY_SIZE(order); i++) {
		if (!asked(c, order[i]))
			continue;
		c->pending = (uint16_t)(c->pending & ~BIT(order[i]));
		header(c, order[i], 0, ret);
		ending_settle(c);
		return true;
	}
	return false;
}

uint32_t vsock_conn_room(const struct vsock_conn *c)
{
	uint32_t under_way = c->tx_cnt - c->peer_fwd_cnt;

	if (!vsock_conn_reads_host(c) || asked(c, VSOCK_OP_RESPONSE))
		return 0;
	return under_way < c->peer_buf_alloc ? c->peer_buf_alloc - under_way : 0;
}

void vsock_conn_data(struct vsock_conn *c, uint32_t len, struct vsock_hdr *ret)
{
	assert(len <= vsock_conn_room(c));
	header(c, VSOCK_OP_RW, len, ret);
	c->tx_cnt += len;
}

uint32_t vsock_conn_buffered(const struct vsock_conn *c)
{
	return c->rx_cnt - c->fwd_cnt;
}

void vsock_conn_forwarded(struct vsock_conn *c, uint32_t len)
{
	assert(len <= vsock_conn_buffered(c));
	c->fwd_cnt += len;
	if (c->state == VSOCK_OPEN && !(c->guest_shut & VSOCK_SHUTDOWN_SEND) &&
		c->fwd_cnt - c->fwd_told >= c->window / 2)
		ask(c, VSOCK_OP_CREDIT_UPDATE);
	ending_settle(c);
	open_settle(c);
}

/* ---- the table ---- */

static unsigned bucket(uint32_t host_port, uint32_t guest_port)
{
	uint64_t x = ((uint64_t)host_port << 32 | guest_port) * UINT64_C(0x9e3779b97f4a7c15);

	return (unsigned)(x >> 32) % VSOCK_BUCKETS;
}

void vsock_table_add(struct vsock_table *t, struct vsock_conn *c)
{
	unsigned b = bucket(c->host_port, c->guest_port);

	assert(!c->hashed);
	c->hash_next = t->bucket[b];
	t->bucket[b] = c;
	c->hashed = true;
}

void vsock_table_remove(struct vsock_table *t, struct vsock_conn *c)
{
	struct vsock_conn **p = &t->bucket[bucket(c->host_port, c->guest_port)];

	if (!c->hashed)
		return;
	while (*p != c)
		p = &(*p)->hash_next;
	*p = c->hash_next;
	c->hashed = false;
}

struct vsock_conn *vsock_table_find(
	const struct vsock_table *t, uint32_t host_port, uint32_t guest_port)
{
	struct vsock_conn *c = t->bucket[bucket(host_port, guest_port)];

	while (c && (c->host_port != host_port || c->guest_port != guest_port))
		c = c->hash_next;
	return c;
}

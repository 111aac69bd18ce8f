#include "tests/lib/vsguest.h"

#include <stdio.h>
#include <string.h>

#define CRUMBS 7 /* descriptors of a buffer in VSGUEST_CRUMBS, which cut the header too */

static void die(const char *why)
{
	fprintf(stderr, "vsguest: %s\n", why);
	abort();
}

static void post(struct vsguest *g, uint64_t gpa)
{
	struct vdbuf b[CRUMBS];
	unsigned n = 0;

	switch (g->layout) {
	case VSGUEST_SPLIT:
		b[n++] = (struct vdbuf){ gpa, VSOCK_HDR_SIZE };
		b[n++] = (struct vdbuf){ gpa + VSOCK_HDR_SIZE, g->rx_size };
		break;
	case VSGUEST_WHOLE:
		b[n++] = (struct vdbuf){ gpa, VSOCK_HDR_SIZE + g->rx_size };
		break;
	case VSGUEST_CRUMBS:
		for (; n < CRUMBS - 1; n++)
			b[n] = (struct vdbuf){ gpa + 10 * n, 10 };
		b[n] = (struct vdbuf){ gpa + 10 * n, VSOCK_HDR_SIZE + g->rx_size - 10 * n };
		n++;
		break;
	}
	g->rx_gpa[vdriver_add(&g->v, VSGUEST_RX, b, 0, n)] = gpa;
	g->rx_posted++;
}

void vsguest_post(struct vsguest *g, unsigned n)
{
	for (; n && g->nrx_spare; n--)
		post(g, g->rx_spare[--g->nrx_spare]);
	vdriver_kick(&g->v, VSGUEST_RX);
}

void vsguest_start(struct vsguest *g, struct virtio_dev *dev, uint64_t features,
	enum vsguest_layout layout, unsigned nrx, uint32_t rx_size)
{
	g->dev = dev;
	g->layout = layout;
	g->rx_size = rx_size;
	vdriver_init(&g->v, dev);
	if (vdriver_start(&g->v, features))
		die("the device doesn't start");
	for (unsigned i = 0; i < nrx; i++)
		g->rx_spare[g->nrx_spare++] = vdriver_alloc(&g->v, VSOCK_HDR_SIZE + rx_size, 1);
	for (unsigned i = 0; i < VSGUEST_TX_MAX; i++)
		g->tx_gpa[i] = vdriver_alloc(&g->v, VSOCK_HDR_SIZE + 64 * KIB, 1);
	vsguest_post(g, nrx);
}

void vsguest_restart(struct vsguest *g)
{
	unsigned nrx = g->nrx_spare + g->rx_posted;
	uint64_t features = g->dev->features;

	g->nrx_spare = g->rx_posted = 0;
	memset(g->tx_busy, 0, sizeof(g->tx_busy));
	vsguest_start(g, g->dev, features, g->layout, nrx, g->rx_size);
}

struct vsock_hdr vsguest_hdr(enum vsock_op op, uint32_t guest_port, uint32_t host_port)
{
	return (struct vsock_hdr){
		.src_cid = VSGUEST_CID,
		.dst_cid = VSOCK_CID_HOST,
		.src_port = guest_port,
		.dst_port = host_port,
		.type = VSOCK_TYPE_STREAM,
		.op = (uint16_t)op,
		.buf_alloc = 256 * KIB,
	};
}

static void tx_reclaim(struct vsguest *g)
{
	uint16_t head;

	while (vdriver_used(&g->v, VSGUEST_TX, &head, NULL)) {
		for (unsigned i = 0; i < VSGUEST_TX_MAX; i++) {
			if (g->tx_busy[i] && g->tx_head[i] == head)
				g->tx_busy[i] = false;
		}
	}
}

static int tx_free(struct vsguest *g)
{
	tx_reclaim(g);
	for (unsigned i = 0; i < VSGUEST_TX_MAX; i++) {
		if (!g->tx_busy[i])
			return (int)i;
	}
	return -1;
}

bool vsguest_can_send(struct vsguest *g)
{
	return tx_free(g) >= 0;
}

void vsguest_send(struct vsguest *g, const struct vsock_hdr *h, const void *payload, uint32_t len)
{
	int i = tx_free(g);
	uint8_t *p;

	if (i < 0)
		die("all tx buffers are with the device");
	p = vdriver_ptr(&g->v, g->tx_gpa[i], VSOCK_HDR_SIZE + len);
	vsock_hdr_encode(p, h);
	if (len)
		memcpy(p + VSOCK_HDR_SIZE, payload, len);
	g->tx_busy[i] = true;
	g->tx_head[i] = vdriver_add(&g->v, VSGUEST_TX,
		(struct vdbuf[]){
			{ g->tx_gpa[i], VSOCK_HDR_SIZE }, { g->tx_gpa[i] + VSOCK_HDR_SIZE, len } },
		len ? 2 : 1, 0);
	vdriver_kick(&g->v, VSGUEST_TX);
}

void vsguest_op(struct vsguest *g, enum vsock_op op, uint32_t guest_port, uint32_t host_port)
{
	struct vsock_hdr h = vsguest_hdr(op, guest_port, host_port);

	vsguest_send(g, &h, NULL, 0);
}

bool vsguest_poll(struct vsguest *g, struct vsock_hdr *ret)
{
	uint16_t head;
	uint32_t len;
	uint8_t *p;

	if (!vdriver_used(&g->v, VSGUEST_RX, &head, &len))
		return false;
	if (len < VSOCK_HDR_SIZE || len > VSOCK_HDR_SIZE + g->rx_size)
		die("the device wrote an impossible length");
	p = vdriver_ptr(&g->v, g->rx_gpa[head], len);
	vsock_hdr_decode(ret, p);
	g->payload_len = len - VSOCK_HDR_SIZE;
	memcpy(g->payload, p + VSOCK_HDR_SIZE, g->payload_len);
	if (ret->len != g->payload_len)
		die("used length and header disagree");
	g->rx_posted--;
	g->rx_spare[g->nrx_spare++] = g->rx_gpa[head];
	if (!g->rx_hold)
		vsguest_post(g, 1);
	return true;
}

struct recv {
	struct vsguest *g;
	struct vsock_hdr *ret;
};

static bool recv_ready(void *ctx)
{
	struct recv *r = ctx;

	return vsguest_poll(r->g, r->ret);
}

bool vsguest_recv(struct vsguest *g, struct vsock_hdr *ret)
{
	struct recv r = { g, ret };

	return vdriver_run_until(g->dev->loop, recv_ready, &r, 5000);
}

bool vsguest_quiet(struct vsguest *g, unsigned ms)
{
	struct vsock_hdr h;
	struct recv r = { g, &h };

	return !vdriver_run_until(g->dev->loop, recv_ready, &r, ms);
}

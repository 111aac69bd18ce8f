/*
 * tests/lib/vsguest.h - the guest's side of a vsock device, for tests: packets in and out, no connections
 *
 * What:    rx buffers are posted and taken back; packets go out as a test says, right or wrong.
 * Buffers: two descriptors each, header and payload (Linux before 6.3), or one (after), or many.
 */
#pragma once

#include "tests/lib/vdriver.h"
#include "vmm/dev_vsock.h"
#include "vmm/vsock_pkt.h"

#define VSGUEST_CID    77
#define VSGUEST_RX_MAX VSOCK_QUEUE_SIZE
#define VSGUEST_TX_MAX 64

enum { VSGUEST_RX, VSGUEST_TX, VSGUEST_EVENT };

enum vsguest_layout { VSGUEST_SPLIT, VSGUEST_WHOLE, VSGUEST_CRUMBS };

struct vsguest {
	struct vdriver v;
	struct virtio_dev *dev;
	enum vsguest_layout layout;
	uint32_t rx_size; /* payload a buffer takes */
	unsigned rx_posted;
	uint64_t rx_gpa[VSGUEST_RX_MAX]; /* by head */
	uint64_t rx_spare[VSGUEST_RX_MAX];
	unsigned nrx_spare;
	bool rx_hold; /* buffers taken back aren't posted again until vsguest_post() */
	uint64_t tx_gpa[VSGUEST_TX_MAX];
	uint16_t tx_head[VSGUEST_TX_MAX];
	bool tx_busy[VSGUEST_TX_MAX];
	uint32_t payload_len;
	uint8_t payload[64 * 1024];
};

/* vsguest_start() - Attach to @dev (first use: zeroed @g), start it, post @nrx buffers for @rx_size bytes each. */
void vsguest_start(struct vsguest *g, struct virtio_dev *dev, uint64_t features,
	enum vsguest_layout layout, unsigned nrx, uint32_t rx_size);
/* vsguest_restart() - The driver resets the device and begins anew with as many buffers. */
void vsguest_restart(struct vsguest *g);
/* vsguest_post() - Post spare rx buffers, all or as many as @n. */
void vsguest_post(struct vsguest *g, unsigned n);

/* vsguest_hdr() - A header with the right addresses and 256 KiB of credit. */
struct vsock_hdr vsguest_hdr(enum vsock_op op, uint32_t guest_port, uint32_t host_port);

/* vsguest_can_send() - False: all tx buffers are with the device. */
bool vsguest_can_send(struct vsguest *g);
/* vsguest_send() - Queue a packet and kick; @len bytes of payload whatever @h->len says. Aborts if there is no room. */
void vsguest_send(struct vsguest *g, const struct vsock_hdr *h, const void *payload, uint32_t len);
/* vsguest_op() - A packet without payload. */
void vsguest_op(struct vsguest *g, enum vsock_op op, uint32_t guest_port, uint32_t host_port);

/* vsguest_poll() - Take the next packet if there is one; its payload is in g->payload until the next call. */
bool vsguest_poll(struct vsguest *g, struct vsock_hdr *ret);
/* vsguest_recv() - The same, running the loop for up to 5 s. */
bool vsguest_recv(struct vsguest *g, struct vsock_hdr *ret);
/* vsguest_quiet() - Run the loop for @ms; true if no packet came. */
bool vsguest_quiet(struct vsguest *g, unsigned ms);

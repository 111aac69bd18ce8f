/*
 * vmm/vsock_conn.h - one stream connection between host and guest: state and credit, without I/O
 *
 * What:    packets of the guest go in by vsock_conn_receive(), news of the host's end by vsock_conn_host_*();
 *          out come the control packets to send (vsock_conn_next()) and what may flow.
 * States:
 *   LISTEN   a host end waits for the guest to connect to host_port. Not in the table: it has no guest_port.
 *   CONNECT  the host connects: REQUEST is to be sent or was; the guest may answer RESPONSE or RST.
 *   OPEN     data flows, each direction until one end closes it: guest_shut is what the guest said in SHUTDOWN,
 *            host_shut what the host's end did.
 *   CLOSING  both directions are over and SHUTDOWN(both) says so; waits for the guest's RST (5.10.6.5: until
 *            then neither side may use the pair of ports again). The host's end isn't needed any more.
 *   ENDING   the guest is done with it, or we are with the guest: RST may still have to be sent; bytes that the
 *            guest sent before still go to the host. Nothing more is read from the host.
 *   DONE     nothing left to do.
 * Trust:   every header is the guest's. What it may not do in a state ends the connection with RST; nothing here
 *          asserts or grows because of it.
 * Spec:    VIRTIO 1.2, 5.10.6.3 (credit), 5.10.6.5 (stream sockets)
 */
#pragma once

#include "vmm/vsock_pkt.h"

enum vsock_state {
	VSOCK_LISTEN,
	VSOCK_CONNECT,
	VSOCK_OPEN,
	VSOCK_CLOSING,
	VSOCK_ENDING,
	VSOCK_DONE,
	VSOCK_NSTATES
};

struct vsock_conn {
	enum vsock_state state;
	uint32_t host_port, guest_port;

	/* Guest to host. All counters are modulo 2^32. */
	uint32_t window;   /* our buf_alloc, bytes */
	uint32_t rx_cnt;   /* payload received */
	uint32_t fwd_cnt;  /* of it passed on to the host, or dropped */
	uint32_t fwd_told; /* fwd_cnt in the last header sent */

	/* Host to guest. */
	uint32_t tx_cnt;
	uint32_t peer_buf_alloc, peer_fwd_cnt;

	uint16_t pending;              /* bit op: this control packet is to be sent */
	uint8_t guest_shut, host_shut; /* VSOCK_SHUTDOWN_* */

	struct vsock_conn *hash_next;
	bool hashed;
};

const char *vsock_state_name(enum vsock_state s);

void vsock_conn_listen(struct vsock_conn *c, uint32_t host_port);
void vsock_conn_connect(
	struct vsock_conn *c, uint32_t host_port, uint32_t guest_port, uint32_t window);
/* vsock_conn_accept() - LISTEN becomes OPEN by the guest's REQUEST @h; RESPONSE is pending. */
void vsock_conn_accept(struct vsock_conn *c, const struct vsock_hdr *h, uint32_t window);

/**
 * vsock_conn_receive() - A packet of the guest for this connection, which isn't LISTEN
 *
 * Return: true: @h->len bytes of payload (within the window, more than 0) are for the host: store them;
 * vsock_conn_forwarded() when they left.
 */
bool vsock_conn_receive(struct vsock_conn *c, const struct vsock_hdr *h) must_check;

/* vsock_conn_next() - The next control packet but for CIDs and type; false: none is pending. */
bool vsock_conn_next(struct vsock_conn *c, struct vsock_hdr *ret) must_check;

/* vsock_conn_room() - Bytes that may be sent to the guest now: its credit; 0 if this direction isn't open. */
uint32_t vsock_conn_room(const struct vsock_conn *c);
/* vsock_conn_data() - Header of a packet with @len <= vsock_conn_room() bytes, which count as sent. */
void vsock_conn_data(struct vsock_conn *c, uint32_t len, struct vsock_hdr *ret);

/* vsock_conn_buffered() - Bytes received and not yet passed on; <= window. */
uint32_t vsock_conn_buffered(const struct vsock_conn *c);
/* vsock_conn_forwarded() - @len <= vsock_conn_buffered() bytes went to the host. */
void vsock_conn_forwarded(struct vsock_conn *c, uint32_t len);

/* vsock_conn_reads_host() - True while what the host sends is for the guest. */
static inline bool vsock_conn_reads_host(const struct vsock_conn *c)
{
	return c->state == VSOCK_OPEN && !(c->guest_shut & VSOCK_SHUTDOWN_RCV) &&
	       !(c->host_shut & VSOCK_SHUTDOWN_SEND);
}

/* vsock_conn_needs_host() - False once the host's end may be closed. */
static inline bool vsock_conn_needs_host(const struct vsock_conn *c)
{
	return c->state <= VSOCK_OPEN || (c->state == VSOCK_ENDING && c->rx_cnt != c->fwd_cnt);
}

/* vsock_conn_known() - True while packets of the guest with these ports belong to this connection. */
static inline bool vsock_conn_known(const struct vsock_conn *c)
{
	return (c->state >= VSOCK_CONNECT && c->state <= VSOCK_CLOSING) ||
	       (c->state == VSOCK_ENDING && c->pending);
}

/**
 * vsock_conn_host_shut() - The host's end sends no more (SEND), takes no more (RCV)
 *
 * With SEND all it sent before is in vsock_conn_data() packets already. With RCV what is buffered is dropped.
 */
void vsock_conn_host_shut(struct vsock_conn *c, uint8_t flags);
/* vsock_conn_abort() - Host error, no memory: RST if the guest knows of the connection; buffered bytes are dropped. */
void vsock_conn_abort(struct vsock_conn *c);
/* vsock_conn_forget() - The guest has lost all connections: DONE at once. */
void vsock_conn_forget(struct vsock_conn *c);

/* Time limits. Which one runs is for the caller to see by state; OPEN: data waits for credit. */
#define VSOCK_CONNECT_TIMEOUT_NS (5 * NSEC_PER_SEC)
#define VSOCK_CLOSE_TIMEOUT_NS   (2 * NSEC_PER_SEC)
#define VSOCK_CREDIT_ASK_NS      (200 * NSEC_PER_MSEC)
/* vsock_conn_timeout() - CONNECT and CLOSING end by RST; OPEN asks the guest for its credit (5.10.6.3). */
void vsock_conn_timeout(struct vsock_conn *c);

/* ---- the table: connections by their ports ---- */

#define VSOCK_BUCKETS 1024 /* a power of two */

struct vsock_table {
	struct vsock_conn *bucket[VSOCK_BUCKETS];
};

/* vsock_table_add() - The pair of ports must be new; @c stays where it is until removed. */
void vsock_table_add(struct vsock_table *t, struct vsock_conn *c);
void vsock_table_remove(struct vsock_table *t, struct vsock_conn *c);
struct vsock_conn *vsock_table_find(
	const struct vsock_table *t, uint32_t host_port, uint32_t guest_port);

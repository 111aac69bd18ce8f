/*
 * vmm/vsock_dev.h - what dev_vsock.c (queues) and vsock_stream.c (host ends) share
 */
#pragma once

#include <sys/queue.h>

#include "vmm/dev_vsock.h"
#include "vmm/vsock_conn.h"
#include "vmm/vsock_ring.h"

#define VSOCK_STAGE_SIZE (64 * KIB) /* read from a host end at once */
#define VSOCK_STAGES_MAX 16         /* host ends read ahead of the guest's rx buffers */
#define VSOCK_REPLIES    64         /* RSTs for nobody's packets that wait for rx buffers */

enum { VSOCK_Q_RX, VSOCK_Q_TX, VSOCK_Q_EVENT, VSOCK_Q_COUNT };

/* Where a stream waits to send data to the guest. */
enum vsock_turn {
	VSOCK_TURN_NONE,
	VSOCK_TURN_READ, /* the host end is readable and the guest gave credit: wants a stage */
	VSOCK_TURN_SEND, /* its stage holds data for which the guest gave credit: wants rx buffers */
};

/* A connection and its host end. */
struct vsock_stream {
	struct vsock_conn conn;
	struct vsock *dev;
	TAILQ_ENTRY(vsock_stream) all, control, turn, todo;
	bool on_control, on_todo;
	enum vsock_turn on_turn;

	int fd, slot; /* -1 once closed */
	struct loop_op poll, read, write;
	short poll_events; /* while poll is busy */
	bool poll_cancelled;
	bool poll_rests;              /* only half of the host end is closed: see POLL_REST_NS */
	bool releasing;               /* the host end is being closed: operations were cancelled */
	bool rcv_closed, send_closed; /* shutdown(2) done on fd */
	bool hung_up;                 /* the other end is closed, both ways */
	bool readable;                /* poll said so, not read since */

	struct vsock_ring ring; /* guest to host */
	bool large;             /* its window counts in large_windows */
	struct iovec write_iov[2];

	uint8_t *stage; /* host to guest: VSOCK_STAGE_SIZE bytes, or NULL */
	uint32_t stage_off, stage_len;
	bool stage_counted; /* in nstages: not while it waits for credit only */

	struct loop_timer timer;
	enum vsock_state timer_state; /* what the timer runs for */
	bool timer_spent;             /* it fired in this state, or for this lack of credit */
};

TAILQ_HEAD(vsock_list, vsock_stream);

struct vsock_reply {
	uint64_t src_cid;
	uint32_t src_port, dst_port;
	uint16_t type;
};

struct vsock {
	struct virtio_dev dev;
	uint64_t cid;
	uint64_t config_cid; /* little-endian */
	struct vsock_table table;
	struct vsock_list all;
	struct vsock_list control; /* control packets pending */
	struct vsock_list turn_read, turn_send;
	struct vsock_list todo; /* for vsock_stream_update() on the loop thread */
	struct loop_task pump;  /* moves all that can move, once a turn of the loop */
	unsigned nstreams, nlarge;
	uint32_t next_port;
	bool stopping;
	bool event_pending; /* TRANSPORT_RESET waits for an event buffer */

	struct vsock_reply reply[VSOCK_REPLIES]; /* a ring */
	unsigned reply_first, nreplies;
	bool tx_waits; /* tx isn't popped until a reply has left */

	unsigned nstages; /* in use, see stage_counted */
	uint8_t *stage_free[VSOCK_STAGES_MAX];
	unsigned nstage_free;
	size_t buffer_bytes;
	struct vq_chain chain;
};

/* vsock_stream_create() - Take over @fd (on success). Its state is set next, then vsock_stream_update(). */
int vsock_stream_create(struct vsock_stream **ret, struct vsock *v, int fd) must_check;

/**
 * vsock_stream_update() - After anything happened to @s->conn: do what follows from its state
 *
 * Lists, timer, descriptor and operations come to agree with the connection. May be called at any time on the
 * loop thread. When all is over @s joins the todo list, to be freed by vsock_stream_todo(), never here.
 */
void vsock_stream_update(struct vsock_stream *s);

/*
 * vsock_stream_detach() - The same as far as any thread may: the guest's side forgets @s, whose state is DONE.
 * The rest is done by vsock_stream_todo().
 */
void vsock_stream_detach(struct vsock_stream *s);

/* vsock_stream_todo() - Update or free all on the todo list. */
void vsock_stream_todo(struct vsock *v);

/* vsock_stream_store() - @len bytes of payload behind the header in @c are for the host end. */
void vsock_stream_store(struct vsock_stream *s, const struct vq_chain *c, uint32_t len);

/* vsock_stream_read() - Its turn to read. */
void vsock_stream_read(struct vsock_stream *s);

/* vsock_stream_rotate() - It had its turn: to the end of the list it is on. */
void vsock_stream_rotate(struct vsock_stream *s);

/* vsock_stream_sent() - @len bytes of its stage went to the guest. */
void vsock_stream_sent(struct vsock_stream *s, uint32_t len);

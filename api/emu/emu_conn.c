/*
 * api/emu/emu_conn.c - commands that connect to the daemon, and the ports they get
 *
 * What:    a command sends a request, waits for a port, is then relayed to it (relay.h). All sockets are served by
 *          the loop: each direction has one read and one write under way at most, with buffers of their own, so
 *          a slow side stops only its own session.
 * Trust:   commands run as the same user (checked with SO_PEERCRED); they may still send anything, or nothing.
 */
#include "api/emu/emu_daemon.h"

#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>

#define DISK_TAKEN                                                                                 \
	"waiting for the commands in another emulated host, which has the state folder's disk, to end"
#define ASK_MAX_NS   (5 * NSEC_PER_SEC)
#define RESET_MAX_NS (30 * NSEC_PER_SEC) /* L1 may be busy; a live agent answers at once */

static const uint8_t conn_next[CONN_STATES] = {
	[CONN_ASKING] = 1 << CONN_WAITING | 1 << CONN_ENDING | 1 << CONN_CLOSING,
	[CONN_WAITING] = 1 << CONN_BUSY | 1 << CONN_CLOSING,
	[CONN_BUSY] = 1 << CONN_CLOSING,
	[CONN_ENDING] = 1 << CONN_CLOSING,
	[CONN_CLOSING] = 0,
};

static void conn_set(struct conn *c, enum conn_state s)
{
	assert(conn_next[c->state] & 1 << s);
	c->state = s;
}

static void conn_read(struct conn *c);
static void port_pump(struct port *p);

static void new_nonce(uint8_t nonce[GP_RESET_NONCE])
{
	ssize_t n = getrandom(nonce, GP_RESET_NONCE, 0);

	/* getrandom(2): up to 256 bytes are never short */
	assert(n == GP_RESET_NONCE);
}

/* ---- the end of a connection ---- */

/* As a task of its own: whoever called conn_close() may still look at it. */
static void conn_reap(struct loop_task *t)
{
	struct conn *c = container_of(t, struct conn, reap);
	struct daemon *d = c->daemon;
	struct conn **p;

	if (c->read.busy || c->write.busy)
		return; /* their completion comes back here */
	for (p = &d->conns; *p != c; p = &(*p)->next)
		;
	*p = c->next;
	loop_remove_fd(d->loop, c->slot);
	close_fd(&c->fd);
	free(c);
}

/* Its port forgets it and is reset; everything the command started in L1 is killed by that. */
static void conn_leave_port(struct conn *c)
{
	uint8_t nonce[GP_RESET_NONCE];
	struct port *p = c->port;

	c->port = NULL;
	p->conn = NULL;
	c->daemon->nbusy--;
	if (p->relay.state != RELAY_BUSY)
		return;
	new_nonce(nonce);
	if (relay_detach(&p->relay, nonce)) {
		daemon_port_lost(c->daemon, p, "out of memory");
		return;
	}
	loop_timer_set(c->daemon->loop, &p->deadline, loop_now_ns() + RESET_MAX_NS);
	port_pump(p);
}

static void conn_close(struct conn *c)
{
	struct daemon *d = c->daemon;

	if (c->state == CONN_CLOSING)
		return;
	conn_set(c, CONN_CLOSING);
	loop_timer_clear(d->loop, &c->deadline);
	d->nconns--;
	if (c->port)
		conn_leave_port(c);
	/* What was sent before stays readable on the other side. */
	shutdown(c->fd, SHUT_RDWR);
	loop_cancel(d->loop, &c->read);
	loop_cancel(d->loop, &c->write);
	loop_defer(d->loop, &c->reap);
	daemon_conns_changed(d);
}

/* ---- messages, before frames flow ---- */

static void conn_say(struct conn *c, enum emu_msg type, const char *text)
{
	uint8_t msg[EMU_MSG_HEADER + EMU_TEXT_MAX] = { (uint8_t)type };
	size_t len = strnlen(text, EMU_TEXT_MAX);

	msg[4] = (uint8_t)len;
	msg[5] = (uint8_t)(len >> 8);
	memcpy(msg + EMU_MSG_HEADER, text, len);
	/* The socket's buffer holds many of these; who lets it fill up gets nothing more. */
	if (send(c->fd, msg, EMU_MSG_HEADER + len, MSG_NOSIGNAL | MSG_DONTWAIT) !=
		(ssize_t)(EMU_MSG_HEADER + len))
		conn_close(c);
}

static void conn_fail(struct conn *c, const char *text)
{
	conn_say(c, EMU_MSG_FAIL, text);
	conn_close(c);
}

static void each_waiting(
	struct daemon *d, void (*fn)(struct conn *c, const char *text), const char *text)
{
	struct conn *c, *next;

	for (c = d->conns; c; c = next) {
		next = c->next;
		if (c->state == CONN_WAITING)
			fn(c, text);
	}
}

static void say_disk(struct conn *c, const char *text)
{
	conn_say(c, EMU_MSG_DISK, text);
}

void conns_tell_disk(struct daemon *d)
{
	each_waiting(d, say_disk, DISK_TAKEN);
}

void conns_fail(struct daemon *d, const char *text)
{
	each_waiting(d, conn_fail, text);
}

/* ---- relaying ---- */

static void conn_attach(struct conn *c, struct port *p)
{
	conn_set(c, CONN_BUSY);
	c->port = p;
	p->conn = c;
	c->daemon->nbusy++;
	relay_attach(&p->relay);
	conn_say(c, EMU_MSG_READY, "");
}

void conns_serve(struct daemon *d)
{
	struct conn *c, *first;
	unsigned i = 0;

	if (d->state != DAEMON_UP)
		return;
	for (;;) {
		while (i < EMU_PORTS && d->port[i].relay.state != RELAY_FREE)
			i++;
		/* New ones are put at the front: who came first is last. */
		for (first = NULL, c = d->conns; c; c = c->next)
			if (c->state == CONN_WAITING)
				first = c;
		if (i == EMU_PORTS || !first)
			return;
		conn_attach(first, &d->port[i]);
	}
}

static void conn_write_done(struct loop_op *op, int res)
{
	struct conn *c = container_of(op, struct conn, write);

	if (c->state == CONN_CLOSING) {
		loop_defer(c->daemon->loop, &c->reap);
		return;
	}
	if (res <= 0) {
		conn_close(c);
		return;
	}
	c->out_at += (size_t)res;
	port_pump(c->port);
}

/* Fill an empty staging area from a queue: the queue may move while the kernel reads this. */
static bool stage(struct buf *from, uint8_t *out, size_t *len, size_t *at)
{
	if (*at == *len) {
		*len = MIN(buf_len(from), (size_t)RELAY_CHUNK);
		*at = 0;
		if (*len)
			memcpy(out, buf_ptr(from), *len);
		buf_consume(from, *len);
	}
	return *at < *len;
}

/* @why: NULL if QEMU is gone. Then its end, which the daemon sees next, also ends the connections. */
static void port_lost(struct port *p, const char *why)
{
	relay_kill(&p->relay);
	loop_timer_clear(p->daemon->loop, &p->deadline);
	if (!why)
		return;
	if (p->conn)
		conn_close(p->conn);
	daemon_port_lost(p->daemon, p, why);
}

static void port_write_done(struct loop_op *op, int res)
{
	struct port *p = container_of(op, struct port, write);

	if (res <= 0) {
		port_lost(p, NULL);
		return;
	}
	p->out_at += (size_t)res;
	port_pump(p);
}

static void port_read_done(struct loop_op *op, int res)
{
	struct port *p = container_of(op, struct port, read);
	int r;

	if (p->relay.state == RELAY_DEAD)
		return;
	if (res <= 0) {
		port_lost(p, NULL);
		return;
	}
	r = relay_port_input(&p->relay, p->in, (size_t)res);
	if (r < 0) {
		port_lost(p, r == -EPROTO ? "L1 broke the protocol" : strerror(-r));
		return;
	}
	if (r) {
		loop_timer_clear(p->daemon->loop, &p->deadline);
		daemon_port_up(p->daemon);
	}
	port_pump(p);
}

/* Start whatever can go on. */
static void port_pump(struct port *p)
{
	struct loop *l = p->daemon->loop;
	struct conn *c = p->conn;

	if (p->relay.state == RELAY_DEAD)
		return;
	if (!p->read.busy && relay_wants_port(&p->relay))
		loop_read(l, &p->read, p->slot, p->in, sizeof(p->in), LOOP_OFF_NONE);
	if (!p->write.busy && stage(&p->relay.to_port, p->out, &p->out_len, &p->out_at))
		loop_write(l, &p->write, p->slot, p->out + p->out_at, p->out_len - p->out_at,
			LOOP_OFF_NONE);
	if (!c || c->state != CONN_BUSY)
		return;
	if (!c->read.busy && relay_wants_client(&p->relay))
		conn_read(c);
	if (!c->write.busy && stage(&p->relay.to_client, c->out, &c->out_len, &c->out_at))
		loop_write(l, &c->write, c->slot, c->out + c->out_at, c->out_len - c->out_at,
			LOOP_OFF_NONE);
}

static void port_reset_timeout(struct loop_timer *t)
{
	port_lost(container_of(t, struct port, deadline), "no answer to a reset");
}

int ports_start(struct daemon *d)
{
	for (unsigned i = 0; i < EMU_PORTS; i++) {
		uint8_t nonce[GP_RESET_NONCE];
		struct port *p = &d->port[i];
		int r;

		p->read.done = port_read_done;
		p->write.done = port_write_done;
		p->deadline.fire = port_reset_timeout;
		p->slot = loop_add_fd(d->loop, d->qemu.port[i]);
		if (p->slot < 0)
			return p->slot;
		new_nonce(nonce);
		r = relay_init(&p->relay, nonce);
		if (r)
			return r;
		port_pump(p); /* the reset waits in the socket until L1 opens the port */
	}
	return 0;
}

/* ---- requests ---- */

static void want_session(struct conn *c)
{
	struct daemon *d = c->daemon;
	unsigned waiting = 0;

	for (struct conn *o = d->conns; o; o = o->next)
		waiting += o->state == CONN_WAITING;
	if (d->state == DAEMON_ENDING) {
		conn_close(c); /* an end of file at once means: start a new one */
		return;
	}
	if (waiting >= EMU_WAITING_MAX) {
		conn_fail(c, "too many commands wait for the emulated host");
		return;
	}
	conn_set(c, CONN_WAITING);
	conns_serve(d);
	if (c->state == CONN_WAITING && d->state == DAEMON_UP)
		conn_say(c, EMU_MSG_WAIT,
			"the emulated host is busy with as many commands as it takes: waiting");
	else if (c->state == CONN_WAITING)
		conn_say(c, d->disk_told ? EMU_MSG_DISK : EMU_MSG_WAIT,
			d->disk_told ? DISK_TAKEN : "");
}

static void want_end(struct conn *c, bool force)
{
	struct daemon *d = c->daemon;
	char text[96];

	if (d->nbusy && !force) {
		snprintf(text, sizeof(text), "%u command%s running in it", d->nbusy,
			d->nbusy == 1 ? " is" : "s are");
		conn_fail(c, text);
		return;
	}
	conn_set(c, CONN_ENDING);
	conn_say(c, EMU_MSG_DONE, "");
	daemon_end(d);
}

static void want_retire(struct conn *c, const struct emu_request *req)
{
	struct daemon *d = c->daemon;
	struct stat st;

	if (d->disk >= 0 && !fstat(d->disk, &st) && st.st_dev == req->disk_dev &&
		st.st_ino == req->disk_ino)
		d->retiring = true;
	if (d->retiring && d->nbusy)
		conn_say(c, EMU_MSG_FAIL, "commands are running in it");
	conn_close(c); /* and with the last connection we end */
}

static void conn_request(struct conn *c)
{
	struct emu_request req;

	memcpy(&req, c->in, sizeof(req));
	loop_timer_clear(c->daemon->loop, &c->deadline);
	if (memcmp(req.magic, EMU_MAGIC, sizeof(req.magic)) || req.version != EMU_PROTO_VERSION) {
		conn_close(c);
		return;
	}
	switch (req.op) {
	case EMU_OP_SESSION:
		want_session(c);
		break;
	case EMU_OP_STOP:
	case EMU_OP_STOP_FORCE:
		want_end(c, req.op == EMU_OP_STOP_FORCE);
		break;
	case EMU_OP_RETIRE:
		want_retire(c, &req);
		break;
	default:
		conn_close(c);
	}
}

static void conn_read_done(struct loop_op *op, int res)
{
	struct conn *c = container_of(op, struct conn, read);

	if (c->state == CONN_CLOSING) {
		loop_defer(c->daemon->loop, &c->reap);
		return;
	}
	if (res <= 0) {
		conn_close(c);
		return;
	}
	switch (c->state) {
	case CONN_ASKING:
		c->have += (size_t)res;
		if (c->have == sizeof(struct emu_request))
			conn_request(c);
		break;
	case CONN_BUSY:
		if (c->port->relay.state != RELAY_BUSY)
			return; /* QEMU is gone, and we are next */
		if (relay_client_input(&c->port->relay, c->in, (size_t)res)) {
			conn_close(c);
			return;
		}
		port_pump(c->port);
		return;
	default: /* nothing may be sent before EMU_MSG_READY */
		conn_close(c);
		return;
	}
	if (c->state != CONN_CLOSING)
		conn_read(c);
}

/* One read is always under way until a port stops it: it also notices that the command has died. */
static void conn_read(struct conn *c)
{
	size_t want = sizeof(c->in);

	if (c->read.busy)
		return;
	if (c->state == CONN_ASKING)
		want = sizeof(struct emu_request) - c->have;
	loop_read(c->daemon->loop, &c->read, c->slot,
		c->in + (c->state == CONN_ASKING ? c->have : 0), want, LOOP_OFF_NONE);
}

static void conn_ask_timeout(struct loop_timer *t)
{
	conn_close(container_of(t, struct conn, deadline));
}

static void conn_create(struct daemon *d, int fd)
{
	struct ucred peer;
	socklen_t len = sizeof(peer);
	struct conn *c;

	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) || peer.uid != geteuid() ||
		d->nconns >= EMU_PORTS + EMU_WAITING_MAX + 8) {
		close(fd);
		return;
	}
	c = calloc(1, sizeof(*c));
	if (c)
		c->slot = loop_add_fd(d->loop, fd);
	if (!c || c->slot < 0) {
		free(c);
		close(fd);
		return;
	}
	c->daemon = d;
	c->fd = fd;
	c->read.done = conn_read_done;
	c->write.done = conn_write_done;
	c->deadline.fire = conn_ask_timeout;
	c->reap.run = conn_reap;
	c->next = d->conns;
	d->conns = c;
	d->nconns++;
	loop_timer_set(d->loop, &c->deadline, loop_now_ns() + ASK_MAX_NS);
	conn_read(c);
	daemon_conns_changed(d);
}

static void accept_done(struct loop_op *op, int res)
{
	struct daemon *d = container_of(op, struct daemon, accept);
	int fd;

	if (res < 0 || d->state == DAEMON_ENDING)
		return;
	while ((fd = accept4(d->listen_fd, NULL, NULL, SOCK_CLOEXEC)) >= 0)
		conn_create(d, fd);
	if (errno != EAGAIN && errno != EINTR && errno != ECONNABORTED) {
		/* Out of descriptors: the bound on connections makes this a fault of the machine's. */
		daemon_end(d);
		return;
	}
	loop_poll(d->loop, &d->accept, d->listen_slot, POLLIN);
}

void conns_listen(struct daemon *d)
{
	d->accept.done = accept_done;
	loop_poll(d->loop, &d->accept, d->listen_slot, POLLIN);
}

void conns_free(struct daemon *d)
{
	struct conn *c;

	while ((c = d->conns)) {
		d->conns = c->next;
		close_fd(&c->fd);
		free(c);
	}
	for (unsigned i = 0; i < EMU_PORTS; i++)
		relay_finish(&d->port[i].relay);
}

/*
 * vmm/vsock_stream.c - the host end of a vsock connection: descriptor, operations, buffers
 *
 * What:    to the guest: poll until readable; when it is this stream's turn, read into a stage (no more than the
 *          guest gave credit for); when rx buffers are there, packets are cut from the stage (dev_vsock.c).
 *          To the host: payload is copied into the stream's ring, and written from there; what was written
 *          counts as forwarded. The ring has as many bytes as the guest has credit, so it is never full.
 * Style:   vsock_stream_update() compares what the connection's state wants with what is the case, and is called
 *          after every event. So no event handler need know what all may follow from a change of state.
 * Why poll: a read that waits for data would hold its stage; so few stages could not serve many idle streams.
 * Copies:  one each way beside the kernel's own, between chain and stage or ring. Reading straight into rx buffers
 *          would save it and cost reads that still write to memory which a guest that reset the device has freed.
 * Threads: loop thread, but vsock_stream_detach(); all under the device lock.
 * Limits:  VSOCK_STAGES_MAX stages among those that wait for rx buffers; a stream whose guest took back credit
 *          keeps its stage uncounted. A ring per stream.
 */
#include "vmm/vsock_dev.h"

#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <sys/socket.h>

/*
 * io_uring's poll reports POLLRDHUP, wanted or not: once one direction is closed, waiting for the other end to close
 * the rest would return at once. So it is looked for now and then (a write finds it as well).
 */
#define POLL_REST_NS NSEC_PER_SEC

static void pump_later(struct vsock *v)
{
	loop_defer(v->dev.loop, &v->pump);
}

/* ---- lists ---- */

static void todo_add(struct vsock_stream *s)
{
	if (!s->on_todo)
		TAILQ_INSERT_TAIL(&s->dev->todo, s, todo);
	s->on_todo = true;
	pump_later(s->dev);
}

static void control_sync(struct vsock_stream *s)
{
	bool want = s->conn.pending;

	if (want && !s->on_control)
		TAILQ_INSERT_TAIL(&s->dev->control, s, control);
	else if (!want && s->on_control)
		TAILQ_REMOVE(&s->dev->control, s, control);
	s->on_control = want;
	if (want)
		pump_later(s->dev);
}

static struct vsock_list *turn_list(struct vsock *v, enum vsock_turn turn)
{
	return turn == VSOCK_TURN_READ ? &v->turn_read : &v->turn_send;
}

static void turn_set(struct vsock_stream *s, enum vsock_turn turn)
{
	if (turn == s->on_turn)
		return;
	if (s->on_turn != VSOCK_TURN_NONE)
		TAILQ_REMOVE(turn_list(s->dev, s->on_turn), s, turn);
	s->on_turn = turn;
	if (turn == VSOCK_TURN_NONE)
		return;
	TAILQ_INSERT_TAIL(turn_list(s->dev, turn), s, turn);
	pump_later(s->dev);
}

void vsock_stream_rotate(struct vsock_stream *s)
{
	struct vsock_list *l = turn_list(s->dev, s->on_turn);

	TAILQ_REMOVE(l, s, turn);
	TAILQ_INSERT_TAIL(l, s, turn);
}

/* ---- stages ---- */

static int stage_get(struct vsock_stream *s)
{
	struct vsock *v = s->dev;

	if (v->nstage_free) {
		s->stage = v->stage_free[--v->nstage_free];
	} else {
		s->stage = malloc(VSOCK_STAGE_SIZE);
		if (!s->stage)
			return -ENOMEM;
		v->buffer_bytes += VSOCK_STAGE_SIZE;
	}
	s->stage_off = s->stage_len = 0;
	return 0;
}

static void stage_put(struct vsock_stream *s)
{
	struct vsock *v = s->dev;

	if (!s->stage)
		return;
	if (v->nstage_free < VSOCK_STAGES_MAX) {
		v->stage_free[v->nstage_free++] = s->stage;
	} else {
		free(s->stage);
		v->buffer_bytes -= VSOCK_STAGE_SIZE;
	}
	s->stage = NULL;
}

static void stage_count(struct vsock_stream *s)
{
	bool want = s->stage && (s->read.busy || s->on_turn == VSOCK_TURN_SEND);

	if (want == s->stage_counted)
		return;
	s->stage_counted = want;
	if (want)
		s->dev->nstages++;
	else
		s->dev->nstages--;
	if (!want && !TAILQ_EMPTY(&s->dev->turn_read))
		pump_later(s->dev);
}

/* ---- what follows from the state ---- */

static bool lacks_credit(const struct vsock_stream *s)
{
	return vsock_conn_reads_host(&s->conn) && (s->readable || s->stage) && !s->read.busy &&
	       !vsock_conn_room(&s->conn);
}

static void timer_sync(struct vsock_stream *s)
{
	enum vsock_state state = s->conn.state;
	uint64_t limit = 0;

	if (state == VSOCK_CONNECT)
		limit = VSOCK_CONNECT_TIMEOUT_NS;
	else if (state == VSOCK_CLOSING)
		limit = VSOCK_CLOSE_TIMEOUT_NS;
	else if (state == VSOCK_OPEN && lacks_credit(s))
		limit = VSOCK_CREDIT_ASK_NS;
	else if (state == VSOCK_OPEN && s->poll_rests)
		limit = POLL_REST_NS;
	if (!limit || state != s->timer_state) {
		loop_timer_clear(s->dev->dev.loop, &s->timer);
		s->timer_state = state;
		s->timer_spent = false;
	}
	if (limit && !s->timer.heap_pos && !s->timer_spent)
		loop_timer_set(s->dev->dev.loop, &s->timer, loop_now_ns() + limit);
}

static void shut_sync(struct vsock_stream *s)
{
	const struct vsock_conn *c = &s->conn;

	if (c->state != VSOCK_OPEN)
		return;
	if ((c->guest_shut & VSOCK_SHUTDOWN_RCV) && !s->rcv_closed) {
		s->rcv_closed = true;
		shutdown(s->fd, SHUT_RD);
	}
	if ((c->guest_shut & VSOCK_SHUTDOWN_SEND) && !vsock_conn_buffered(c) && !s->send_closed) {
		s->send_closed = true;
		shutdown(s->fd, SHUT_WR);
	}
}

static void data_sync(struct vsock_stream *s)
{
	enum vsock_turn turn = VSOCK_TURN_NONE;

	if (!vsock_conn_reads_host(&s->conn)) {
		s->readable = false;
		if (!s->read.busy)
			stage_put(s);
	} else if (!s->read.busy && vsock_conn_room(&s->conn)) {
		if (s->stage)
			turn = VSOCK_TURN_SEND;
		else if (s->readable)
			turn = VSOCK_TURN_READ;
	}
	turn_set(s, turn);
	stage_count(s);
}

/* The ring holds what is buffered, until the connection gave that up; then no more comes. */
static bool dropped(const struct vsock_stream *s)
{
	return !vsock_conn_buffered(&s->conn);
}

static void write_sync(struct vsock_stream *s)
{
	struct loop *l = s->dev->dev.loop;
	unsigned n;

	if (s->write.busy)
		return;
	if (dropped(s))
		vsock_ring_drop(&s->ring, s->ring.len);
	if (!s->ring.len)
		return;
	n = vsock_ring_get(&s->ring, s->write_iov);
	if (n == 1)
		loop_write(l, &s->write, s->slot, s->write_iov[0].iov_base, s->write_iov[0].iov_len,
			LOOP_OFF_NONE);
	else
		loop_writev(l, &s->write, s->slot, s->write_iov, n, LOOP_OFF_NONE);
}

/* Events to poll for; 0: only that the other end closes; -1: none. */
static int poll_wanted(const struct vsock_stream *s)
{
	if (s->conn.state == VSOCK_ENDING)
		return -1;
	if (!vsock_conn_reads_host(&s->conn))
		return 0;
	return s->readable || s->stage ? -1 : POLLIN;
}

static void poll_sync(struct vsock_stream *s)
{
	int want = poll_wanted(s);

	if (want < 0 || (!want && s->poll_rests))
		return;
	if (!s->poll.busy) {
		s->poll_events = (short)want;
		s->poll_cancelled = false;
		loop_poll(s->dev->dev.loop, &s->poll, s->slot, (uint32_t)want);
	} else if (want != s->poll_events && !s->poll_cancelled) {
		s->poll_cancelled = true;
		loop_cancel(s->dev->dev.loop, &s->poll);
	}
}

static void host_close(struct vsock_stream *s)
{
	struct loop *l = s->dev->dev.loop;

	turn_set(s, VSOCK_TURN_NONE);
	if (!s->releasing) {
		s->releasing = true;
		shutdown(s->fd, SHUT_RDWR);
		loop_cancel(l, &s->poll);
		loop_cancel(l, &s->read);
		loop_cancel(l, &s->write);
	}
	if (!s->read.busy)
		stage_put(s);
	stage_count(s);
	if (s->poll.busy || s->read.busy || s->write.busy)
		return;
	loop_remove_fd(l, s->slot);
	close_fd(&s->fd);
	s->dev->buffer_bytes -= s->ring.size;
	vsock_ring_free(&s->ring);
}

static bool finished(const struct vsock_stream *s)
{
	return s->conn.state == VSOCK_DONE && s->fd < 0;
}

void vsock_stream_update(struct vsock_stream *s)
{
	if (!vsock_conn_known(&s->conn))
		vsock_table_remove(&s->dev->table, &s->conn);
	control_sync(s);
	if (vsock_conn_needs_host(&s->conn)) {
		shut_sync(s);
		data_sync(s);
		write_sync(s);
		poll_sync(s);
	} else if (s->fd >= 0) {
		host_close(s);
	}
	timer_sync(s);
	if (finished(s))
		todo_add(s);
}

void vsock_stream_detach(struct vsock_stream *s)
{
	assert(s->conn.state == VSOCK_DONE);
	vsock_table_remove(&s->dev->table, &s->conn);
	control_sync(s);
	timer_sync(s);
	turn_set(s, VSOCK_TURN_NONE);
	stage_count(s);
	todo_add(s);
}

static void stream_free(struct vsock_stream *s)
{
	struct vsock *v = s->dev;

	TAILQ_REMOVE(&v->all, s, all);
	v->nstreams--;
	v->nlarge -= s->large;
	free(s);
}

void vsock_stream_todo(struct vsock *v)
{
	struct vsock_stream *s;

	while ((s = TAILQ_FIRST(&v->todo))) {
		TAILQ_REMOVE(&v->todo, s, todo);
		s->on_todo = false;
		if (finished(s))
			stream_free(s);
		else
			vsock_stream_update(s);
	}
}

/* ---- events ---- */

static void host_closed(struct vsock_stream *s)
{
	s->hung_up = true;
	if (vsock_conn_reads_host(&s->conn))
		s->readable = true; /* the read tells: data before the end, or an error */
	else if (s->conn.state == VSOCK_OPEN)
		vsock_conn_host_shut(&s->conn, VSOCK_SHUTDOWN_BOTH);
	else if (s->conn.state < VSOCK_OPEN)
		vsock_conn_abort(&s->conn);
}

static void poll_done(struct loop_op *op, int res)
{
	struct vsock_stream *s = container_of(op, struct vsock_stream, poll);

	if (res >= 0 && !(res & POLLNVAL)) {
		if (res & (POLLHUP | POLLERR))
			host_closed(s);
		else if (vsock_conn_reads_host(&s->conn))
			s->readable = true;
		else
			s->poll_rests = true;
	} else if (res != -ECANCELED) {
		vsock_conn_abort(&s->conn);
	}
	vsock_stream_update(s);
}

static void read_done(struct loop_op *op, int res)
{
	struct vsock_stream *s = container_of(op, struct vsock_stream, read);

	if (res > 0)
		s->stage_len = (uint32_t)res;
	else
		stage_put(s);
	if (!res)
		vsock_conn_host_shut(
			&s->conn, s->hung_up ? VSOCK_SHUTDOWN_BOTH : VSOCK_SHUTDOWN_SEND);
	else if (res < 0 && res != -EAGAIN && res != -EINTR && res != -ECANCELED)
		vsock_conn_abort(&s->conn);
	vsock_stream_update(s);
}

/* A full socket makes the ring wait, blocking or not, so there is no -EAGAIN. */
static void written(struct vsock_stream *s, int res)
{
	if (res > 0) {
		vsock_ring_drop(&s->ring, (uint32_t)res);
		vsock_conn_forwarded(&s->conn, (uint32_t)res);
	} else if (res == -EPIPE || res == -ECONNRESET) {
		vsock_conn_host_shut(&s->conn, VSOCK_SHUTDOWN_RCV);
	} else if (res != -EINTR && res != -ECANCELED) {
		vsock_conn_abort(&s->conn);
	}
}

static void write_done(struct loop_op *op, int res)
{
	struct vsock_stream *s = container_of(op, struct vsock_stream, write);

	if (dropped(s))
		vsock_ring_drop(&s->ring, s->ring.len);
	else
		written(s, res);
	vsock_stream_update(s);
}

static void timer_fired(struct loop_timer *t)
{
	struct vsock_stream *s = container_of(t, struct vsock_stream, timer);

	s->timer_spent = true;
	if (s->conn.state == VSOCK_OPEN && !lacks_credit(s))
		s->poll_rests = false;
	else
		vsock_conn_timeout(&s->conn);
	vsock_stream_update(s);
}

/* ---- from the queues ---- */

int vsock_stream_create(struct vsock_stream **ret, struct vsock *v, int fd)
{
	struct vsock_stream *s;
	int slot;

	if (v->stopping)
		return -ESHUTDOWN;
	if (v->nstreams == VSOCK_CONN_MAX)
		return -ENFILE;
	s = calloc(1, sizeof(*s));
	if (!s)
		return -ENOMEM;
	slot = loop_add_fd(v->dev.loop, fd);
	if (slot < 0) {
		free(s);
		return slot;
	}
	s->dev = v;
	s->fd = fd;
	s->slot = slot;
	s->poll.done = poll_done;
	s->read.done = read_done;
	s->write.done = write_done;
	s->timer.fire = timer_fired;
	TAILQ_INSERT_TAIL(&v->all, s, all);
	v->nstreams++;
	*ret = s;
	return 0;
}

void vsock_stream_store(struct vsock_stream *s, const struct vq_chain *c, uint32_t len)
{
	bool fresh = !s->ring.data;

	if (vsock_ring_reserve(&s->ring, s->conn.window)) {
		vsock_conn_abort(&s->conn);
		return;
	}
	if (fresh)
		s->dev->buffer_bytes += s->ring.size;
	vsock_ring_put(&s->ring, vq_out(c), c->nout, VSOCK_HDR_SIZE, len);
}

void vsock_stream_read(struct vsock_stream *s)
{
	size_t len = MIN(VSOCK_STAGE_SIZE, vsock_conn_room(&s->conn));

	turn_set(s, VSOCK_TURN_NONE);
	if (stage_get(s)) {
		vsock_conn_abort(&s->conn);
		vsock_stream_update(s);
		return;
	}
	s->readable = false;
	loop_read(s->dev->dev.loop, &s->read, s->slot, s->stage, len, LOOP_OFF_NONE);
	stage_count(s);
}

void vsock_stream_sent(struct vsock_stream *s, uint32_t len)
{
	assert(len <= s->stage_len - s->stage_off);
	s->stage_off += len;
	if (s->stage_off == s->stage_len)
		stage_put(s);
}

/*
 * guest-init/conn.c - a connection to the host: bytes, frames, sessions
 *
 * What:    reads frames and hands them on; collects what is to be sent in one bounded queue,
 *          written once a turn. A session lives in a connection: from hello until the end or the
 *          next GP_RESET.
 * Lasting: a virtio-serial port has no end. When its peer breaks the protocol the frames can't be
 *          followed any more: bytes are then dropped until a GP_RESET goes by, which both sides
 *          begin anew with.
 * Limits:  the queue: no process is read over OUT_FULL, no request over OUT_STOP; answers and
 *          notices that come anyway (processes that end) are few and small; at OUT_MAX the
 *          connection ends.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>

#include "guest-init/agent_int.h"

static void conn_run(struct source *s);

int conn_create(struct guest_agent *a, int fd, unsigned flags, bool connecting)
{
	struct conn *c = calloc(1, sizeof(*c));
	int r;

	if (!c)
		return -ENOMEM;
	c->agent = a;
	c->flags = flags;
	c->connecting = connecting;
	c->cgroup.fd = -1;
	source_init(&c->src, conn_run);
	frame_reader_init(&c->in);
	buf_init(&c->out, OUT_MAX);
	list_init(&c->node);
	list_init(&c->dirty);
	list_init(&c->ended);
	list_init(&c->procs);
	list_init(&c->exited);
	list_init(&c->outputs);
	list_init(&c->inputs);
	list_init(&c->no_room);
	if (fd >= 0) {
		r = source_add(a, &c->src, fd, EPOLLIN | EPOLLOUT | EPOLLRDHUP);
		if (r) {
			free(c);
			return r;
		}
		c->src.ready = connecting ? 0 : EPOLLOUT; /* until it says otherwise */
	}
	list_push(&a->conns, &c->node);
	a->nconns++;
	return 0;
}

int guest_agent_add_conn(struct guest_agent *a, int fd, unsigned flags)
{
	int r = a->nconns < GUEST_CONNS_MAX ? fd_nonblock(fd) : -EMFILE;

	if (!r && fcntl(fd, F_SETFD, FD_CLOEXEC))
		r = -errno;
	if (!r)
		r = conn_create(a, fd, flags, false);
	if (r)
		close(fd);
	return r;
}

/* ---- ends ---- */

bool conn_failed(const struct conn *c)
{
	return list_linked(&c->ended);
}

void conn_fail(struct conn *c, const char *why)
{
	if (conn_failed(c))
		return;
	if (why)
		agent_log(c->agent, "connection ended: %s", why);
	c->lost = why && c->flags & GUEST_CONN_LASTING;
	list_push(&c->agent->ended, &c->ended);
}

static void end_session(struct conn *c)
{
	struct list *n;

	proc_kill_all(c);
	while ((n = c->procs.next) != &c->procs)
		proc_free(list_entry(n, struct proc, node));
	while ((n = c->exited.next) != &c->exited)
		proc_free(list_entry(n, struct proc, node));
	while ((n = c->outputs.next) != &c->outputs)
		output_free(list_entry(n, struct output, node));
	while ((n = c->inputs.next) != &c->inputs)
		input_free(list_entry(n, struct input, node));
	cgroup_conn_end(&c->agent->cgroups, &c->cgroup);
	c->hello = c->binary = false;
}

void conn_destroy(struct conn *c)
{
	end_session(c);
	source_close(c->agent, &c->src);
	frame_reader_finish(&c->in);
	buf_free(&c->out);
	list_del(&c->node);
	list_del(&c->dirty);
	list_del(&c->ended);
	c->agent->nconns--;
	if (c->flags & GUEST_CONN_LAST)
		c->agent->stop = true;
	free(c);
}

void conn_end(struct conn *c)
{
	struct buf rest;

	if (!(c->flags & GUEST_CONN_LASTING)) {
		conn_destroy(c);
		return;
	}
	end_session(c);
	rest = c->in.in;
	frame_reader_init(&c->in);
	if (c->lost) {
		memset(c->seen, 0xff, sizeof(c->seen));
		if (buf_len(&rest))
			conn_input(c, buf_ptr(&rest), buf_len(&rest));
	} else { /* the peer is gone: nobody is to read what was meant for it */
		buf_consume(&c->out, buf_len(&c->out));
	}
	buf_free(&rest);
	source_queue(c->agent, &c->src);
}

/* ---- output ---- */

void conn_wrote(struct conn *c)
{
	if (!list_linked(&c->dirty))
		list_push(&c->agent->dirty, &c->dirty);
}

void conn_begin(struct conn *c, struct jwrite *w)
{
	jwrite_begin(w, &c->out);
}

void conn_send(struct conn *c, struct jwrite *w)
{
	if (jwrite_end(w))
		conn_fail(c, "the host doesn't read what it asked for, or memory ran out");
	else
		conn_wrote(c);
}

/* All of them: those that find the queue full again line up behind the others. */
static void wake(struct conn *c)
{
	struct list *n;

	if (c->stopped && buf_len(&c->out) <= OUT_STOP / 2) {
		c->stopped = false;
		source_queue(c->agent, &c->src);
	}
	if (buf_len(&c->out) >= OUT_FULL)
		return;
	while ((n = list_pop(&c->no_room)))
		source_queue(c->agent, &list_entry(n, struct output, room)->src);
}

void conn_flush(struct conn *c)
{
	ssize_t n;

	while (buf_len(&c->out) && c->src.ready & EPOLLOUT && !conn_failed(c)) {
		n = write(c->src.fd, buf_ptr(&c->out), buf_len(&c->out));
		if (n >= 0)
			buf_consume(&c->out, (size_t)n);
		else if (errno == EAGAIN)
			c->src.ready &= ~(uint32_t)EPOLLOUT;
		else if (errno != EINTR)
			conn_fail(c, NULL);
	}
	wake(c);
}

/* ---- input ---- */

static void reset(struct conn *c, const uint8_t nonce[GP_RESET_NONCE])
{
	end_session(c);
	if (frame_put_reset(&c->out, nonce))
		conn_fail(c, "no room for the echo of a reset");
	else
		conn_wrote(c);
}

static void take_data(struct conn *c, const struct frame *f)
{
	struct input *i;

	if (!c->hello || !c->binary) {
		conn_fail(c, "binary data on a connection that didn't agree on it");
		return;
	}
	i = input_find(c, f->stream);
	if (i) /* else cancelled, which the host may not know yet */
		input_data(i, f->data, f->len);
}

static void take_frames(struct conn *c)
{
	const char *why = NULL;
	struct frame f;
	int r = 0;

	while (!conn_failed(c) && (r = frame_next(&c->in, &f, &why)) > 0) {
		if (f.kind == GP_JSON)
			rpc_message(c, f.data, f.len);
		else if (f.kind == GP_DATA)
			take_data(c, &f);
		else
			reset(c, f.data);
	}
	if (r < 0)
		conn_fail(c, why);
}

/* Out of step: returns how many bytes were used up until a GP_RESET was complete, or all. */
static size_t look_for_reset(struct conn *c, const uint8_t *data, size_t len)
{
	uint8_t want[GP_HEADER];

	frame_header(want, GP_RESET, GP_RESET_NONCE);
	for (size_t i = 0; i < len; i++) {
		memmove(c->seen, c->seen + 1, sizeof(c->seen) - 1);
		c->seen[sizeof(c->seen) - 1] = data[i];
		if (!memcmp(c->seen, want, sizeof(want))) {
			c->lost = false;
			reset(c, c->seen + GP_HEADER);
			return i + 1;
		}
	}
	return len;
}

void conn_input(struct conn *c, const uint8_t *data, size_t len)
{
	size_t n;

	if (c->lost) {
		n = look_for_reset(c, data, len);
		data += n;
		len -= n;
	}
	if (!len)
		return;
	if (frame_reader_feed(&c->in, data, len))
		conn_fail(c, "out of memory");
	else
		take_frames(c);
}

static void hang_up(struct conn *c)
{
	c->src.ready &= (uint32_t)EPOLLOUT;
	conn_fail(c, NULL);
}

/*
 * Reads into the reader's own buffer, or if lost into a passing one. Returns as read(2), -2: no
 * memory.
 */
static ssize_t receive(struct conn *c, bool *ret_full)
{
	size_t room = sizeof(c->agent->scratch);
	void *p = c->lost ? c->agent->scratch : frame_reader_space(&c->in, &room);
	ssize_t n;

	if (!p)
		return -2;
	n = read(c->src.fd, p, room);
	*ret_full = n == (ssize_t)room;
	if (n <= 0)
		return n;
	if (c->lost) {
		conn_input(c, p, (size_t)n);
	} else {
		frame_reader_commit(&c->in, (size_t)n);
		take_frames(c);
	}
	return n;
}

static void conn_read(struct conn *c)
{
	bool full = false;
	ssize_t n;

	if (buf_len(&c->out) > OUT_STOP) {
		c->stopped = true;
		return;
	}
	n = receive(c, &full);
	if (n == 0 || (n == -1 && errno != EAGAIN && errno != EINTR)) {
		hang_up(c);
		return;
	}
	if (n == -2) {
		conn_fail(c, "out of memory");
		return;
	}
	/*
	 * A socket that gave less than there was room for is empty; a port gives a piece at a time.
	 */
	if (n == -1 && errno == EAGAIN)
		c->src.ready &= (uint32_t)EPOLLOUT;
	else if (n > 0 && !full && !(c->flags & GUEST_CONN_LASTING))
		c->src.ready &= ~(uint32_t)EPOLLIN;
	if (c->src.ready & ~(uint32_t)EPOLLOUT)
		source_queue(c->agent, &c->src);
}

static bool connected(struct conn *c)
{
	socklen_t len = sizeof(int);
	int err = 0;

	if (!c->connecting)
		return true;
	if (!(c->src.ready & (EPOLLOUT | EPOLLERR | EPOLLHUP)))
		return false;
	getsockopt(c->src.fd, SOL_SOCKET, SO_ERROR, &err, &len);
	if (err) {
		conn_fail(c, strerror(err));
		return false;
	}
	c->connecting = false;
	return true;
}

static void conn_run(struct source *s)
{
	struct conn *c = container_of(s, struct conn, src);

	if (!connected(c))
		return;
	if (s->ready & EPOLLOUT)
		conn_flush(c);
	if (s->ready & ~(uint32_t)EPOLLOUT && !conn_failed(c))
		conn_read(c);
}

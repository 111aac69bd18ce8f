/*
 * guest-init/stream.c - what processes write and read, between their pipes and a connection
 *
 * Output:  read from the pipe straight into the connection's queue, never more than the host's
 *          credit and only while the queue has room; so a stopped reader costs a full pipe and
 *          nothing else.
 * Input:   written to the pipe at once; what doesn't fit waits in the stream's buffer, at most the
 *          credit that we gave, and given back as the process takes it. Without binary the host
 *          sends without credit: the connection's sum is bounded, and the stream that exceeds it is
 *          cancelled.
 * Rules:   protocol.md 6: never an empty enqueue, nothing after a cancel, one end or error, start
 *          after the result.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <termios.h>

#include "guest-init/agent_int.h"

#define GRANT_BATCH  (GP_CREDIT_INITIAL / 4)
#define CREDIT_MAX   (UINT64_C(1) << 53)
#define SDK_CHUNK    (48u << 10) /* 64 KiB as base64 */
#define STREAM_BEGIN "{\"jsonrpc\":\"2.0\",\"method\":\"$sandbox.stream."

static void note_begin(struct conn *c, struct jwrite *w, const char *what, uint64_t id)
{
	conn_begin(c, w);
	jwrite_fmt(w, STREAM_BEGIN "%s\",\"params\":{\"streamId\":%" PRIu64, what, id);
}

static void note_end(struct conn *c, struct jwrite *w)
{
	jwrite_raw(w, "}}");
	conn_send(c, w);
}

static void note(struct conn *c, const char *what, uint64_t id)
{
	struct jwrite w;

	note_begin(c, &w, what, id);
	note_end(c, &w);
}

static void note_error(
	struct conn *c, const char *what, const char *member, uint64_t id, int err, const char *why)
{
	struct jwrite w;

	note_begin(c, &w, what, id);
	jwrite_fmt(&w, ",\"%s\":", member);
	errs_write_errno(&w, err, why);
	note_end(c, &w);
}

/* ---- output ---- */

static void output_run(struct source *s);

struct output *output_find(struct conn *c, uint64_t id)
{
	struct hash_node *n = *hash_head(&c->agent->outputs, id);

	for (; n; n = n->next) {
		struct output *o = container_of(n, struct output, hash);

		if (o->id == id && o->conn == c)
			return o;
	}
	return NULL;
}

/*
 * The next id of the agreed range that is not in use; there are fewer streams than ids, or none is
 * left.
 */
static int pick_id(struct conn *c, uint64_t *ret)
{
	for (uint64_t tries = 0; tries < MIN(c->id_count, GUEST_STREAMS_MAX + 1); tries++) {
		*ret = c->id_base + c->id_next;
		c->id_next = (c->id_next + 1) % c->id_count;
		if (!output_find(c, *ret))
			return 0;
	}
	return -ENOSPC;
}

int output_create(struct conn *c, int fd, bool pty, struct output **ret)
{
	struct guest_agent *a = c->agent;
	autoclose int own = fd;
	autofree struct output *o = calloc(1, sizeof(*o));
	int r;

	if (!o)
		return -ENOMEM;
	r = a->nstreams < GUEST_STREAMS_MAX ? pick_id(c, &o->id) : -EMFILE;
	if (!r)
		r = fd_nonblock(fd);
	if (r)
		return r;
	source_init(&o->src, output_run);
	r = source_add(a, &o->src, fd, EPOLLIN);
	if (r)
		return r;
	take_fd(&own);
	o->conn = c;
	o->pty = pty;
	o->credit = c->binary ? GP_CREDIT_INITIAL : UINT64_MAX;
	list_init(&o->room);
	list_push(&c->outputs, &o->node);
	hash_add(&a->outputs, o->id, &o->hash);
	a->nstreams++;
	*ret = take_ptr(o);
	return 0;
}

void output_free(struct output *o)
{
	struct guest_agent *a = o->conn->agent;

	if (o->proc)
		o->proc->out[o->proc->out[0] == o ? 0 : 1] = NULL;
	source_close(a, &o->src);
	list_del(&o->node);
	list_del(&o->room);
	hash_del(&o->hash);
	a->nstreams--;
	free(o);
}

void output_release(struct output *o)
{
	if (o->started)
		return;
	o->started = true;
	note(o->conn, "start", o->id);
	source_queue(o->conn->agent, &o->src);
}

void output_credit(struct output *o, uint64_t bytes)
{
	if (o->credit == UINT64_MAX) /* without binary nobody counts */
		return;
	o->credit = MIN(o->credit, CREDIT_MAX) + MIN(bytes, CREDIT_MAX);
	source_queue(o->conn->agent, &o->src);
}

static ssize_t read_binary(struct output *o, size_t most)
{
	struct buf *out = &o->conn->out;
	uint8_t *p = buf_reserve(out, FRAME_DATA_HEADER + most);
	ssize_t n;

	if (!p) {
		conn_fail(o->conn, "out of memory");
		return -2;
	}
	n = read(o->src.fd, p + FRAME_DATA_HEADER, most);
	if (n > 0) {
		frame_data_header(p, o->id, (size_t)n);
		buf_commit(out, FRAME_DATA_HEADER + (size_t)n);
		conn_wrote(o->conn);
	}
	return n;
}

static ssize_t read_text(struct output *o, size_t most)
{
	struct conn *c = o->conn;
	ssize_t n = read(o->src.fd, c->agent->scratch, MIN(most, SDK_CHUNK));
	struct jwrite w;

	if (n <= 0)
		return n;
	note_begin(c, &w, "enqueue", o->id);
	jwrite_raw(&w, ",\"data\":");
	jwrite_base64(&w, c->agent->scratch, (size_t)n);
	note_end(c, &w);
	return n;
}

static void output_over(struct output *o, int err)
{
	/* A terminal whose last user closed it answers EIO: that is its end of file. */
	if (!err || (o->pty && err == EIO))
		note(o->conn, "end", o->id);
	else
		note_error(o->conn, "error", "error", o->id, err, "read output");
	output_free(o);
}

static void output_run(struct source *s)
{
	struct output *o = container_of(s, struct output, src);
	struct conn *c = o->conn;
	size_t most = MIN(o->credit, CHUNK);
	ssize_t n;

	if (!o->started || !most || !s->ready || conn_failed(c))
		return;
	if (buf_len(&c->out) >= OUT_FULL) {
		if (!list_linked(&o->room))
			list_push(&c->no_room, &o->room);
		return;
	}
	n = c->binary ? read_binary(o, most) : read_text(o, most);
	if (n == -2)
		return;
	if (n > 0) {
		if (c->binary)
			o->credit -= (size_t)n;
		source_queue(c->agent, s);
	} else if (n == 0 || (errno != EAGAIN && errno != EINTR)) {
		output_over(o, n ? errno : 0);
	} else if (errno == EAGAIN) {
		s->ready = 0;
	} else {
		source_queue(c->agent, s);
	}
}

/* ---- input ---- */

static void input_run(struct source *s);

struct input *input_find(struct conn *c, uint64_t id)
{
	struct hash_node *n = *hash_head(&c->agent->inputs, id);

	for (; n; n = n->next) {
		struct input *i = container_of(n, struct input, hash);

		if (i->id == id && i->conn == c)
			return i;
	}
	return NULL;
}

void input_free(struct input *i)
{
	struct conn *c = i->conn;
	struct proc *p = i->proc;

	if (p)
		p->in = NULL;
	source_close(c->agent, &i->src);
	c->stdin_bytes -= buf_len(&i->data);
	buf_free(&i->data);
	if (!i->claimed)
		c->nunclaimed--;
	list_del(&i->node);
	hash_del(&i->hash);
	c->agent->nstreams--;
	free(i);
	if (p)
		proc_stdin_over(p);
}

static void send_cancel(struct conn *c, uint64_t id, int err, const char *what)
{
	note_error(c, "cancel", "reason", id, err, what);
}

void input_cancel(struct input *i, int err, const char *what)
{
	if (!i->ended)
		send_cancel(i->conn, i->id, err, what);
	input_free(i);
}

static struct input *input_create(struct conn *c, uint64_t id)
{
	struct guest_agent *a = c->agent;
	struct input *i = calloc(1, sizeof(*i));

	if (!i || a->nstreams >= GUEST_STREAMS_MAX) {
		free(i);
		return NULL;
	}
	source_init(&i->src, input_run);
	i->conn = c;
	i->id = id;
	i->credit = GP_CREDIT_INITIAL;
	buf_init(&i->data, c->binary ? GP_CREDIT_INITIAL : 0);
	list_push(&c->inputs, &i->node);
	hash_add(&a->inputs, id, &i->hash);
	a->nstreams++;
	c->nunclaimed++;
	return i;
}

void input_start(struct conn *c, uint64_t id)
{
	if (input_find(c, id))
		return; /* a request may name a stream before it is announced */
	if (c->nunclaimed >= GUEST_UNCLAIMED || !input_create(c, id))
		send_cancel(c, id, EMFILE, "too many streams");
}

/* Counts @n bytes as taken by the process; the host gets the credit back in larger pieces. */
static void give_back(struct input *i, size_t n)
{
	struct jwrite w;

	i->consumed += n;
	if (!i->conn->binary || i->ended || i->consumed < GRANT_BATCH)
		return;
	conn_begin(i->conn, &w);
	jwrite_raw(&w, "{\"jsonrpc\":\"2.0\",\"method\":\"$skerry.credit\",\"params\":");
	jwrite_fmt(&w, "{\"streamId\":%" PRIu64 ",\"bytes\":%" PRIu64, i->id, i->consumed);
	note_end(i->conn, &w);
	i->credit += i->consumed;
	i->consumed = 0;
}

/* Writes what the process takes now. Returns how much, or -errno: it takes no more, ever. */
static ssize_t give(struct input *i, const uint8_t *data, size_t len)
{
	size_t done = 0;
	ssize_t n;

	while (done < len && i->src.ready & EPOLLOUT) {
		n = write(i->src.fd, data + done, len - done);
		if (n > 0) {
			done += (size_t)n;
			i->last = (char)data[done - 1];
		} else if (n == 0 || errno == EAGAIN) {
			i->src.ready &= ~(uint32_t)EPOLLOUT;
		} else if (errno != EINTR) {
			return -errno;
		}
	}
	if (done)
		give_back(i, done);
	return (ssize_t)done;
}

/* A terminal has no end of file to pass on: the character that means it is typed instead. */
static void type_eof(struct input *i)
{
	struct termios t;

	if (tcgetattr(i->src.fd, &t) || !(t.c_lflag & ICANON) || !t.c_cc[VEOF])
		return;
	/* After an unfinished line the first one only sends that line. */
	for (int n = i->last && i->last != '\n' ? 2 : 1; n; n--)
		if (write(i->src.fd, &t.c_cc[VEOF], 1) != 1)
			return; /* its buffer is full and nobody reads: there is no end to tell */
}

static void finish(struct input *i)
{
	if (i->pty)
		type_eof(i);
	input_free(i);
}

static void input_run(struct source *s)
{
	struct input *i = container_of(s, struct input, src);
	ssize_t n;

	if (conn_failed(i->conn))
		return;
	if (s->ready & (EPOLLERR | EPOLLHUP)) {
		input_cancel(i, EPIPE, "the process reads no more input");
		return;
	}
	n = give(i, buf_len(&i->data) ? buf_ptr(&i->data) : NULL, buf_len(&i->data));
	if (n < 0) {
		input_cancel(i, (int)-n, "write input");
		return;
	}
	buf_consume(&i->data, (size_t)n);
	i->conn->stdin_bytes -= (size_t)n;
	if (!buf_len(&i->data)) {
		if (i->ended)
			finish(i);
		else
			buf_free(&i->data);
	}
}

int input_claim(struct conn *c, uint64_t id, int fd, bool pty, struct input **ret)
{
	autoclose int own = fd;
	struct input *i = input_find(c, id);
	int r;

	if (i && i->claimed)
		return -EBUSY;
	if (!i)
		i = input_create(c, id);
	if (!i)
		return -EMFILE;
	r = fd_nonblock(fd);
	if (!r)
		r = source_add(c->agent, &i->src, fd, EPOLLOUT);
	if (r) {
		input_cancel(i, -r, "open input");
		return r;
	}
	take_fd(&own);
	i->src.ready = EPOLLOUT;         /* until it says otherwise */
	source_queue(c->agent, &i->src); /* for what has come already */
	i->claimed = true;
	i->pty = pty;
	c->nunclaimed--;
	*ret = i;
	return 0;
}

static void keep(struct input *i, const uint8_t *data, size_t len)
{
	struct conn *c = i->conn;

	if (!len)
		return;
	if (len > c->agent->stdin_max - MIN(c->stdin_bytes, c->agent->stdin_max)) {
		input_cancel(i, ENOBUFS, "too much input is waiting for its readers");
		return;
	}
	if (buf_append(&i->data, data, len)) {
		input_cancel(i, ENOMEM, "store input");
		return;
	}
	c->stdin_bytes += len;
}

void input_data(struct input *i, const uint8_t *data, size_t len)
{
	struct conn *c = i->conn;
	ssize_t n = 0;

	if (i->ended)
		return;
	if (c->binary && len > i->credit) {
		conn_fail(c, "the host sent more than its credit");
		return;
	}
	if (c->binary)
		i->credit -= len;
	if (i->claimed && !buf_len(&i->data))
		n = give(i, data, len);
	if (n < 0)
		input_cancel(i, (int)-n, "write input");
	else
		keep(i, data + n, len - (size_t)n);
}

void input_end(struct input *i)
{
	if (i->ended)
		return;
	i->ended = true;
	if (i->proc)
		proc_stdin_over(i->proc);
	if (i->claimed && !buf_len(&i->data))
		finish(i);
}

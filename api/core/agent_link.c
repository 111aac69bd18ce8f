/*
 * api/core/agent_link.c - an agent client on a stream socket, served by the loop
 *
 * One read and one write are under way at most. The write owns a buffer of its own, so that the agent may queue
 * more meanwhile; the two are swapped when it is done.
 */
#include "api/core/agent_link.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

struct agent_link {
	struct loop *loop;
	struct agent *agent; /* NULL: the owner has closed the link */
	void (*closed)(void *ctx, const struct error *e);
	void *ctx;
	int slot;
	bool down; /* closed() was called: nothing more is read or written */
	struct loop_op read_op, write_op;
	struct buf sending;
	uint8_t in[AGENT_IN_MAX];
};

static void free_if_idle(struct agent_link *k)
{
	if (k->agent || k->read_op.busy || k->write_op.busy)
		return;
	loop_remove_fd(k->loop, k->slot);
	buf_free(&k->sending);
	free(k);
}

static void go_down(struct agent_link *k, const struct error *e)
{
	if (k->down)
		return;
	k->down = true;
	k->closed(k->ctx, e);
}

void agent_link_flush(struct agent_link *k)
{
	struct buf *out = agent_out(k->agent), tmp;

	if (k->write_op.busy || k->down)
		return;
	if (!buf_len(&k->sending)) {
		tmp = k->sending;
		k->sending = *out;
		*out = tmp;
	}
	if (buf_len(&k->sending))
		loop_write(k->loop, &k->write_op, k->slot, buf_ptr(&k->sending),
			buf_len(&k->sending), LOOP_OFF_NONE);
}

static void write_done(struct loop_op *op, int res)
{
	struct agent_link *k = container_of(op, struct agent_link, write_op);
	struct error e = { 0 };

	if (!k->agent) {
		free_if_idle(k);
		return;
	}
	if (res < 0 && res != -EINTR && res != -EAGAIN) {
		/* the read side says end of file, with what was still under way before it */
		if (res != -EPIPE && res != -ECONNRESET) {
			error_set(&e, -res, "sending to the guest: %s", strerror(-res));
			go_down(k, &e);
		}
		return;
	}
	if (res > 0)
		buf_consume(&k->sending, (size_t)res);
	agent_out_drained(k->agent);
	agent_link_flush(k);
}

static void receive(struct agent_link *k)
{
	loop_read(k->loop, &k->read_op, k->slot, k->in, sizeof(k->in), LOOP_OFF_NONE);
}

static void read_done(struct loop_op *op, int res)
{
	struct agent_link *k = container_of(op, struct agent_link, read_op);
	struct error e = { 0 };

	if (!k->agent) {
		free_if_idle(k);
		return;
	}
	if (k->down)
		return;
	if (res > 0 && !agent_input(k->agent, k->in, (size_t)res, &e)) {
		receive(k);
		return;
	}
	if (res == -EINTR || res == -EAGAIN) {
		receive(k);
		return;
	}
	if (res < 0 && res != -ECONNRESET)
		error_set(&e, -res, "receiving from the guest: %s", strerror(-res));
	go_down(k, &e);
}

int agent_link_create(struct agent_link **ret, struct loop *l, int fd, struct agent *a,
	void (*closed)(void *ctx, const struct error *e), void *ctx, struct error *e)
{
	struct agent_link *k = calloc(1, sizeof(*k));
	int slot;

	if (!k)
		return error_set(e, ENOMEM, "connection to the guest: out of memory");
	/* the ring waits by itself, but not on a descriptor that says not to */
	slot = fcntl(fd, F_SETFL, 0) ? -errno : loop_add_fd(l, fd);
	if (slot < 0) {
		free(k);
		return error_set(e, -slot, "connection to the guest: %s", strerror(-slot));
	}
	close(fd);
	k->loop = l;
	k->agent = a;
	k->closed = closed;
	k->ctx = ctx;
	k->slot = slot;
	k->read_op.done = read_done;
	k->write_op.done = write_done;
	buf_init(&k->sending, AGENT_OUT_MAX);
	*ret = k;
	receive(k);
	agent_link_flush(k);
	return 0;
}

void agent_link_close(struct agent_link *k)
{
	if (!k)
		return;
	k->agent = NULL;
	loop_cancel(k->loop, &k->read_op);
	loop_cancel(k->loop, &k->write_op);
	free_if_idle(k);
}

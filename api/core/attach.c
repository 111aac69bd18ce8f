/*
 * api/core/attach.c - one process of a guest with our descriptors as its stdin, stdout and stderr
 *
 * Output:  a sink has two buffers, one being written while the other fills. Both together hold at most the
 *          credit that the guest has, because credit is given back only for what was written.
 * Input:   read only when the guest's credit allows to send it; one buffer.
 * End:     the process exited, both streams ended, all is written. Children that it left behind may hold its
 *          streams open: when nothing came for LINGER_NS its process group is killed, and if that doesn't end
 *          the streams either (a daemon with a session of its own), LINGER_LAST_NS later we stop waiting.
 * Lifetime: operations of the loop point into this struct: attach_free() frees it once the last has completed.
 */
#include "api/core/attach.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/stat.h>

#include "base/guest_proto.h"

#define LINGER_NS      (500 * NSEC_PER_MSEC)
#define LINGER_LAST_NS (2 * NSEC_PER_SEC)
#define READ_SIZE      GP_DATA_MAX

struct sink {
	struct attach *attach;
	enum agent_stream stream;
	struct loop_op op;
	bool polling; /* the operation under way waits for room */
	bool ended;   /* nothing more will come */
	int slot;     /* -1: nowhere */
	struct buf fill, send;
};

struct source {
	struct loop_op op;
	bool polling;
	bool done;
	int slot;
	uint8_t *data;
};

struct attach {
	struct attach_config c;
	struct agent_proc *proc;
	struct sink sink[AGENT_STREAMS];
	struct source source;
	uint64_t pending_signals; /* one bit a signal, until the process runs */
	bool running, exited, finished, freed, any_output, group_killed;
	struct attach_result result;
	struct loop_timer linger;
};

static void pump_source(struct attach *a);

static bool busy(const struct attach *a)
{
	return a->source.op.busy || a->sink[0].op.busy || a->sink[1].op.busy;
}

static void release_slot(struct attach *a, int *slot)
{
	if (*slot >= 0)
		loop_remove_fd(a->c.loop, *slot);
	*slot = -1;
}

static void free_if_idle(struct attach *a)
{
	if (!a->freed || busy(a))
		return;
	for (int s = 0; s < AGENT_STREAMS; s++) {
		release_slot(a, &a->sink[s].slot);
		buf_free(&a->sink[s].fill);
		buf_free(&a->sink[s].send);
	}
	release_slot(a, &a->source.slot);
	free(a->source.data);
	free(a);
}

static void finish(struct attach *a, enum attach_end end)
{
	if (a->finished)
		return;
	a->finished = true;
	a->result.end = end;
	loop_timer_clear(a->c.loop, &a->linger);
	a->c.done(a->c.ctx, &a->result);
}

static bool sink_idle(const struct sink *k)
{
	return !k->op.busy && !buf_len(&k->fill) && !buf_len(&k->send);
}

/* The end, or a limit on how long it may be off. */
static void check_end(struct attach *a)
{
	bool idle = sink_idle(&a->sink[0]) && sink_idle(&a->sink[1]);

	if (!a->exited || a->finished)
		return;
	if (idle && a->sink[0].ended && a->sink[1].ended)
		finish(a, ATTACH_EXITED);
	else if (idle)
		loop_timer_set(a->c.loop, &a->linger,
			loop_now_ns() + (a->group_killed ? LINGER_LAST_NS : LINGER_NS));
	else
		loop_timer_clear(a->c.loop, &a->linger);
}

static void linger_over(struct loop_timer *t)
{
	struct attach *a = container_of(t, struct attach, linger);

	if (a->group_killed) {
		finish(a, ATTACH_EXITED);
		return;
	}
	a->group_killed = true;
	agent_proc_kill(a->proc, SIGKILL, true);
	check_end(a);
}

static void fail(struct attach *a, const char *what, int err)
{
	error_set(&a->result.error, err, "standard %s: %s", what, strerror(err));
	finish(a, ATTACH_ERROR);
}

/* ---- output ---- */

static const char *sink_name(const struct sink *k)
{
	return k->stream == AGENT_STDOUT ? "output" : "error";
}

static void pump_sink(struct sink *k)
{
	struct buf tmp;

	if (k->op.busy || k->slot < 0)
		return;
	if (!buf_len(&k->send)) {
		tmp = k->send;
		k->send = k->fill;
		k->fill = tmp;
	}
	if (buf_len(&k->send)) {
		k->polling = false;
		loop_write(k->attach->c.loop, &k->op, k->slot, buf_ptr(&k->send), buf_len(&k->send),
			LOOP_OFF_NONE);
	}
}

/* Nobody reads our output: neither is there a reader for the process. */
static void sink_broken(struct sink *k)
{
	agent_proc_cancel(k->attach->proc, k->stream);
	buf_consume(&k->send, buf_len(&k->send));
	buf_consume(&k->fill, buf_len(&k->fill));
	release_slot(k->attach, &k->slot);
	k->ended = true;
}

static void sink_done(struct loop_op *op, int res)
{
	struct sink *k = container_of(op, struct sink, op);
	struct attach *a = k->attach;

	if (a->freed) {
		free_if_idle(a);
		return;
	}
	if (res == -EAGAIN && !k->polling) {
		/* somebody made the descriptor non-blocking */
		k->polling = true;
		loop_poll(a->c.loop, &k->op, k->slot, POLLOUT);
		return;
	}
	if (res == -EPIPE || res == -ECONNRESET) {
		sink_broken(k);
	} else if (res < 0 && res != -EINTR && res != -EAGAIN) {
		sink_broken(k);
		fail(a, sink_name(k), -res);
		return;
	} else if (res > 0 && !k->polling) {
		buf_consume(&k->send, (size_t)res);
		agent_proc_grant(a->proc, k->stream, (size_t)res);
	}
	pump_sink(k);
	check_end(a);
}

static void on_data(unused_arg struct agent_proc *p, void *ctx, enum agent_stream s,
	const void *data, size_t len)
{
	struct attach *a = ctx;
	struct sink *k = &a->sink[s];
	int r;

	if (!a->any_output) {
		a->any_output = true;
		if (a->c.first_output)
			a->c.first_output(a->c.ctx);
	}
	if (k->ended || a->finished)
		return;
	r = buf_append(&k->fill, data, len);
	if (r) {
		fail(a, sink_name(k), -r);
		return;
	}
	pump_sink(k);
	check_end(a);
}

static void on_end(unused_arg struct agent_proc *p, void *ctx, enum agent_stream s)
{
	struct attach *a = ctx;

	a->sink[s].ended = true;
	check_end(a);
}

/* ---- input ---- */

static void source_end(struct attach *a)
{
	a->source.done = true;
	agent_proc_stdin_end(a->proc);
}

static void source_done(struct loop_op *op, int res)
{
	struct source *s = container_of(op, struct source, op);
	struct attach *a = container_of(s, struct attach, source);

	if (a->freed) {
		free_if_idle(a);
		return;
	}
	if (s->done)
		return;
	if (res == -EAGAIN && !s->polling) {
		s->polling = true;
		loop_poll(a->c.loop, &s->op, s->slot, POLLIN);
		return;
	}
	if (s->polling || res == -EINTR) {
		s->polling = false;
		pump_source(a);
	} else if (res > 0) {
		if (agent_proc_stdin(a->proc, s->data, (size_t)res))
			source_end(a);
		else
			pump_source(a);
	} else {
		source_end(a);
		/* EIO: a terminal that is not ours any more */
		if (res < 0 && res != -EIO && res != -ECANCELED)
			fail(a, "input", -res);
	}
}

static void pump_source(struct attach *a)
{
	struct source *s = &a->source;
	size_t room;

	if (s->op.busy || s->done || s->slot < 0 || a->finished)
		return;
	room = agent_proc_stdin_room(a->proc);
	if (room)
		loop_read(a->c.loop, &s->op, s->slot, s->data, MIN(room, READ_SIZE), LOOP_OFF_NONE);
}

static void on_stdin_room(unused_arg struct agent_proc *p, void *ctx)
{
	pump_source(ctx);
}

static void on_stdin_closed(unused_arg struct agent_proc *p, void *ctx)
{
	struct attach *a = ctx;

	a->source.done = true;
	if (a->source.op.busy)
		loop_cancel(a->c.loop, &a->source.op);
}

/* ---- life of the process ---- */

static void on_started(unused_arg struct agent_proc *p, void *ctx, unused_arg uint64_t pid)
{
	struct attach *a = ctx;

	a->running = true;
	for (int sig = 1; sig < 64; sig++)
		if (a->pending_signals >> sig & 1)
			agent_proc_kill(a->proc, sig, true);
	a->pending_signals = 0;
	if (a->c.started)
		a->c.started(a->c.ctx);
}

static void on_failed(unused_arg struct agent_proc *p, void *ctx, const struct agent_failure *f)
{
	struct attach *a = ctx;

	a->result.failure = *f;
	finish(a, ATTACH_FAILED);
}

static void on_exited(unused_arg struct agent_proc *p, void *ctx, const struct agent_exit *x)
{
	struct attach *a = ctx;

	a->exited = true;
	a->result.exit = *x;
	on_stdin_closed(p, a);
	check_end(a);
}

static const struct agent_proc_ops proc_ops = {
	.started = on_started,
	.failed = on_failed,
	.data = on_data,
	.end = on_end,
	.exited = on_exited,
	.stdin_room = on_stdin_room,
	.stdin_closed = on_stdin_closed,
};

void attach_signal(struct attach *a, int sig)
{
	if (sig <= 0 || sig >= 64 || a->finished)
		return;
	if (a->running)
		agent_proc_kill(a->proc, sig, true);
	else
		a->pending_signals |= UINT64_C(1) << sig;
}

void attach_free(struct attach *a)
{
	if (!a)
		return;
	a->finished = a->freed = true;
	loop_timer_clear(a->c.loop, &a->linger);
	agent_proc_free(a->proc);
	a->proc = NULL;
	for (int s = 0; s < AGENT_STREAMS; s++)
		if (a->sink[s].op.busy)
			loop_cancel(a->c.loop, &a->sink[s].op);
	if (a->source.op.busy)
		loop_cancel(a->c.loop, &a->source.op);
	free_if_idle(a);
}

static int add_fd(struct attach *a, int fd, int *ret_slot, struct error *e)
{
	int slot = loop_add_fd(a->c.loop, fd);

	if (slot < 0)
		return error_set(e, -slot, "standard streams: %s", strerror(-slot));
	*ret_slot = slot;
	return 0;
}

static int open_streams(struct attach *a, struct error *e)
{
	const struct attach_config *c = &a->c;
	int r = 0;

	for (int s = 0; s < AGENT_STREAMS; s++) {
		struct sink *k = &a->sink[s];

		k->attach = a;
		k->stream = s;
		k->op.done = sink_done;
		k->slot = -1;
		buf_init(&k->fill, GP_CREDIT_INITIAL);
		buf_init(&k->send, GP_CREDIT_INITIAL);
	}
	a->source.op.done = source_done;
	a->source.slot = -1;
	for (int s = 0; s < AGENT_STREAMS && !r; s++)
		r = add_fd(a, c->fd[1 + s], &a->sink[s].slot, e);
	if (!r && c->fd[0] >= 0) {
		a->source.data = malloc(READ_SIZE);
		r = a->source.data ? add_fd(a, c->fd[0], &a->source.slot, e)
				   : error_set(e, ENOMEM, "standard input: out of memory");
	}
	return r;
}

int attach_create(struct attach **ret, const struct attach_config *c, struct error *e)
{
	struct attach *a = calloc(1, sizeof(*a));
	struct agent_spawn spawn = *c->spawn;
	int r;

	if (!a)
		return error_set(e, ENOMEM, "out of memory");
	a->c = *c;
	a->c.spawn = NULL;
	a->linger.fire = linger_over;
	r = open_streams(a, e);
	spawn.stdin_piped = c->fd[0] >= 0;
	if (!r)
		r = agent_spawn(c->agent, &spawn, &proc_ops, a, &a->proc, e);
	if (r) {
		attach_free(a);
		return r;
	}
	/* a pty has no separate stderr */
	a->sink[AGENT_STDOUT].ended = spawn.stdout_null;
	a->sink[AGENT_STDERR].ended = spawn.stderr_null || spawn.pty;
	*ret = a;
	pump_source(a);
	return 0;
}

bool attach_wants_stdin(int fd)
{
	struct stat st;

	return !fstat(fd, &st) &&
	       (S_ISFIFO(st.st_mode) || S_ISREG(st.st_mode) || S_ISSOCK(st.st_mode));
}

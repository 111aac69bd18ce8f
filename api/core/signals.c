#include "api/core/signals.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>

struct signals {
	struct loop *loop;
	void (*fn)(void *ctx, int sig); /* NULL: freed by the owner */
	void *ctx;
	int sig_fd, sig_slot, parent_slot; /* -1: none */
	struct loop_op sig_op, parent_op;
	struct loop_task orphaned; /* the parent died before it could be watched */
};

static const int caught[] = { SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2 };
static sigset_t blocked;
static pid_t parent; /* 0: not watched */

static bool ignored(int sig)
{
	struct sigaction sa;

	return !sigaction(sig, NULL, &sa) && sa.sa_handler == SIG_IGN;
}

void signals_block(void)
{
	sigemptyset(&blocked);
	for (size_t i = 0; i < ARRAY_SIZE(caught); i++)
		if (!ignored(caught[i]))
			sigaddset(&blocked, caught[i]);
	sigprocmask(SIG_BLOCK, &blocked, NULL);
	signal(SIGPIPE, SIG_IGN);
	/* 0 also if the parent lives outside of our PID namespace */
	parent = ignored(SIGHUP) ? 0 : getppid();
}

static void free_if_idle(struct signals *s)
{
	if (s->fn || s->sig_op.busy || s->parent_op.busy)
		return;
	if (s->sig_slot >= 0)
		loop_remove_fd(s->loop, s->sig_slot);
	if (s->parent_slot >= 0)
		loop_remove_fd(s->loop, s->parent_slot);
	close_fd(&s->sig_fd);
	free(s);
}

static void sig_wait(struct signals *s)
{
	loop_poll(s->loop, &s->sig_op, s->sig_slot, POLLIN);
}

static void sig_done(struct loop_op *op, int res)
{
	struct signals *s = container_of(op, struct signals, sig_op);
	struct signalfd_siginfo info;

	if (!s->fn) {
		free_if_idle(s);
		return;
	}
	if (res < 0 && res != -EINTR)
		return;
	sig_wait(s);
	if (read(s->sig_fd, &info, sizeof(info)) == sizeof(info))
		s->fn(s->ctx, (int)info.ssi_signo);
}

static void parent_done(struct loop_op *op, int res)
{
	struct signals *s = container_of(op, struct signals, parent_op);

	if (!s->fn)
		free_if_idle(s);
	else if (res > 0)
		s->fn(s->ctx, SIGNALS_PARENT);
}

static void orphaned_run(struct loop_task *t)
{
	struct signals *s = container_of(t, struct signals, orphaned);

	s->fn(s->ctx, SIGNALS_PARENT);
}

static int watch_parent(struct signals *s, struct error *e)
{
	int fd = parent ? (int)syscall(SYS_pidfd_open, parent, 0) : -1;

	/* The number is the parent's only as long as it is our parent. */
	if (parent && getppid() != parent) {
		close_fd(&fd);
		loop_defer(s->loop, &s->orphaned);
		return 0;
	}
	if (fd < 0)
		return parent ? error_set(e, errno, "watching the parent process: %s",
					strerror(errno))
			      : 0;
	s->parent_slot = loop_add_fd(s->loop, fd);
	close(fd);
	if (s->parent_slot < 0)
		return error_set(e, -s->parent_slot, "watching the parent process: %s",
			strerror(-s->parent_slot));
	loop_poll(s->loop, &s->parent_op, s->parent_slot, POLLIN);
	return 0;
}

int signals_create(struct signals **ret, struct loop *l, void (*fn)(void *ctx, int sig), void *ctx,
	struct error *e)
{
	struct signals *s = calloc(1, sizeof(*s));
	int r;

	if (!s)
		return error_set(e, ENOMEM, "signals: out of memory");
	s->loop = l;
	s->fn = fn;
	s->ctx = ctx;
	s->sig_slot = s->parent_slot = -1;
	s->sig_op.done = sig_done;
	s->parent_op.done = parent_done;
	s->orphaned.run = orphaned_run;
	s->sig_fd = signalfd(-1, &blocked, SFD_CLOEXEC | SFD_NONBLOCK);
	s->sig_slot = s->sig_fd < 0 ? -errno : loop_add_fd(l, s->sig_fd);
	r = s->sig_slot < 0 ? error_set(e, -s->sig_slot, "signals: %s", strerror(-s->sig_slot))
			    : watch_parent(s, e);
	if (r) {
		s->sig_slot = MAX(s->sig_slot, -1);
		signals_free(s);
		return r;
	}
	sig_wait(s);
	*ret = s;
	return 0;
}

void signals_free(struct signals *s)
{
	if (!s)
		return;
	s->fn = NULL;
	loop_undefer(s->loop, &s->orphaned);
	loop_cancel(s->loop, &s->sig_op);
	loop_cancel(s->loop, &s->parent_op);
	free_if_idle(s);
}

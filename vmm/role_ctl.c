#include "vmm/role_ctl.h"

#include <errno.h>
#include <stdio.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>

#include "base/log.h"

static void say_hello(struct role_ctl *c)
{
	struct ctl_hello hello = { .version = CTL_VERSION, .pid = (uint32_t)getpid() };

	c->hello_seen = false;
	role_ctl_send(c, CTL_HELLO, &hello, sizeof(hello));
}

void role_ctl_send(struct role_ctl *c, uint16_t type, const void *body, uint32_t len)
{
	int err = c->fd < 0 ? 0 : ctl_send(c->fd, type, body, len, NULL, 0);

	if (err && err != -EPIPE && err != -ECONNRESET) /* gone: the loop will see its end */
		log_error("control channel: %s", strerror(-err));
}

static void close_fds(int fds[CTL_FDS_MAX])
{
	for (unsigned i = 0; i < CTL_FDS_MAX; i++)
		close_fd(&fds[i]);
}

/*
 * What the supervisor sent and nobody read would reach it as ECONNRESET, before the messages that wait for it, when
 * this end is closed.
 */
void role_ctl_hang_up(struct role_ctl *c)
{
	int fds[CTL_FDS_MAX], n;
	struct ctl_msg m;

	if (c->fd < 0 || shutdown(c->fd, SHUT_RD))
		return; /* no socket, or nobody there */
	while ((n = ctl_recv(c->fd, &m, fds)) == 1 || n == -EPROTO)
		if (n == 1)
			close_fds(fds);
}

/* ---- one supervisor after the other ---- */

static void lose(struct role_ctl *c, const char *fault)
{
	if (!fault[0] || c->listen_fd >= 0) { /* else it can still be told how this ended */
		role_ctl_hang_up(c);
		loop_remove_fd(c->loop, c->slot);
		close_fd(&c->fd);
	}
	if (c->listen_fd >= 0)
		loop_poll(c->loop, &c->listen_op, c->listen_slot, POLLIN);
	c->lost(c, fault);
}

/* False: the supervisor was lost. */
static bool dispatch(struct role_ctl *c, const struct ctl_msg *m, int fds[CTL_FDS_MAX])
{
	struct error e;

	if (c->hello_seen) {
		c->message(c, m, fds);
		return true;
	}
	c->hello_seen = !ctl_check_hello(m, &e);
	if (!c->hello_seen)
		lose(c, e.msg);
	return c->hello_seen;
}

static void readable(struct loop_op *op, int res)
{
	struct role_ctl *c = container_of(op, struct role_ctl, op);
	int fds[CTL_FDS_MAX], n;
	char fault[80];
	struct ctl_msg m;
	bool there = true;

	if (res == -ECANCELED)
		return;
	n = ctl_recv(c->fd, &m, fds);
	if (n == 1) {
		there = dispatch(c, &m, fds);
		close_fds(fds);
	} else if (n != -EAGAIN && n != -EINTR) {
		snprintf(fault, sizeof(fault), "control channel: %s", strerror(-n));
		lose(c, !n || n == -ECONNRESET ? "" : fault);
		there = false;
	}
	if (there)
		loop_poll(c->loop, op, c->slot, POLLIN);
}

static void connected(struct loop_op *op, int res)
{
	struct role_ctl *c = container_of(op, struct role_ctl, listen_op);
	int fd, slot;

	if (res == -ECANCELED)
		return;
	fd = accept4(c->listen_fd, NULL, NULL, SOCK_CLOEXEC);
	slot = fd < 0 ? -errno : loop_add_fd(c->loop, fd);
	if (slot < 0) {
		log_error("control channel: a new supervisor can't be served: %s", strerror(-slot));
		close_fd(&fd);
		loop_poll(c->loop, op, c->listen_slot, POLLIN);
		return;
	}
	c->fd = fd;
	c->slot = slot;
	say_hello(c);
	loop_poll(c->loop, &c->op, c->slot, POLLIN);
}

void role_ctl_init(struct role_ctl *c, int fd)
{
	c->fd = fd;
	c->listen_fd = -1;
	c->op.done = readable;
	c->listen_op.done = connected;
	say_hello(c);
}

int role_ctl_start(struct role_ctl *c, struct loop *loop, int listen_fd, struct error *e)
{
	c->listen_fd = listen_fd;
	c->slot = loop_add_fd(loop, c->fd);
	c->listen_slot = c->slot < 0 || listen_fd < 0 ? c->slot : loop_add_fd(loop, listen_fd);
	if (c->listen_slot < 0)
		return error_set(e, -c->listen_slot,
			"control channel: no place in the event loop: %s",
			strerror(-c->listen_slot));
	c->loop = loop;
	loop_poll(loop, &c->op, c->slot, POLLIN);
	return 0;
}

void role_ctl_stop(struct role_ctl *c)
{
	if (!c->loop)
		return;
	loop_cancel(c->loop, &c->op);
	loop_cancel(c->loop, &c->listen_op);
}

bool role_ctl_busy(const struct role_ctl *c)
{
	return c->op.busy || c->listen_op.busy;
}

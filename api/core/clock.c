/*
 * api/core/clock.c - a timer that never fires, but is cancelled when CLOCK_REALTIME jumps
 *
 * Spec:    timerfd_create(2), TFD_TIMER_CANCEL_ON_SET
 */
#include "api/core/clock.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/timerfd.h>
#include <time.h>

struct clock_watch {
	struct loop *loop;
	void (*stepped)(void *ctx, uint64_t unix_ns); /* NULL: freed by its owner */
	void *ctx;
	int fd, slot;
	struct loop_op op;
};

static void wait_for_step(struct clock_watch *w)
{
	loop_poll(w->loop, &w->op, w->slot, POLLIN);
}

static void free_if_idle(struct clock_watch *w)
{
	if (w->stepped || w->op.busy)
		return;
	loop_remove_fd(w->loop, w->slot);
	close(w->fd);
	free(w);
}

static void step_done(struct loop_op *op, int res)
{
	struct clock_watch *w = container_of(op, struct clock_watch, op);
	uint64_t expirations;
	struct timespec ts;

	if (!w->stepped) {
		free_if_idle(w);
		return;
	}
	if (res < 0 && res != -EINTR)
		return;
	wait_for_step(w);
	if (read(w->fd, &expirations, sizeof(expirations)) >= 0 || errno != ECANCELED ||
		clock_gettime(CLOCK_REALTIME, &ts))
		return;
	w->stepped(w->ctx, (uint64_t)ts.tv_sec * NSEC_PER_SEC + (uint64_t)ts.tv_nsec);
}

int clock_watch_create(struct clock_watch **ret, struct loop *l,
	void (*stepped)(void *ctx, uint64_t unix_ns), void *ctx, struct error *e)
{
	struct itimerspec never = { .it_value.tv_sec = INT32_MAX };
	autoclose int fd = timerfd_create(CLOCK_REALTIME, TFD_CLOEXEC | TFD_NONBLOCK);
	struct clock_watch *w;
	int slot;

	if (fd < 0 ||
		timerfd_settime(fd, TFD_TIMER_ABSTIME | TFD_TIMER_CANCEL_ON_SET, &never, NULL))
		return error_set(e, errno, "clock: %s", strerror(errno));
	w = calloc(1, sizeof(*w));
	if (!w)
		return error_set(e, ENOMEM, "clock: out of memory");
	slot = loop_add_fd(l, fd);
	if (slot < 0) {
		free(w);
		return error_set(e, -slot, "clock: %s", strerror(-slot));
	}
	w->loop = l;
	w->stepped = stepped;
	w->ctx = ctx;
	w->fd = take_fd(&fd);
	w->slot = slot;
	w->op.done = step_done;
	*ret = w;
	wait_for_step(w);
	return 0;
}

void clock_watch_free(struct clock_watch *w)
{
	if (!w)
		return;
	w->stepped = NULL;
	loop_cancel(w->loop, &w->op);
	free_if_idle(w);
}

#include "api/core/vmm_log.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "vmm/tokens.h"

#define READ_BYTES 4096
#define READS_MAX  16 /* in one turn of the loop; a pipe holds as many by default */

struct vmm_log {
	struct loop *loop;
	int fd, slot;
	bool freed;
	struct loop_op op;
	struct tokens tokens;
	unsigned long long left_out; /* lines not shown since the last that was */
	size_t len;
	char line[VMM_LOG_LINE]; /* the beginning of the one under way */
};

/* ---- lines ---- */

static void tell_left_out(struct vmm_log *g)
{
	if (g->left_out)
		log_warn(
			"%llu lines from the virtual machine's process were left out", g->left_out);
	g->left_out = 0;
}

static void end_line(struct vmm_log *g)
{
	char escaped[4 * VMM_LOG_LINE + 1];

	if (tokens_wait_ns(&g->tokens, loop_now_ns())) {
		g->left_out++;
	} else {
		tell_left_out(g);
		log_escape(escaped, sizeof(escaped), g->line, g->len);
		dprintf(STDERR_FILENO, "%s\n", escaped);
		tokens_take(&g->tokens, g->len + 1);
	}
	g->len = 0;
}

static void take(struct vmm_log *g, const char *data, size_t len)
{
	for (size_t i = 0; i < len; i++) {
		if (data[i] == '\n')
			end_line(g);
		else if (g->len < sizeof(g->line))
			g->line[g->len++] = data[i];
	}
}

/* True if there may be more, now or later. */
static bool read_some(struct vmm_log *g)
{
	char data[READ_BYTES];

	for (unsigned i = 0; i < READS_MAX; i++) {
		ssize_t n = read(g->fd, data, sizeof(data));

		if (n <= 0)
			return n < 0 && (errno == EAGAIN || errno == EINTR);
		take(g, data, (size_t)n);
	}
	return true;
}

void vmm_log_finish(struct vmm_log *g)
{
	if (!g)
		return;
	read_some(g);
	if (g->len)
		end_line(g);
	tell_left_out(g);
}

/* ---- life ---- */

static void free_if_idle(struct vmm_log *g)
{
	if (!g->freed || g->op.busy)
		return;
	loop_remove_fd(g->loop, g->slot);
	close_fd(&g->fd);
	free(g);
}

static void readable(struct loop_op *op, int res)
{
	struct vmm_log *g = container_of(op, struct vmm_log, op);

	if (g->freed)
		free_if_idle(g);
	else if (res == -EINTR || (res >= 0 && read_some(g)))
		loop_poll(g->loop, op, g->slot, POLLIN);
}

int vmm_log_create(struct vmm_log **ret, struct loop *l, int *ret_fd, struct error *e)
{
	struct vmm_log *g = calloc(1, sizeof(*g));
	int p[2], slot;

	if (!g)
		return error_set(e, ENOMEM, "log: out of memory");
	if (pipe2(p, O_CLOEXEC | O_NONBLOCK)) {
		free(g);
		return error_set(e, errno, "log: %s", strerror(errno));
	}
	slot = loop_add_fd(l, p[0]);
	if (slot < 0) {
		close(p[0]);
		close(p[1]);
		free(g);
		return error_set(e, -slot, "log: %s", strerror(-slot));
	}
	g->loop = l;
	g->fd = p[0];
	g->slot = slot;
	g->op.done = readable;
	tokens_init(&g->tokens, VMM_LOG_BYTES_PER_S, VMM_LOG_BURST, loop_now_ns());
	loop_poll(l, &g->op, slot, POLLIN);
	*ret_fd = p[1];
	*ret = g;
	return 0;
}

void vmm_log_free(struct vmm_log *g)
{
	if (!g)
		return;
	g->freed = true;
	loop_cancel(g->loop, &g->op);
	free_if_idle(g);
}

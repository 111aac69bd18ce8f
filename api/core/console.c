#include "api/core/console.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "base/log.h"

#define READ_BYTES 4096
#define LINE_BYTES 512

struct console {
	struct loop *loop;
	void (*closed)(void *ctx); /* NULL: freed by its owner */
	void *ctx;
	int slot;
	struct loop_op op;
	char in[READ_BYTES];
	char text[CONSOLE_BYTES]; /* the last bytes, in order */
	size_t len;
};

static void keep(struct console *c, const char *data, size_t len)
{
	size_t drop = c->len + len > sizeof(c->text) ? c->len + len - sizeof(c->text) : 0;

	memmove(c->text, c->text + drop, c->len - drop);
	memcpy(c->text + c->len - drop, data, len);
	c->len += len - drop;
}

static void free_if_idle(struct console *c)
{
	if (c->closed || c->op.busy)
		return;
	loop_remove_fd(c->loop, c->slot);
	free(c);
}

static void read_done(struct loop_op *op, int res)
{
	struct console *c = container_of(op, struct console, op);

	if (!c->closed) {
		free_if_idle(c);
		return;
	}
	if (res > 0)
		keep(c, c->in, (size_t)res);
	if (res > 0 || res == -EINTR || res == -EAGAIN)
		loop_read(c->loop, &c->op, c->slot, c->in, sizeof(c->in), LOOP_OFF_NONE);
	else
		c->closed(c->ctx);
}

int console_create(struct console **ret, struct loop *l, int *ret_fd, void (*closed)(void *ctx),
	void *ctx, struct error *e)
{
	struct console *c = calloc(1, sizeof(*c));
	int p[2], slot;

	if (!c)
		return error_set(e, ENOMEM, "console: out of memory");
	if (pipe2(p, O_CLOEXEC)) {
		free(c);
		return error_set(e, errno, "console: %s", strerror(errno));
	}
	slot = fcntl(p[1], F_SETFL, O_NONBLOCK) ? -errno : loop_add_fd(l, p[0]);
	close(p[0]);
	if (slot < 0) {
		close(p[1]);
		free(c);
		return error_set(e, -slot, "console: %s", strerror(-slot));
	}
	c->loop = l;
	c->closed = closed;
	c->ctx = ctx;
	c->slot = slot;
	c->op.done = read_done;
	*ret_fd = p[1];
	*ret = c;
	loop_read(l, &c->op, slot, c->in, sizeof(c->in), LOOP_OFF_NONE);
	return 0;
}

void console_free(struct console *c)
{
	if (!c)
		return;
	c->closed = NULL;
	loop_cancel(c->loop, &c->op);
	free_if_idle(c);
}

static const char *find(const struct console *c, const char *needle)
{
	return memmem(c->text, c->len, needle, strlen(needle));
}

bool console_contains(const struct console *c, const char *needle)
{
	return find(c, needle);
}

/* Where the @lines lines before @end begin. */
static size_t back(const struct console *c, size_t end, unsigned lines)
{
	while (end && lines) {
		end--;
		lines -= c->text[end] == '\n';
	}
	return end && c->text[end] == '\n' ? end + 1 : end;
}

static size_t first_line(const struct console *c, const char *from, unsigned lines)
{
	const char *at = from ? find(c, from) : NULL;
	size_t end = c->len;

	if (at)
		return back(c, (size_t)(at - c->text), 2);
	while (end && (c->text[end - 1] == '\n' || c->text[end - 1] == '\r'))
		end--;
	return back(c, end, lines);
}

void console_print(const struct console *c, const char *from, unsigned lines, FILE *f)
{
	char escaped[4 * LINE_BYTES];

	for (size_t i = first_line(c, from, lines), n; i < c->len && lines; i += n + 1) {
		const char *nl = memchr(c->text + i, '\n', c->len - i);
		size_t shown;

		n = nl ? (size_t)(nl - c->text) - i : c->len - i;
		shown = MIN(n, LINE_BYTES);
		while (shown && c->text[i + shown - 1] == '\r')
			shown--;
		if (!shown)
			continue;
		log_escape(escaped, sizeof(escaped), c->text + i, shown);
		fprintf(f, "  %s\n", escaped);
		lines--;
	}
}

/*
 * guest-init: a connection of the agent under whatever bytes a host may send
 *
 * No process is started and no signal sent: the agent's way to the system is replaced by one that
 * keeps the ends of the pipes and echoes through them. The first byte of the input chooses how it
 * is fed: bits 0 and 1 say hello first (binary, or not), bit 2 feeds single bytes, bit 3 is a
 * lasting connection, bit 4 makes each line a frame: "#" and a digit before the data of that
 * stream, else JSON. What comes out must be whole frames, JSON, and streams of the agreed range.
 */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <cjson/cJSON.h>
#include <signal.h>
#include <string.h>

#include "guest-init/agent_int.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define FAKES     8
#define FIRST_PID 1000000000 /* no kernel gives such */
#define ID_BASE   1000
#define ID_COUNT  16

static struct fake {
	pid_t pid; /* 0: free */
	int in, out, status;
	bool dying;
} fakes[FAKES];

static pid_t next_pid;

static int copy(int fd)
{
	int r = fcntl(fd, F_DUPFD_CLOEXEC, 3);

	assert(r >= 0);
	fcntl(r, F_SETFL, fcntl(r, F_GETFL) | O_NONBLOCK);
	return r;
}

static int fake_spawn(struct spawn *s, pid_t *ret)
{
	struct fake *f = fakes;

	/* Every string must be readable; the pointers end with NULL. */
	for (char **p = s->argv; *p; p++)
		assert(strlen(*p) < GP_FRAME_MAX);
	for (char **p = s->envp; *p; p++)
		assert(strchr(*p, '='));
	assert(strlen(s->cwd) < GP_FRAME_MAX && s->path && s->ngroups <= 64);
	while (f < fakes + FAKES && f->pid)
		f++;
	if (f == fakes + FAKES || s->argv[0][0] == '/') {
		s->stage = SPAWN_EXEC;
		s->err = ENOENT;
		return -ENOENT;
	}
	*f = (struct fake){ .pid = ++next_pid, .in = copy(s->fd[0]), .out = copy(s->fd[1]) };
	f->dying = s->argv[0][0] == 'x';
	*ret = f->pid;
	return 0;
}

static int fake_kill(pid_t pid, int sig)
{
	for (struct fake *f = fakes; f < fakes + FAKES; f++)
		if (f->pid && (f->pid == pid || f->pid == -pid)) {
			f->dying = true;
			f->status = sig; /* as waitpid(2) has it */
			return 0;
		}
	return -ESRCH;
}

static int fake_time(uint64_t unix_ns)
{
	return unix_ns % 2 ? -EPERM : 0;
}

static void end_fake(struct guest_agent *a, struct fake *f)
{
	pid_t pid = f->pid;

	close(f->in);
	close(f->out);
	f->pid = 0;
	proc_exited(a, pid, f->status);
}

static void run_fakes(struct guest_agent *a)
{
	char data[4096];

	for (struct fake *f = fakes; f < fakes + FAKES; f++) {
		ssize_t n = f->pid ? read(f->in, data, sizeof(data)) : -1;

		if (n > 0 && write(f->out, data, (size_t)n) != n)
			f->dying = true;
		if (f->pid && (f->dying || !n))
			end_fake(a, f);
	}
}

static struct guest_agent *agent(void)
{
	static struct guest_agent *a;
	struct guest_config c = { .log_fd = -1 };

	if (!a) {
		int r = guest_agent_create(&a, &c);

		assert(!r);
		a->sys = (struct guest_sys){ fake_spawn, fake_kill, fake_time };
		a->stdin_max = 1 << 20;
	}
	return a;
}

static struct conn *the_conn(struct guest_agent *a)
{
	return list_empty(&a->conns) ? NULL : list_entry(a->conns.next, struct conn, node);
}

/* Takes what the agent wants to send, and looks at it. */
static void drain(struct conn *c)
{
	const char *why;
	struct frame f;
	int n;

	while (buf_len(&c->out)) {
		n = frame_parse(buf_ptr(&c->out), buf_len(&c->out), &f, &why);
		assert(n > 0);
		if (f.kind == GP_JSON) {
			cJSON *j = cJSON_ParseWithLength((const char *)f.data, f.len);

			assert(j);
			cJSON_Delete(j);
		} else if (f.kind == GP_DATA) {
			assert(f.stream >= ID_BASE && f.stream < ID_BASE + ID_COUNT);
		}
		buf_consume(&c->out, (size_t)n);
	}
	conn_flush(c);
}

/* A piece of input and some turns of the loop. false: the connection has ended. */
static bool feed(struct guest_agent *a, const uint8_t *data, size_t len)
{
	struct conn *c = the_conn(a);
	int r;

	conn_input(c, data, len);
	for (int i = 0; i < 3; i++) {
		r = agent_turn(a, 0);
		assert(!r);
		c = the_conn(a);
		if (!c)
			return false;
		drain(c);
		run_fakes(a);
	}
	assert(c->stdin_bytes <= a->stdin_max && c->nunclaimed <= GUEST_UNCLAIMED);
	return true;
}

static void say_hello(struct guest_agent *a, bool binary)
{
	static const char *const hello[] = {
		"{\"jsonrpc\":\"2.0\",\"id\":0,\"method\":\"$skerry.hello\",\"params\":{\"version\":1,"
		"\"idBase\":1000,\"idCount\":16}}",
		"{\"jsonrpc\":\"2.0\",\"id\":0,\"method\":\"$skerry.hello\",\"params\":{\"version\":1,"
		"\"idBase\":1000,\"idCount\":16,\"binary\":true}}",
	};
	struct buf b;
	bool alive;

	buf_init(&b, 0);
	if (frame_put_json(&b, hello[binary], strlen(hello[binary])))
		abort();
	alive = feed(a, buf_ptr(&b), buf_len(&b));
	assert(alive && the_conn(a)->hello && the_conn(a)->binary == binary);
	buf_free(&b);
}

static bool feed_line(struct guest_agent *a, const uint8_t *line, size_t len)
{
	struct buf b;
	bool alive = true;
	int r;

	buf_init(&b, 0);
	if (len >= 2 && line[0] == '#')
		r = frame_put_data(&b, line[1] - '0', line + 2, len - 2);
	else
		r = frame_put_json(&b, line, len);
	if (!r)
		alive = feed(a, buf_ptr(&b), buf_len(&b));
	buf_free(&b);
	return alive;
}

static void feed_bytes(struct guest_agent *a, const uint8_t *data, size_t size, size_t step)
{
	bool alive = true;

	for (size_t at = 0; at < size && alive; at += step)
		alive = feed(a, data + at, MIN(step, size - at));
}

static void feed_lines(struct guest_agent *a, const uint8_t *data, size_t size)
{
	const uint8_t *at = data, *end = data + size, *eol;
	bool alive = true;

	while (at < end && alive) {
		eol = memchr(at, '\n', (size_t)(end - at));
		if (!eol)
			eol = end;
		alive = feed_line(a, at, (size_t)(eol - at));
		at = eol < end ? eol + 1 : end;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct guest_agent *a = agent();

	if (!size)
		return 0;
	next_pid = FIRST_PID;
	if (conn_create(a, -1, data[0] & 8 ? GUEST_CONN_LASTING : 0, false))
		abort();
	if (data[0] & 3)
		say_hello(a, data[0] & 1);
	if (data[0] & 16)
		feed_lines(a, data + 1, size - 1);
	else
		feed_bytes(a, data + 1, size - 1, data[0] & 4 ? 1 : FRAME_READ_SIZE);
	if (the_conn(a))
		conn_destroy(the_conn(a));
	for (struct fake *f = fakes; f < fakes + FAKES; f++)
		if (f->pid)
			end_fake(a, f);
	assert(!a->nconns && !a->nprocs && !a->nstreams);
	assert(list_empty(&a->queue) && list_empty(&a->held) && list_empty(&a->dirty));
	return 0;
}

/*
 * api/core/attach, agent and agent_link against the real agent, which runs here as a child process over a socketpair:
 * streams byte for byte, back pressure, readers that go away, statuses, signals, several processes at once.
 */
#include "api/core/agent_link.h"
#include "api/core/attach.h"
#include "base/guest_proto.h"
#include "guest-init/agent.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "tests/lib/test.h"

#define JOBS_MAX  64
#define LIMIT_NS  (60 * NSEC_PER_SEC)
#define BIG_BYTES (8 * MIB)

struct job {
	struct attach *attach;
	struct agent_spawn spawn;
	int out[2], err[2]; /* pipes */
	bool done, started;
	struct attach_result result;
};

static struct loop *loop;
static struct agent *agent;
static struct agent_link *link_;
static struct loop_timer limit;
static pid_t child;
static bool is_ready, is_closed;

/* ---- the world ---- */

static void on_ready(unused_arg struct agent *a, unused_arg void *ctx, const struct agent_hello *h)
{
	is_ready = true;
	CHECK_EQ(h->version, GP_VERSION);
	CHECK(h->init_ns <= h->ready_ns && h->ready_ns <= h->now_ns);
	loop_stop(loop);
}

static void on_flush(unused_arg struct agent *a, unused_arg void *ctx)
{
	if (link_)
		agent_link_flush(link_);
}

static void on_closed(unused_arg void *ctx, const struct error *e)
{
	if (e->code)
		fprintf(stderr, "link: %s\n", e->msg);
	is_closed = true;
	loop_stop(loop);
}

static void on_limit(unused_arg struct loop_timer *t)
{
	fprintf(stderr, "no end within 60 s\n");
	exit(1);
}

static const struct agent_ops ops = { .ready = on_ready, .flush = on_flush };

static _Noreturn void be_the_guest(int fd)
{
	struct guest_config c = { .init_ns = 1, .log_fd = 2 };
	struct guest_agent *a = NULL;

	signal(SIGPIPE, SIG_DFL); /* as PID 1 has it */
	_exit(guest_agent_create(&a, &c) || guest_agent_add_conn(a, fd, GUEST_CONN_LAST) ||
		guest_agent_run(a));
}

static void connect_guest(void)
{
	struct error e;
	int pair[2];

	REQUIRE(!socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair));
	child = fork();
	REQUIRE(child >= 0);
	if (!child) {
		close(pair[0]);
		be_the_guest(pair[1]);
	}
	close(pair[1]);
	REQUIRE(!loop_create(&loop, 64, &e) && !loop_start(loop, false, &e));
	REQUIRE(!agent_create(&agent, &ops, NULL));
	REQUIRE(!agent_link_create(&link_, loop, pair[0], agent, on_closed, NULL, &e));
	REQUIRE(!agent_hello(agent));
	limit.fire = on_limit;
	loop_timer_set(loop, &limit, loop_now_ns() + LIMIT_NS);
	REQUIRE(!loop_run(loop) && is_ready);
}

/* ---- jobs ---- */

static void job_done(void *ctx, const struct attach_result *r)
{
	struct job *j = ctx;

	CHECK(!j->done);
	j->done = true;
	j->result = *r;
	loop_stop(loop);
}

static void job_started(void *ctx)
{
	struct job *j = ctx;

	j->started = true;
}

static void start_to(struct job *j, const char *script, int in, int out, int err)
{
	const char *args[] = { "-c", script };
	struct attach_config c = {
		.loop = loop,
		.agent = agent,
		.spawn = &j->spawn,
		.fd = { in, out, err },
		.done = job_done,
		.started = job_started,
		.ctx = j,
	};
	struct error e;

	j->spawn.command = j->spawn.command ? j->spawn.command : "/bin/bash";
	j->spawn.args = args;
	j->spawn.nargs = script ? 2 : 0;
	REQUIRE(!attach_create(&j->attach, &c, &e));
	j->spawn.args = NULL;
}

/* Pipes large enough for what these tests print. */
static void start(struct job *j, const char *script, int in)
{
	REQUIRE(!pipe2(j->out, O_CLOEXEC) && !pipe2(j->err, O_CLOEXEC));
	start_to(j, script, in, j->out[1], j->err[1]);
	close(j->out[1]);
	close(j->err[1]);
}

static void finish(struct job *j)
{
	while (!j->done)
		REQUIRE(!loop_run(loop) && !is_closed);
	attach_free(j->attach);
	j->attach = NULL;
}

static void check_read(int fd, const char *want)
{
	char text[65536] = "";
	size_t n = 0;
	ssize_t r;

	REQUIRE(!fcntl(fd, F_SETFL, O_NONBLOCK));
	while ((r = read(fd, text + n, sizeof(text) - 1 - n)) > 0)
		n += (size_t)r;
	text[n] = '\0';
	CHECK_STR(text, want);
	close(fd);
}

static void expect(struct job *j, unsigned code, const char *out, const char *err)
{
	finish(j);
	CHECK_EQ(j->result.end, ATTACH_EXITED);
	CHECK_EQ(j->result.exit.code, code);
	CHECK(j->started);
	check_read(j->out[0], out);
	check_read(j->err[0], err);
}

/* ---- tests ---- */

static void test_basics(void)
{
	struct job a = { 0 }, b = { 0 }, c = { 0 };

	start(&a, "echo out; echo err >&2; exit 42", -1);
	expect(&a, 42, "out\n", "err\n");
	start(&b, "kill -TERM $$", -1);
	expect(&b, 128 + SIGTERM, "", "");
	CHECK_STR(b.result.exit.signal, "SIGTERM");
	start(&c, "cat; readlink /proc/self/fd/0", -1);
	expect(&c, 0, "/dev/null\n", "");
}

static void test_not_started(void)
{
	struct job a = { .spawn.command = "/no/such/file" }, b = { .spawn.command = "/etc/passwd" },
		   c = { .spawn.cwd = "/no/such/folder" };

	start(&a, NULL, -1);
	finish(&a);
	CHECK_EQ(a.result.end, ATTACH_FAILED);
	CHECK_STR(a.result.failure.code, "ENOENT");
	start(&b, NULL, -1);
	finish(&b);
	CHECK_EQ(b.result.end, ATTACH_FAILED);
	CHECK_STR(b.result.failure.code, "EACCES");
	start(&c, "true", -1);
	finish(&c);
	CHECK_EQ(c.result.end, ATTACH_FAILED);
	CHECK_STR(c.result.failure.code, "ENOENT");
	CHECK(strstr(c.result.failure.message, "chdir '/no/such/folder'"));
	CHECK(!a.started && !b.started && !c.started);
}

static int big_file(void)
{
	static uint8_t block[65536];
	int fd = memfd_create("big", MFD_CLOEXEC);

	REQUIRE(fd >= 0);
	for (size_t i = 0; i < BIG_BYTES / sizeof(block); i++) {
		for (size_t k = 0; k < sizeof(block); k += 4)
			memcpy(block + k, &(uint32_t){ (uint32_t)(i * 65537 + k * 2654435761u) },
				4);
		REQUIRE(write(fd, block, sizeof(block)) == sizeof(block));
	}
	REQUIRE(!lseek(fd, 0, SEEK_SET));
	return fd;
}

/* Everything arrives, in order, through a file, and as it is. */
static void test_big(void)
{
	int in = big_file(), out = memfd_create("out", MFD_CLOEXEC),
	    err = memfd_create("err", MFD_CLOEXEC);
	static char a[65536], b[65536];
	struct job j = { 0 };
	ssize_t n;
	off_t at;

	start_to(&j, "cat | tee /dev/stderr", in, out, err);
	finish(&j);
	CHECK_EQ(j.result.end, ATTACH_EXITED);
	CHECK_EQ(j.result.exit.code, 0);
	for (int pass = 0; pass < 2; pass++) {
		for (at = 0; (n = pread(in, a, sizeof(a), at)) > 0; at += n)
			CHECK(pread(pass ? err : out, b, sizeof(b), at) == n &&
				!memcmp(a, b, (size_t)n));
		CHECK_EQ(lseek(pass ? err : out, 0, SEEK_END), BIG_BYTES);
	}
	close(in);
	close(out);
	close(err);
}

/* Reads a pipe to its end from inside the loop. */
struct drain {
	struct loop_op op;
	int slot;
	size_t bytes;
	char data[65536];
};

static void drain_done(struct loop_op *op, int res)
{
	struct drain *d = container_of(op, struct drain, op);

	if (res <= 0) {
		loop_remove_fd(loop, d->slot);
		return;
	}
	d->bytes += (size_t)res;
	loop_read(loop, &d->op, d->slot, d->data, sizeof(d->data), LOOP_OFF_NONE);
}

static void drain(struct drain *d, int fd)
{
	d->op.done = drain_done;
	d->slot = loop_add_fd(loop, fd);
	REQUIRE(d->slot >= 0);
	close(fd);
	loop_read(loop, &d->op, d->slot, d->data, sizeof(d->data), LOOP_OFF_NONE);
}

/* Nobody reads: that process stands still, others go on, and a signal gets through. */
static void test_stopped_reader(void)
{
	static struct drain d;
	struct job stuck = { 0 };
	int bytes = 0;

	start(&stuck, "trap 'exit 7' TERM; cat /dev/zero & wait", -1);
	for (int i = 0; i < 3; i++) {
		struct job other = { 0 };

		start(&other, "sleep 0.1; echo alive", -1);
		expect(&other, 0, "alive\n", "");
	}
	REQUIRE(!ioctl(stuck.out[0], FIONREAD, &bytes));
	CHECK(bytes > 0 && !stuck.done);
	attach_signal(stuck.attach, SIGTERM);
	drain(&d, stuck.out[0]);
	finish(&stuck);
	CHECK_EQ(stuck.result.exit.code, 7);
	/* what was under way: pipes on both sides and the credit */
	CHECK(d.bytes > (size_t)bytes && d.bytes < MIB);
	check_read(stuck.err[0], "");
}

static void test_reader_gone(void)
{
	struct job j = { 0 };

	REQUIRE(!pipe2(j.out, O_CLOEXEC) && !pipe2(j.err, O_CLOEXEC));
	close(j.out[0]);
	start_to(&j, "yes; echo $? >&2", -1, j.out[1], j.err[1]);
	close(j.out[1]);
	close(j.err[1]);
	finish(&j);
	CHECK_EQ(j.result.exit.code, 0);
	check_read(j.err[0], "141\n");
}

static void test_write_error(void)
{
	int full = open("/dev/full", O_WRONLY | O_CLOEXEC);
	struct job j = { 0 };

	REQUIRE(full >= 0);
	start_to(&j, "echo x; sleep 70", -1, full, full);
	finish(&j);
	CHECK_EQ(j.result.end, ATTACH_ERROR);
	CHECK_STR(j.result.error.msg, "standard output: No space left on device");
	close(full);
}

/* Descriptors that somebody else made non-blocking. */
static void test_nonblocking(void)
{
	static struct drain d;
	struct job j = { 0 };
	int in[2];

	REQUIRE(!pipe2(j.out, O_CLOEXEC | O_NONBLOCK) && !pipe2(j.err, O_CLOEXEC | O_NONBLOCK));
	REQUIRE(!pipe2(in, O_CLOEXEC | O_NONBLOCK));
	start_to(&j, "head -c 1000000 /dev/zero; read x; echo $x >&2", in[0], j.out[1], j.err[1]);
	close(j.out[1]);
	close(j.err[1]);
	close(in[0]);
	REQUIRE(!fcntl(j.out[0], F_SETFL, 0)); /* this end may wait */
	drain(&d, j.out[0]);
	for (int i = 0; i < 3; i++) {
		struct job other = { 0 };

		start(&other, "sleep 0.1", -1);
		expect(&other, 0, "", "");
	}
	CHECK(!j.done);
	REQUIRE(write(in[1], "typed\n", 6) == 6);
	finish(&j);
	CHECK_EQ(j.result.exit.code, 0);
	CHECK_EQ(d.bytes, 1000000);
	check_read(j.err[0], "typed\n");
	close(in[1]);
}

/* A process that reads nothing doesn't wait for its input, nor we for the writer. */
static void test_unread_input(void)
{
	struct job j = { 0 };
	int in[2];

	REQUIRE(!pipe2(in, O_CLOEXEC));
	start(&j, "echo done", in[0]);
	expect(&j, 0, "done\n", "");
	close(in[0]);
	close(in[1]);
}

/* A child that holds the output open ends neither late nor never. */
static void test_left_behind(void)
{
	uint64_t start_ns = loop_now_ns();
	struct job a = { 0 }, b = { 0 };

	start(&a, "sleep 20 & echo done", -1);
	expect(&a, 0, "done\n", "");
	start(&b, "setsid sleep 20 & echo done", -1);
	expect(&b, 0, "done\n", "");
	CHECK(loop_now_ns() - start_ns < 20 * NSEC_PER_SEC);
}

static void test_signals(void)
{
	struct job early = { 0 }, group = { 0 };

	/* before it runs: kept until it does */
	start(&early, "sleep 70", -1);
	attach_signal(early.attach, SIGTERM);
	expect(&early, 128 + SIGTERM, "", "");
	/* the group: a child of the shell gets it too */
	start(&group, "trap 'wait; exit 5' INT; sleep 70 & trap - INT; kill -INT 0", -1);
	finish(&group);
	close(group.out[0]);
	close(group.err[0]);
}

static void test_many(void)
{
	static struct job jobs[JOBS_MAX];
	char text[32], script[JOBS_MAX][64];

	for (int i = 0; i < JOBS_MAX; i++) {
		snprintf(script[i], sizeof(script[i]), "sleep 0.2; echo %d; exit %d", i, i);
		start(&jobs[i], script[i], -1);
	}
	for (int i = 0; i < JOBS_MAX; i++) {
		snprintf(text, sizeof(text), "%d\n", i);
		expect(&jobs[i], (unsigned)i, text, "");
	}
}

/* Freed while everything is under way: no event, no leak, and the process goes on without a reader. */
static void test_freed(void)
{
	struct job j = { 0 }, next = { 0 };
	int in[2];

	REQUIRE(!pipe2(in, O_CLOEXEC));
	start(&j, "cat /dev/zero", in[0]);
	start(&next, "sleep 0.1", -1);
	expect(&next, 0, "", "");
	attach_free(j.attach);
	memset(&next, 0, sizeof(next));
	start(&next, "sleep 0.1", -1);
	expect(&next, 0, "", "");
	CHECK(!j.done);
	close(j.out[0]);
	close(j.err[0]);
	close(in[0]);
	close(in[1]);
}

static void on_turn(unused_arg struct loop_timer *t)
{
	loop_stop(loop);
}

static void disconnect_guest(void)
{
	struct loop_timer turn = { .fire = on_turn };
	int status = -1;

	agent_link_close(link_);
	agent_destroy(agent);
	loop_timer_clear(loop, &limit);
	loop_timer_set(loop, &turn, loop_now_ns() + 50 * NSEC_PER_MSEC);
	REQUIRE(!loop_run(loop));
	loop_destroy(loop);
	/* the end of the connection ends the agent */
	REQUIRE(waitpid(child, &status, 0) == child);
	CHECK(WIFEXITED(status) && !WEXITSTATUS(status));
}

int main(void)
{
	signal(SIGPIPE, SIG_IGN);
	connect_guest();
	test_basics();
	test_not_started();
	test_big();
	test_stopped_reader();
	test_reader_gone();
	test_write_error();
	test_nonblocking();
	test_unread_input();
	test_left_behind();
	test_signals();
	test_many();
	test_freed();
	disconnect_guest();
	TEST_END();
}

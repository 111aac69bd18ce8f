/* api/core: console tail, signals and the parent, boot trace. */
#include "api/core/console.h"
#include "api/core/signals.h"
#include "api/core/trace.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "tests/lib/test.h"

static struct loop *loop;
static struct loop_timer limit;
static unsigned calls;
static int last_sig = -1;

static void on_limit(unused_arg struct loop_timer *t)
{
	fprintf(stderr, "no event within 20 s\n");
	exit(1);
}

static void on_turn(unused_arg struct loop_timer *t)
{
	loop_stop(loop);
}

static void make_loop(void)
{
	struct error e;

	REQUIRE(!loop_create(&loop, 16, &e) && !loop_start(loop, false, &e));
	limit.fire = on_limit;
	loop_timer_set(loop, &limit, loop_now_ns() + 20 * NSEC_PER_SEC);
}

/* Lets cancelled operations complete, so that nothing is left of what was freed. */
static void drop_loop(void)
{
	struct loop_timer turn = { .fire = on_turn };

	loop_timer_clear(loop, &limit);
	loop_timer_set(loop, &turn, loop_now_ns() + 20 * NSEC_PER_MSEC);
	REQUIRE(!loop_run(loop));
	loop_destroy(loop);
}

/* ---- console ---- */

static void on_closed(unused_arg void *ctx)
{
	calls++;
	loop_stop(loop);
}

static char *printed(const struct console *c, const char *from, unsigned lines)
{
	char *text = NULL;
	size_t len = 0;
	FILE *f = open_memstream(&text, &len);

	REQUIRE(f);
	console_print(c, from, lines, f);
	REQUIRE(!fclose(f));
	return text;
}

static void expect_tail(const char *said, size_t len, unsigned lines, const char *want)
{
	struct console *c = NULL;
	struct error e;
	char *text;
	int fd = -1;

	calls = 0;
	REQUIRE(!console_create(&c, loop, &fd, on_closed, NULL, &e));
	while (len) {
		size_t n = MIN(len, (size_t)4096);

		REQUIRE(write(fd, said, n) == (ssize_t)n);
		said += n;
		len -= n;
	}
	close(fd);
	REQUIRE(!loop_run(loop));
	CHECK_EQ(calls, 1);
	text = printed(c, NULL, lines);
	CHECK_STR(text, want);
	free(text);
	console_free(c);
}

static void test_console(void)
{
	static char big[40000];
	struct console *c = NULL;
	struct error e;
	int fd = -1;

	make_loop();
	expect_tail("", 0, 3, "");
	expect_tail("one", 3, 3, "  one\n");
	expect_tail("1\r\n2\r\n\r\n3\r\n4\r\n", 14, 2, "  3\n  4\n");
	expect_tail("1\n2\n3\n\n\n", 8, 2, "  2\n  3\n");
	expect_tail("a\0b\033[2J\x9b\xff\r\n", 11, 2, "  a\\x00b\\x1b[2J\\x9b\\xff\n");
	/* only the end is kept, in order, and a line may be as long as it likes */
	memset(big, 'x', sizeof(big));
	memcpy(big + sizeof(big) - 6, "\nlast\n", 6);
	expect_tail(big, sizeof(big), 1, "  last\n");
	CHECK(!console_create(&c, loop, &fd, on_closed, NULL, &e));
	console_free(c); /* with its writer still there */
	close(fd);
	drop_loop();
}

static void test_console_contains(void)
{
	static const char said[] = "1\n2\nwhy\nnoise\0Kernel panic - not syncing: x\na\r\nb\nc\n";
	char *text;
	struct console *c = NULL;
	struct error e;
	int fd = -1;

	make_loop();
	REQUIRE(!console_create(&c, loop, &fd, on_closed, NULL, &e));
	REQUIRE(write(fd, said, sizeof(said) - 1) == sizeof(said) - 1);
	close(fd);
	REQUIRE(!loop_run(loop));
	CHECK(console_contains(c, "Kernel panic - not syncing"));
	CHECK(!console_contains(c, "Out of memory"));
	text = printed(c, "Kernel panic", 4);
	CHECK_STR(text, "  why\n  noise\\x00Kernel panic - not syncing: x\n  a\n  b\n");
	free(text);
	text = printed(c, "1", 1);
	CHECK_STR(text, "  1\n");
	free(text);
	text = printed(c, "not there", 2);
	CHECK_STR(text, "  b\n  c\n");
	free(text);
	console_free(c);
	drop_loop();
}

/* ---- signals ---- */

static void on_signal(unused_arg void *ctx, int sig)
{
	last_sig = sig;
	calls++;
	loop_stop(loop);
}

static int wait_signal(void)
{
	last_sig = -1;
	REQUIRE(!loop_run(loop));
	return last_sig;
}

/* In a child, because what is blocked and who the parent is concern the whole process. */
static void in_child(void (*fn)(int fd))
{
	int pair[2], status = -1;
	pid_t pid;

	REQUIRE(!socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair));
	pid = fork();
	REQUIRE(pid >= 0);
	if (!pid) {
		close(pair[0]);
		fn(pair[1]);
		_exit(test_failures ? 1 : 0);
	}
	close(pair[1]);
	REQUIRE(waitpid(pid, &status, 0) == pid);
	CHECK(WIFEXITED(status) && !WEXITSTATUS(status));
	/* grandchildren say here how they fared */
	char verdict = 0;

	while (read(pair[0], &verdict, 1) == 1)
		CHECK_EQ(verdict, 'k');
	close(pair[0]);
}

static void check_signals(unused_arg int fd)
{
	static const int sigs[] = { SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2 };
	struct signals *s = NULL;
	struct error e;

	for (size_t i = 0; i < ARRAY_SIZE(sigs); i++)
		signal(sigs[i], SIG_DFL); /* a shell's background jobs begin with some ignored */
	signal(SIGUSR2, SIG_IGN);
	signals_block();
	raise(SIGTERM); /* before anybody waits: kept */
	make_loop();
	REQUIRE(!signals_create(&s, loop, on_signal, NULL, &e));
	CHECK_EQ(wait_signal(), SIGTERM);
	for (size_t i = 0; i < ARRAY_SIZE(sigs) - 1; i++) {
		raise(sigs[i]);
		CHECK_EQ(wait_signal(), sigs[i]);
	}
	raise(SIGUSR2); /* was ignored, stays so */
	raise(SIGINT);
	CHECK_EQ(wait_signal(), SIGINT);
	signals_free(s);
	calls = 0;
	drop_loop();
	CHECK_EQ(calls, 0);
}

/* The parent of a grandchild ends: before or after it is watched. */
static void orphan(int fd, bool early, bool nohup)
{
	struct signals *s = NULL;
	struct error e;
	int gate[2], done[2];
	char c = 0;

	REQUIRE(!pipe2(gate, O_CLOEXEC) && !pipe2(done, O_CLOEXEC));
	if (fork()) {
		close(done[1]);
		REQUIRE(read(done[0], &c, 1) == 1);
		_exit(0); /* the pipe's end tells the child */
	}
	close(gate[1]);
	signal(SIGHUP, nohup ? SIG_IGN : SIG_DFL);
	signals_block();
	make_loop();
	if (early) {
		REQUIRE(write(done[1], "x", 1) == 1 && read(gate[0], &c, 1) == 0);
		usleep(20000);
	}
	REQUIRE(!signals_create(&s, loop, on_signal, NULL, &e));
	if (!early)
		REQUIRE(write(done[1], "x", 1) == 1 && read(gate[0], &c, 1) == 0);
	if (nohup) {
		calls = 0;
		drop_loop();
		c = calls ? 'x' : 'k';
	} else {
		c = wait_signal() == SIGNALS_PARENT ? 'k' : 'x';
	}
	REQUIRE(write(fd, &c, 1) == 1);
	_exit(0);
}

static void check_orphan(int fd)
{
	orphan(fd, false, false);
}

static void check_early_orphan(int fd)
{
	orphan(fd, true, false);
}

static void check_nohup(int fd)
{
	orphan(fd, false, true);
}

/* ---- trace ---- */

static void test_trace(void)
{
	struct trace t = { 0 };
	char *text = NULL;
	size_t len = 0;
	FILE *f = open_memstream(&text, &len);

	REQUIRE(f);
	trace_mark(&t, TRACE_START, 1000000);
	trace_mark(&t, TRACE_VMM_MAIN, 1500999);
	trace_mark(&t, TRACE_VMM_MAIN, 9999999); /* the first counts */
	trace_mark(&t, TRACE_EXIT, 3000000);
	trace_print(&t, true, f);
	REQUIRE(!fclose(f));
	CHECK_STR(text,
		"{\"unit\":\"us\",\"phases\":{\"start\":0,\"vmm_main\":500,\"exit\":2000}}\n");
	free(text);
}

int main(void)
{
	test_console();
	test_console_contains();
	in_child(check_signals);
	in_child(check_orphan);
	in_child(check_early_orphan);
	in_child(check_nohup);
	test_trace();
	TEST_END();
}

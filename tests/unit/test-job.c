/* api/store/job: what a program says and returns, and that nothing of it survives, however it or we end. */
#include "api/store/job.h"
#include "api/store/object.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "tests/lib/test.h"

#define GONE_MS 10000

static char base[] = "/tmp/skerry-test-job.XXXXXX";
static struct job_host host;

struct heard {
	char text[4096];
	unsigned lines, ticks;
	int raise_at; /* this many lines: SIGINT to ourselves */
};

static void hear(void *ctx, const char *line)
{
	struct heard *h = ctx;
	size_t used;

	if (!line) {
		h->ticks++;
		return;
	}
	used = strlen(h->text);
	snprintf(h->text + used, sizeof(h->text) - used, "%s|", line);
	if (++h->lines == (unsigned)h->raise_at)
		kill(getpid(), SIGINT);
}

static int run_sh(const char *script, bool own_root, struct heard *h, struct error *e)
{
	const char *const argv[] = { "sh", "-c", script, NULL };
	struct job job = {
		.argv = argv, .package = "dash", .own_root = own_root, .line = hear, .ctx = h
	};

	return job_run(&host, &job, e);
}

static void test_output(bool own_root)
{
	struct heard h = { 0 };
	struct error e = { 0 };

	CHECK_EQ(
		run_sh("echo a; echo b >&2; read x || echo no input; printf 'one\\rtwo\\n\\nend'; exit 3",
			own_root, &h, &e),
		3);
	CHECK_STR(h.text, "a|b|no input|one|two|end|");
	CHECK_EQ(run_sh("kill -9 $$", own_root, &h, &e), 128 + SIGKILL);
	memset(&h, 0, sizeof(h));
	CHECK_EQ(
		run_sh("echo $LC_ALL $DEBIAN_FRONTEND; command -v mke2fs >/dev/null || echo no sbin; umask",
			own_root, &h, &e),
		0);
	CHECK_STR(h.text, "C.UTF-8 noninteractive|0022|");
	/* much output, and a line that is too long */
	memset(&h, 0, sizeof(h));
	CHECK_EQ(run_sh("head -c 3000 /dev/zero | tr '\\0' x; echo; seq 20000", own_root, &h, &e),
		0);
	CHECK_EQ(h.lines, 20001);
	CHECK_EQ(strspn(h.text, "x"), JOB_LINE_MAX - 1);
}

static void test_not_found(void)
{
	const char *const argv[] = { "no-such-program", NULL };
	struct job job = { .argv = argv, .package = "no-such-package", .line = hear };
	struct error e = { 0 };

	CHECK_EQ(job_run(&host, &job, &e), -ENOENT);
	CHECK_STR(e.msg,
		"no-such-program: is not installed; run: sudo apt-get install no-such-package");
}

/* Whatever has the FIFO open for writing lives. */
static int open_fifo(char script[512], const char *rest)
{
	char path[128];
	int fd;

	snprintf(path, sizeof(path), "%s/fifo", base);
	unlink(path);
	REQUIRE(!mkfifo(path, 0600));
	fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	REQUIRE(fd >= 0);
	snprintf(script, 512, "exec 9>%s; %s", path, rest);
	return fd;
}

static bool is_gone(int fifo)
{
	struct pollfd p = { .fd = fifo, .events = POLLIN };
	char c;

	return poll(&p, 1, GONE_MS) == 1 && read(fifo, &c, 1) == 0;
}

#define ORPHANS "(setsid sleep 1000 & (sleep 1000 & exec sleep 1000) & exit) ; "

/* A program that leaves others behind: its end is theirs. */
static void test_leftovers(bool own_root)
{
	char script[512];
	int fifo = open_fifo(script, ORPHANS "echo done");
	struct heard h = { 0 };

	CHECK_EQ(run_sh(script, own_root, &h, NULL), 0);
	CHECK_STR(h.text, "done|");
	CHECK(is_gone(fifo));
	close(fifo);
}

static void test_interrupt(bool own_root)
{
	char script[512];
	int fifo = open_fifo(
		script, "trap '' TERM INT HUP; " ORPHANS "echo go; sleep 1000; sleep 1000");
	struct heard h = { .raise_at = 1 };
	struct error e = { 0 };

	CHECK_EQ(run_sh(script, own_root, &h, &e), -EINTR);
	CHECK_EQ(host.caught, SIGINT);
	CHECK(is_gone(fifo));
	close(fifo);
	/* once asked to stop, nothing new is started */
	CHECK_EQ(run_sh("true", own_root, &h, &e), -EINTR);
	host.caught = 0;
}

/* kill -9 of the process that runs the job */
static void test_parent_killed(bool own_root)
{
	char script[512], c;
	int fifo = open_fifo(
		script, "trap '' TERM INT HUP; " ORPHANS "echo x >&9; sleep 1000; sleep 1000");
	struct pollfd p = { .fd = fifo, .events = POLLIN };
	pid_t pid = fork();

	REQUIRE(pid >= 0);
	if (!pid) {
		struct heard h = { 0 };

		_exit(run_sh(script, own_root, &h, NULL) != 0);
	}
	REQUIRE(poll(&p, 1, GONE_MS) == 1 && read(fifo, &c, 1) == 1 && read(fifo, &c, 1) == 1);
	CHECK_EQ(kill(pid, SIGKILL), 0);
	CHECK_EQ(waitpid(pid, NULL, 0), pid);
	CHECK(is_gone(fifo));
	close(fifo);
}

/* It may mount, and the mount goes with it; files belong to whom it says. */
static void test_own_root(void)
{
	char script[512];
	struct heard h = { 0 };
	struct error e = { 0 };

	snprintf(script, sizeof(script),
		"cd %s && mkdir m && mount -t tmpfs t m && touch m/x && id -u && install -o 1000 -g 5 /dev/null f && "
		"stat -c %%u:%%g f && rm f",
		base);
	CHECK_EQ(run_sh(script, true, &h, &e), 0);
	CHECK_STR(h.text, "0|1000:5|");
	snprintf(script, sizeof(script), "%s/m/x", base);
	CHECK(access(script, F_OK));
}

static void test_ranges(void)
{
	static const char text[] =
		"# c\nroot:1:65536\na:100000:65536\nab:200000:70000\n7:300000:65536\n"
		"small:1:1000\nsmall:400000:65536\nbad:x:y\nhuge:4294967295:65536\nlast:500000:65536";
	struct job_range r = { 0 };

	CHECK(job_find_range(text, "a", 5, &r) && r.first == 100000 && r.count == 65536);
	CHECK(job_find_range(text, "ab", 5, &r) && r.first == 200000 && r.count == 70000);
	CHECK(job_find_range(text, "x", 7, &r) && r.first == 300000);
	CHECK(job_find_range(text, NULL, 7, &r));
	CHECK(job_find_range(text, "small", 5, &r) && r.first == 400000);
	CHECK(job_find_range(text, "last", 5, &r) && r.first == 500000);
	CHECK(!job_find_range(text, "bad", 5, &r));
	CHECK(!job_find_range(text, "huge", 5, &r));
	CHECK(!job_find_range(text, "b", 5, &r));
	CHECK(!job_find_range("", "b", 5, &r));
}

static void test_all(bool own_root)
{
	test_output(own_root);
	test_leftovers(own_root);
	test_interrupt(own_root);
	test_parent_killed(own_root);
}

int main(void)
{
	struct heard h = { 0 };
	struct error e = { 0 };

	REQUIRE(mkdtemp(base));
	REQUIRE(!job_host_init(&host, &e));
	test_ranges();
	test_not_found();
	test_all(false);
	if (run_sh("true", true, &h, &e) == 0) {
		test_all(true);
		test_own_root();
	} else {
		fprintf(stderr, "%s\n", e.msg);
		object_remove_tree(AT_FDCWD, base);
		SKIP("no user namespace with subordinate ids");
	}
	CHECK_EQ(object_remove_tree(AT_FDCWD, base), 0);
	TEST_END();
}

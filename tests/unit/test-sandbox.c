/*
 * api/core/sandbox and api/cli/run_session against a vmm process that a guest has taken over: it says what it likes
 * on its descriptors, or nothing. This program, executed anew, is that process; no machine is made.
 */
#include "api/cli/command.h"
#include "api/cli/run_session.h"

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "base/ctl.h"
#include "base/frame.h"
#include "base/process.h"
#include "tests/lib/elf_image.h"
#include "tests/lib/test.h"
#include "vmm/config.h"

#define LIMIT_S     20 /* for one session; SIGALRM ends it */
#define FLOODERS    3
#define FLOOD_BYTES (4 * MIB)
#define SHOWN_MAX   (256 * KIB)
#define CLEAR       "\033[2J\007"

static char kernel[] = "/tmp/skerry-test-kernel.XXXXXX", image[] = "/tmp/skerry-test-image.XXXXXX";

/* ---- the vmm ---- */

static _Noreturn void sleep_for_ever(void)
{
	for (;;)
		pause();
}

static void say_hello(void)
{
	struct ctl_hello hello = { .version = CTL_VERSION };

	REQUIRE(!ctl_send(ROLE_FD_CTL, CTL_HELLO, &hello, sizeof(hello), NULL, 0));
}

static void say_exit(void)
{
	struct ctl_exit x = { .why = VM_EXIT_POWEROFF };

	REQUIRE(!ctl_send(ROLE_FD_CTL, CTL_EXIT, &x, sizeof(x), NULL, 0));
}

/* The agent's end of the connection that the supervisor hands out. */
static int take_agent_fd(void)
{
	struct pollfd p = { .fd = ROLE_FD_CTL, .events = POLLIN };
	int fds[CTL_FDS_MAX];
	struct ctl_msg m;

	for (;;) {
		REQUIRE(poll(&p, 1, -1) == 1);
		REQUIRE(ctl_recv(ROLE_FD_CTL, &m, fds) == 1);
		if (m.type == CTL_VSOCK_ACCEPT)
			return fds[0];
	}
}

/* An agent that is there, and answers nothing else. */
static _Noreturn void be_mute(void)
{
	static const char hello[] = "{\"id\":1,\"result\":{\"ok\":{\"version\":1,\"initNs\":1,"
				    "\"readyNs\":2,\"nowNs\":3}}}";
	struct buf out;
	int fd = take_agent_fd();

	buf_init(&out, 0);
	REQUIRE(!frame_put_json(&out, hello, strlen(hello)));
	REQUIRE(write(fd, buf_ptr(&out), buf_len(&out)) == (ssize_t)buf_len(&out));
	sleep_for_ever();
}

static void *flood(void *arg)
{
	struct ctl_phase p = { .id = PHASE_EXEC };

	while (!ctl_send(ROLE_FD_CTL, CTL_PHASE, &p, sizeof(p), NULL, 0))
		;
	return arg;
}

/* Messages faster than they are read. */
static _Noreturn void be_chatty(void)
{
	int flags = fcntl(ROLE_FD_CTL, F_GETFL);
	pthread_t t;

	REQUIRE(!fcntl(ROLE_FD_CTL, F_SETFL, flags & ~O_NONBLOCK));
	for (int i = 0; i < FLOODERS; i++)
		REQUIRE(!pthread_create(&t, NULL, flood, NULL));
	sleep_for_ever();
}

/* Its log must lead to no terminal or file of the user. */
static _Noreturn void be_loud(void)
{
	static const char text[] = "cannot " CLEAR "\n", line[] = "again and again and again\n";
	struct pollfd p = { .fd = ROLE_FD_LOG, .events = POLLOUT };
	struct stat st;
	char c;

	if (fstat(ROLE_FD_LOG, &st) || !S_ISFIFO(st.st_mode) || read(ROLE_FD_LOG, &c, 1) != -1 ||
		errno != EBADF)
		dprintf(ROLE_FD_LOG, "not a pipe for writing only\n");
	REQUIRE(write(ROLE_FD_LOG, text, strlen(text)) > 0);
	for (size_t n = 0; n < FLOOD_BYTES; n += strlen(line))
		if (write(ROLE_FD_LOG, line, strlen(line)) < 0)
			poll(&p, 1, -1);
	poll(NULL, 0, 100);
	REQUIRE(write(ROLE_FD_LOG, "the end", 7) > 0);
	say_exit();
	_exit(0);
}

static int be_vmm(const char *name)
{
	say_hello();
	if (!strcmp(name, "mute"))
		be_mute();
	if (!strcmp(name, "chatty"))
		be_chatty();
	be_loud();
}

/* ---- the supervisor ---- */

static int session(const char *name, uint64_t timeout_ns, uint64_t boot_timeout_ns)
{
	struct run_params p = {
		.sandbox = {
			.name = name,
			.kernel = kernel,
			.image = image,
			.cpus = 1,
			.memory = 64 * MIB,
			.boot_timeout_ns = boot_timeout_ns,
			.best = CONFINE_NONE,
			.least = CONFINE_NONE,
		},
		.spawn = { .command = "true" },
		.quiet = true,
		.timeout_ns = timeout_ns,
		.start_ns = loop_now_ns(),
	};
	int status = 0;
	pid_t pid = fork();

	REQUIRE(pid >= 0);
	if (!pid) {
		alarm(LIMIT_S);
		_exit(run_session(&p));
	}
	REQUIRE(waitpid(pid, &status, 0) == pid);
	return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

/* --timeout holds although the guest never says that the command runs. */
static void test_mute(void)
{
	CHECK_EQ(session("mute", 200 * NSEC_PER_MSEC, 60 * NSEC_PER_SEC), CLI_TIMEOUT);
}

/* Deadlines hold although messages never end. */
static void test_chatty(void)
{
	CHECK_EQ(session("chatty", 0, 500 * NSEC_PER_MSEC), CLI_ERROR);
}

static void test_loud(void)
{
	static char shown[SHOWN_MAX];
	int fd = memfd_create("stderr", MFD_CLOEXEC), saved = dup(STDERR_FILENO);
	ssize_t n;

	REQUIRE(fd >= 0 && saved >= 0 && dup2(fd, STDERR_FILENO) >= 0);
	CHECK_EQ(session("loud", 0, 60 * NSEC_PER_SEC), CLI_ERROR);
	REQUIRE(dup2(saved, STDERR_FILENO) >= 0);
	n = pread(fd, shown, sizeof(shown) - 1, 0);
	CHECK(n > 0 && (size_t)n < sizeof(shown) - 1);
	CHECK(!strchr(shown, '\033') && !strchr(shown, '\007'));
	CHECK(strstr(shown, "cannot \\x1b[2J\\x07\n"));
	CHECK(strstr(shown, "again and again and again\n"));
	CHECK(strstr(shown, "left out"));
	CHECK(!strstr(shown, "not a pipe"));
	CHECK(strstr(shown, "powered itself off"));
	close(fd);
	close(saved);
}

static void make_files(void)
{
	static const uint8_t magic[] = { 0x53, 0xef };
	static struct elf_image elf;
	int k = mkstemp(kernel), i = mkstemp(image);

	elf_image_fill(&elf, MIB, "\xf4", 1, 1);
	REQUIRE(k >= 0 && write(k, &elf, sizeof(elf)) == sizeof(elf));
	REQUIRE(i >= 0 && !ftruncate(i, 8192));
	REQUIRE(pwrite(i, magic, sizeof(magic), 1024 + 0x38) == sizeof(magic));
	close(k);
	close(i);
}

int main(int argc, char **argv)
{
	struct error e = { 0 };

	if (argc > 1 && !strcmp(argv[0], "skerry-vmm"))
		return be_vmm(argv[1]);
	if (access("/dev/kvm", R_OK | W_OK))
		SKIP("/dev/kvm can't be opened");
	signal(SIGPIPE, SIG_IGN);
	REQUIRE(!process_init(&e));
	make_files();
	test_mute();
	test_chatty();
	test_loud();
	unlink(kernel);
	unlink(image);
	TEST_END();
}

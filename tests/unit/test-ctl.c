/* base/ctl: every message there and back; what must be refused is, and no descriptor leaks. */
#include <dirent.h>
#include <fcntl.h>
#include <sys/socket.h>

#include "base/ctl.h"
#include "base/fdpass.h"
#include "tests/lib/test.h"

static int pair[2];

static int open_fds(void)
{
	DIR *d = opendir("/proc/self/fd");
	int n = 0;

	REQUIRE(d);
	while (readdir(d))
		n++;
	closedir(d);
	return n;
}

/* Send @n bytes of @m as they are, with @nfds descriptors. */
static int inject(const void *m, size_t n, unsigned nfds)
{
	int fds[FDPASS_MAX];

	for (unsigned i = 0; i < nfds; i++)
		fds[i] = pair[0];
	return fdpass_send(pair[0], m, n, fds, nfds);
}

static void expect_refused(const struct ctl_msg *m, size_t n, unsigned nfds)
{
	struct ctl_msg got = { .type = 99 };
	int fds[CTL_FDS_MAX], before = open_fds();

	REQUIRE(!inject(m, n, nfds));
	CHECK_EQ(ctl_recv(pair[1], &got, fds), -EPROTO);
	CHECK_EQ(got.type, 99); /* an output is written only on success */
	for (unsigned i = 0; i < CTL_FDS_MAX; i++)
		CHECK_EQ(fds[i], -1);
	CHECK_EQ(open_fds(), before);
}

static void every_type(void)
{
	static const struct {
		uint16_t type;
		uint32_t len;
	} types[] = {
		{ CTL_HELLO, sizeof(struct ctl_hello) },
		{ CTL_VSOCK_CONNECT, sizeof(struct ctl_vsock) },
		{ CTL_VSOCK_ACCEPT, sizeof(struct ctl_vsock) },
		{ CTL_BALLOON, sizeof(struct ctl_balloon) },
		{ CTL_QUIT, 0 },
		{ CTL_PROBE, sizeof(struct ctl_probe) },
		{ CTL_PHASE, sizeof(struct ctl_phase) },
		{ CTL_EXIT, sizeof(struct ctl_exit) },
		{ CTL_PROBE_RESULT, sizeof(struct ctl_probe_result) },
	};

	for (size_t i = 0; i < ARRAY_SIZE(types); i++) {
		unsigned nfds = ctl_nfds(types[i].type);
		uint8_t body[CTL_MSG_MAX] = { 0 };
		struct ctl_msg m;
		int fds[CTL_FDS_MAX], before = open_fds();

		for (unsigned j = 0; j < types[i].len; j++)
			body[j] = (uint8_t)(j + 1);
		body[types[i].len ? types[i].len - 1 : 0] = 0; /* ends the text of CTL_EXIT */
		CHECK_EQ(ctl_send(pair[0], types[i].type, body, types[i].len, pair, nfds), 0);
		CHECK_EQ(ctl_recv(pair[1], &m, fds), 1);
		CHECK_EQ(m.type, types[i].type);
		CHECK_EQ(m.len, types[i].len);
		CHECK(!memcmp(m.u.raw, body, types[i].len));
		CHECK_EQ(open_fds(), before + (int)nfds);
		for (unsigned j = 0; j < CTL_FDS_MAX; j++) {
			CHECK_EQ(fds[j] >= 0, j < nfds);
			if (fds[j] >= 0)
				CHECK(fcntl(fds[j], F_GETFD) & FD_CLOEXEC);
			close_fd(&fds[j]);
		}
	}
	CHECK_EQ(ctl_nfds(0), 0);
	CHECK_EQ(ctl_nfds(UINT16_MAX), 0);
}

static void refused(void)
{
	struct ctl_msg m = { .type = CTL_BALLOON, .len = sizeof(struct ctl_balloon) };
	size_t n = 8 + m.len;

	expect_refused(&m, n - 1, 0); /* shorter than it says */
	expect_refused(&m, n + 1, 0); /* longer */
	expect_refused(&m, 7, 0);     /* not even a header */
	expect_refused(&m, n, 1);     /* a descriptor where none belongs */
	expect_refused(&m, n, CTL_FDS_MAX + 1);
	expect_refused(&m, n, FDPASS_MAX);
	m.zero = 1;
	expect_refused(&m, n, 0);
	m.zero = 0;
	m.len = 4; /* right for itself, wrong for its type */
	expect_refused(&m, 12, 0);
	m.len = UINT32_MAX;
	expect_refused(&m, n, 0);
	m.type = 0;
	expect_refused(&m, 8 + 8, 0);
	m.type = CTL_PROBE_RESULT + 1;
	expect_refused(&m, 8 + 8, 0);
	m.type = CTL_VSOCK_CONNECT;
	m.len = sizeof(struct ctl_vsock);
	expect_refused(&m, 8 + m.len, 0);
	expect_refused(&m, 8 + m.len, 2);
	m.type = CTL_EXIT;
	m.len = sizeof(struct ctl_exit);
	memset(m.u.exit.detail, 'x', sizeof(m.u.exit.detail));
	expect_refused(&m, 8 + m.len, 0);
	expect_refused(NULL, 0, 1); /* empty but for a descriptor: not the end of file */
}

static void too_long(void)
{
	uint8_t big[CTL_MSG_MAX + 1] = { CTL_QUIT };
	struct ctl_msg m;
	int fds[CTL_FDS_MAX];

	REQUIRE(!inject(big, sizeof(big), 0));
	CHECK_EQ(ctl_recv(pair[1], &m, fds), -EPROTO);
}

static void hello(void)
{
	struct ctl_msg m = { .type = CTL_HELLO, .u.hello.version = CTL_VERSION };
	struct error e = { 0 };

	CHECK_EQ(ctl_check_hello(&m, &e), 0);
	m.u.hello.version = CTL_VERSION + 1;
	CHECK_EQ(ctl_check_hello(&m, &e), -EPROTO);
	CHECK(strstr(e.msg, "version 2"));
	m.u.hello.version = 0;
	CHECK_EQ(ctl_check_hello(&m, &e), -EPROTO);
	m.type = CTL_QUIT;
	CHECK_EQ(ctl_check_hello(&m, &e), -EPROTO);
}

static void ends(void)
{
	struct ctl_msg m;
	int fds[CTL_FDS_MAX];

	CHECK_EQ(ctl_recv(pair[1], &m, fds), -EAGAIN);
	close(pair[0]);
	CHECK_EQ(ctl_recv(pair[1], &m, fds), 0);
	CHECK_EQ(ctl_send(pair[1], CTL_QUIT, NULL, 0, NULL, 0), -EPIPE); /* and no SIGPIPE */
	close(pair[1]);
}

int main(void)
{
	REQUIRE(!fdpass_pair(pair, true));
	every_type();
	refused();
	too_long();
	hello();
	ends();
	TEST_END();
}

/* base/fdpass: records whole, descriptors all or nothing, none lost to a peer's surplus. */
#include <dirent.h>
#include <fcntl.h>
#include <sys/socket.h>

#include "base/fdpass.h"
#include "tests/lib/test.h"

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

static void records(void)
{
	int s[2], fds[1];
	unsigned n = 9;
	char buf[8];

	REQUIRE(!fdpass_pair(s, true));
	CHECK(fcntl(s[0], F_GETFD) & FD_CLOEXEC);
	CHECK_EQ(fdpass_recv(s[1], buf, sizeof(buf), NULL, 0, &n), -EAGAIN);
	CHECK_EQ(fdpass_send(s[0], "ab", 2, NULL, 0), 0);
	CHECK_EQ(fdpass_send(s[0], "cde", 3, NULL, 0), 0);
	CHECK_EQ(fdpass_recv(s[1], buf, sizeof(buf), fds, 1, &n), 2);
	CHECK_EQ(n, 0);
	CHECK_EQ(fds[0], -1);
	CHECK_EQ(fdpass_recv(s[1], buf, sizeof(buf), fds, 1, &n), 3);
	CHECK(!memcmp(buf, "cde", 3));
	CHECK_EQ(fdpass_send(s[0], "123456789", 9, NULL, 0), 0);
	CHECK_EQ(fdpass_recv(s[1], buf, sizeof(buf), fds, 1, &n), -EMSGSIZE);
	close(s[0]);
	CHECK_EQ(fdpass_recv(s[1], buf, sizeof(buf), fds, 1, &n), 0);
	CHECK_EQ(fdpass_send(s[1], "x", 1, NULL, 0), -EPIPE);
	close(s[1]);
}

/* A non-blocking sender sees a full socket, and sends nothing then. */
static void full(void)
{
	static const char block[4096];
	unsigned sent = 0, got = 0, n;
	static char buf[4096];
	int s[2], r;

	REQUIRE(!fdpass_pair(s, true));
	while (!(r = fdpass_send(s[0], block, sizeof(block), NULL, 0)))
		sent++;
	CHECK_EQ(r, -EAGAIN);
	CHECK(sent > 0);
	while (fdpass_recv(s[1], buf, sizeof(buf), NULL, 0, &n) == (ssize_t)sizeof(buf))
		got++;
	CHECK_EQ(got, sent);
	close(s[0]);
	close(s[1]);
}

static void descriptors(void)
{
	int s[2], p[FDPASS_MAX + 1], fds[FDPASS_MAX], before;
	unsigned n;
	char c;

	REQUIRE(!fdpass_pair(s, true));
	for (size_t i = 0; i < ARRAY_SIZE(p); i++)
		p[i] = open("/dev/null", O_RDWR | O_CLOEXEC);
	before = open_fds();
	CHECK_EQ(fdpass_send(s[0], "x", 1, p, FDPASS_MAX), 0);
	CHECK_EQ(open_fds(), before); /* the sender keeps its own */
	CHECK_EQ(fdpass_recv(s[1], &c, 1, fds, FDPASS_MAX, &n), 1);
	CHECK_EQ(n, FDPASS_MAX);
	CHECK_EQ(open_fds(), before + FDPASS_MAX);
	for (unsigned i = 0; i < n; i++) {
		CHECK(fcntl(fds[i], F_GETFD) & FD_CLOEXEC);
		close(fds[i]);
	}
	for (unsigned max = 0; max < 4; max++) { /* one more than wanted: none is kept */
		CHECK_EQ(fdpass_send(s[0], "x", 1, p, max + 1), 0);
		CHECK_EQ(fdpass_recv(s[1], &c, 1, fds, max, &n), -EMSGSIZE);
		CHECK_EQ(open_fds(), before);
	}
	CHECK_EQ(fdpass_send(s[0], "xy", 2, p, 2), 0); /* the record is cut: none is kept */
	CHECK_EQ(fdpass_recv(s[1], &c, 1, fds, 2, &n), -EMSGSIZE);
	CHECK_EQ(fds[0], -1);
	CHECK_EQ(open_fds(), before);
	p[0] = -1;
	CHECK_EQ(fdpass_send(s[0], "x", 1, p, 1), -EBADF);
	for (size_t i = 1; i < ARRAY_SIZE(p); i++)
		close(p[i]);
	close(s[0]);
	close(s[1]);
}

/* unix(7): a peer may send 253 descriptors at once, more than FDPASS_MAX. */
static void flood(void)
{
	union {
		struct cmsghdr align;
		char buf[CMSG_SPACE(253 * sizeof(int))];
	} control = { 0 };
	struct iovec iov = { .iov_base = (char[]){ 'x' }, .iov_len = 1 };
	struct msghdr msg = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = &control,
		.msg_controllen = sizeof(control),
	};
	struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
	int s[2], fds[FDPASS_MAX], before;
	unsigned n;
	char byte;

	REQUIRE(!fdpass_pair(s, true));
	before = open_fds();
	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(253 * sizeof(int));
	for (size_t i = 0; i < 253; i++)
		memcpy(CMSG_DATA(c) + i * sizeof(int), &s[0], sizeof(int));
	REQUIRE(sendmsg(s[0], &msg, 0) == 1);
	CHECK_EQ(fdpass_recv(s[1], &byte, 1, fds, FDPASS_MAX, &n), -EMSGSIZE);
	CHECK_EQ(open_fds(), before);
	close(s[0]);
	close(s[1]);
}

int main(void)
{
	records();
	full();
	descriptors();
	flood();
	TEST_END();
}

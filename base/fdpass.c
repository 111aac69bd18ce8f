#include "base/fdpass.h"

#include <assert.h>
#include <errno.h>
#include <string.h>
#include <sys/socket.h>

/* SCM_MAX_FD (253, unix(7)): a peer's surplus is seen and closed, not cut off. */
#define RECV_FDS 253

int fdpass_pair(int ret[2], bool nonblock)
{
	int type = SOCK_SEQPACKET | SOCK_CLOEXEC | (nonblock ? SOCK_NONBLOCK : 0);

	return socketpair(AF_UNIX, type, 0, ret) ? -errno : 0;
}

int fdpass_send(int sock, const void *data, size_t len, const int *fds, unsigned nfds)
{
	union {
		struct cmsghdr align;
		char buf[CMSG_SPACE(FDPASS_MAX * sizeof(int))];
	} control = { 0 };
	struct iovec iov = { .iov_base = (void *)data, .iov_len = len };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.buf };
	struct cmsghdr *c;
	ssize_t n;

	assert(nfds <= FDPASS_MAX);
	if (nfds) {
		msg.msg_controllen = CMSG_SPACE(nfds * sizeof(int));
		c = CMSG_FIRSTHDR(&msg);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(nfds * sizeof(int));
		memcpy(CMSG_DATA(c), fds, nfds * sizeof(int));
	}
	do
		n = nfds ? sendmsg(sock, &msg, MSG_NOSIGNAL)
			 : sendto(sock, data, len, MSG_NOSIGNAL, NULL, 0);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return -errno;
	return (size_t)n == len ? 0 : -EMSGSIZE;
}

/* The first @max descriptors of @msg into @fds, the rest closed. Returns how many there were. */
static unsigned collect(struct msghdr *msg, int *fds, unsigned max)
{
	unsigned total = 0;

	for (struct cmsghdr *c = CMSG_FIRSTHDR(msg); c; c = CMSG_NXTHDR(msg, c)) {
		size_t n;

		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		for (size_t i = 0; i < n; i++) {
			int fd;

			memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof(fd));
			if (total < max)
				fds[total] = fd;
			else
				close(fd);
			total++;
		}
	}
	return total;
}

ssize_t fdpass_recv(int sock, void *data, size_t len, int *fds, unsigned max, unsigned *ret_nfds)
{
	union {
		struct cmsghdr align;
		char buf[CMSG_SPACE(RECV_FDS * sizeof(int))];
	} control;
	struct iovec iov = { .iov_base = data, .iov_len = len };
	struct msghdr msg = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = control.buf,
		.msg_controllen = sizeof(control.buf),
	};
	unsigned total;
	ssize_t n;

	assert(max <= FDPASS_MAX);
	for (unsigned i = 0; i < max; i++)
		fds[i] = -1;
	do
		n = recvmsg(sock, &msg, MSG_CMSG_CLOEXEC);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return -errno;
	total = collect(&msg, fds, max);
	if (total > max || msg.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) {
		for (unsigned i = 0; i < max; i++)
			close_fd(&fds[i]);
		return -EMSGSIZE;
	}
	*ret_nfds = total;
	return n;
}

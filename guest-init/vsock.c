/*
 * guest-init/vsock.c - how the agent meets the host over vsock
 *
 * Trust:   any process of the guest may connect to a vsock port of its own machine; only the host's
 *          CID is served.
 */
#include <errno.h>
#include <sys/socket.h>
#include <linux/vm_sockets.h>

#include "guest-init/agent_int.h"

#define BACKLOG 16

static struct sockaddr_vm address(unsigned cid, unsigned port)
{
	return (struct sockaddr_vm){ .svm_family = AF_VSOCK, .svm_cid = cid, .svm_port = port };
}

int guest_agent_connect(struct guest_agent *a, unsigned port)
{
	struct sockaddr_vm to = address(VMADDR_CID_HOST, port);
	autoclose int fd = socket(AF_VSOCK, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	int r;

	if (fd < 0)
		return -errno;
	if (connect(fd, (struct sockaddr *)&to, sizeof(to)) && errno != EINPROGRESS)
		return -errno;
	r = conn_create(a, fd, 0, true);
	if (!r)
		take_fd(&fd);
	return r;
}

static void listener_run(struct source *s)
{
	struct guest_agent *a = container_of(s, struct guest_agent, listener);
	struct sockaddr_vm peer;
	socklen_t len = sizeof(peer);
	int fd = accept4(s->fd, (struct sockaddr *)&peer, &len, SOCK_NONBLOCK | SOCK_CLOEXEC);
	int r;

	if (fd < 0) {
		if (errno != EAGAIN && errno != EMFILE && errno != ENFILE)
			source_queue(a, s); /* that one is gone; others may wait */
		return;
	}
	source_queue(a, s);
	if (peer.svm_cid != VMADDR_CID_HOST) {
		agent_log(a, "vsock: refused a connection from CID %u", peer.svm_cid);
		close(fd);
		return;
	}
	r = guest_agent_add_conn(a, fd, 0);
	if (r)
		agent_log(a, "vsock: a connection was refused: error %d", -r);
}

int guest_agent_listen(struct guest_agent *a, unsigned port)
{
	struct sockaddr_vm at = address(VMADDR_CID_ANY, port);
	autoclose int fd = socket(AF_VSOCK, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	int r;

	if (fd < 0)
		return -errno;
	if (bind(fd, (struct sockaddr *)&at, sizeof(at)) || listen(fd, BACKLOG))
		return -errno;
	a->listener.run = listener_run;
	r = source_add(a, &a->listener, fd, EPOLLIN);
	if (!r)
		take_fd(&fd);
	return r;
}

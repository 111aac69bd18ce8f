/* A hostile driver against the socket device, with slots and connections of the host. See vfuzz.h. */
#include <signal.h>
#include <sys/socket.h>

#include "tests/lib/vfuzz.h"
#include "vmm/dev_vsock.h"

#define ENDS 4

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct virtio_dev *d;
	int fd[ENDS];

	signal(SIGPIPE, SIG_IGN);
	if (dev_vsock_create(&d, vfuzz_loop(), vfuzz_mem(), 77, NULL))
		abort();
	for (unsigned i = 0; i < ENDS; i++) {
		int sv[2];

		if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv) ||
			write(sv[0], "hello, guest", 12) != 12)
			abort();
		fd[i] = sv[0];
		if (i % 2 ? dev_vsock_host_connect(d, 5000, sv[1])
			  : dev_vsock_host_accept(d, 1000, sv[1]))
			abort();
	}
	vfuzz_run(d, data, size);
	for (unsigned i = 0; i < ENDS; i++)
		close(fd[i]);
	return 0;
}

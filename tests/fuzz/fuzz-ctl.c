/* base/ctl: any record, any number of descriptors; what is accepted is right, and none leaks. */
#include <assert.h>
#include <errno.h>
#include <string.h>

#include "base/ctl.h"
#include "base/fdpass.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int pair[2] = { -1, -1 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	int sent[FDPASS_MAX], fds[CTL_FDS_MAX], probe, r;
	struct ctl_msg m;
	unsigned nfds;

	if (pair[0] < 0 && fdpass_pair(pair, true))
		abort();
	if (size < 1 || size > 2 * CTL_MSG_MAX)
		return 0;
	nfds = data[0] % (FDPASS_MAX + 1);
	for (unsigned i = 0; i < nfds; i++)
		sent[i] = pair[0];
	if (fdpass_send(pair[0], data + 1, size - 1, sent, nfds))
		abort();
	r = ctl_recv(pair[1], &m, fds);
	assert(r == 1 || r == -EPROTO || (r == 0 && size == 1 && !nfds));
	for (unsigned i = 0; i < CTL_FDS_MAX; i++) {
		assert((fds[i] >= 0) == (r == 1 && i < ctl_nfds(m.type)));
		close_fd(&fds[i]);
	}
	if (r == 1) {
		assert(m.len == size - 1 - 8 && !memcmp(&m, data + 1, size - 1));
		assert(m.type != CTL_EXIT || strlen(m.u.exit.detail) < sizeof(m.u.exit.detail));
	}
	probe = dup(pair[0]); /* the lowest free descriptor: it stays low while none leaks */
	assert(probe >= 0 && probe < 64);
	close(probe);
	return 0;
}

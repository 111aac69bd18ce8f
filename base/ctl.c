#include "base/ctl.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "base/fdpass.h"

#define CTL_HEADER offsetof(struct ctl_msg, u)

_Static_assert(sizeof(struct ctl_msg) == CTL_MSG_MAX, "the union fills the message");

/* One row per type: the length of its struct and the descriptors it carries. */
static const struct ctl_rule {
	uint16_t len;
	uint8_t nfds;
} rules[] = {
	[CTL_HELLO] = { sizeof(struct ctl_hello), 0 },
	[CTL_VSOCK_CONNECT] = { sizeof(struct ctl_vsock), 1 },
	[CTL_VSOCK_ACCEPT] = { sizeof(struct ctl_vsock), 1 },
	[CTL_BALLOON] = { sizeof(struct ctl_balloon), 0 },
	[CTL_QUIT] = { 0, 0 },
	[CTL_PROBE] = { sizeof(struct ctl_probe), 0 },
	[CTL_PHASE] = { sizeof(struct ctl_phase), 0 },
	[CTL_EXIT] = { sizeof(struct ctl_exit), 0 },
	[CTL_PROBE_RESULT] = { sizeof(struct ctl_probe_result), 0 },
};

static bool known(uint16_t type)
{
	return type >= CTL_HELLO && type < ARRAY_SIZE(rules);
}

unsigned ctl_nfds(uint16_t type)
{
	return known(type) ? rules[type].nfds : 0;
}

int ctl_check(const struct ctl_msg *m, size_t n, unsigned nfds)
{
	if (n < CTL_HEADER || !known(m->type) || m->zero)
		return -EPROTO;
	if (m->len != n - CTL_HEADER || m->len != rules[m->type].len || nfds != rules[m->type].nfds)
		return -EPROTO;
	if (m->type == CTL_EXIT && !memchr(m->u.exit.detail, 0, sizeof(m->u.exit.detail)))
		return -EPROTO;
	return 0;
}

int ctl_check_hello(const struct ctl_msg *m, struct error *e)
{
	if (m->type != CTL_HELLO)
		return error_set(
			e, EPROTO, "control channel: message %u came before the hello", m->type);
	if (m->u.hello.version < CTL_VERSION_OLDEST || m->u.hello.version > CTL_VERSION)
		return error_set(e, EPROTO,
			"control channel: the peer speaks version %u, this program %u; stop the "
			"sandbox with the version of skerry that started it",
			m->u.hello.version, CTL_VERSION);
	return 0;
}

int ctl_send(int fd, uint16_t type, const void *body, uint32_t len, const int *fds, unsigned nfds)
{
	struct ctl_msg m = { .type = type, .len = len };

	assert(known(type) && len == rules[type].len && nfds == rules[type].nfds);
	if (len)
		memcpy(m.u.raw, body, len);
	return fdpass_send(fd, &m, CTL_HEADER + len, fds, nfds);
}

int ctl_recv(int fd, struct ctl_msg *ret, int fds[CTL_FDS_MAX])
{
	struct ctl_msg m = { 0 };
	unsigned nfds;
	ssize_t n = fdpass_recv(fd, &m, sizeof(m), fds, CTL_FDS_MAX, &nfds);
	int r;

	if (n < 0)
		return n == -EMSGSIZE ? -EPROTO : (int)n;
	if (n == 0 && nfds == 0)
		return 0;
	r = ctl_check(&m, (size_t)n, nfds);
	if (r) {
		for (unsigned i = 0; i < CTL_FDS_MAX; i++)
			close_fd(&fds[i]);
		return r;
	}
	*ret = m;
	return 1;
}

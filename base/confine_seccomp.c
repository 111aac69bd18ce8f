/*
 * base/confine_seccomp.c - install the filter of a thread
 *
 * What:    the filters are made at build time (confine_gen.c); here only the process's own id is
 *          filled in.
 * Spec:    seccomp(2)
 */
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <string.h>
#include <sys/syscall.h>

#include "base/confine_int.h"
#include "base/confine_filters.h"

static const struct {
	const struct sock_filter *insns;
	unsigned short len;
} filters[CONFINE_THREADS] = {
	[CONFINE_VMM_LOOP] = { filter_0, ARRAY_SIZE(filter_0) },
	[CONFINE_VMM_VCPU] = { filter_1, ARRAY_SIZE(filter_1) },
};

_Static_assert(CONFINE_VMM_LOOP == 0 && CONFINE_VMM_VCPU == 1, "numbered as confine_gen.c does");

int confine_seccomp(enum confine_thread kind, struct error *e)
{
	struct sock_filter insns[CONFINE_FILTER_MAX];
	struct sock_fprog prog = { .filter = insns, .len = filters[kind].len };

	_Static_assert(ARRAY_SIZE(filter_0) <= CONFINE_FILTER_MAX, "fits");
	_Static_assert(ARRAY_SIZE(filter_1) <= CONFINE_FILTER_MAX, "fits");
	memcpy(insns, filters[kind].insns, prog.len * sizeof(insns[0]));
	for (unsigned i = 0; i < prog.len; i++)
		if (insns[i].k == CONFINE_SELF)
			insns[i].k = (uint32_t)getpid();
	if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &prog))
		return error_set(e, errno, "confinement: seccomp: %s%s", strerror(errno),
			errno == EINVAL ? "; the kernel needs CONFIG_SECCOMP_FILTER" : "");
	return 0;
}

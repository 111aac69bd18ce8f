/*
 * base/confine_landlock.c - a second wall behind the empty root and seccomp
 *
 * What:    a Landlock domain that handles every right the running kernel knows and grants none: no
 *          file can be opened, made, renamed or executed by path, no TCP port bound or connected,
 *          no abstract Unix socket or signal reaches outside. Descriptors opened before keep
 *          working.
 * Spec:    landlock(7); ABI 1 = Linux 5.13, 2 = 5.19, 3 = 6.2, 4 = 6.7 (TCP), 5 = 6.10, 6 = 6.12
 *          (scopes)
 */
#include <errno.h>
#include <string.h>
#include <sys/syscall.h>

#include "base/confine_int.h"

/* As of ABI 6; headers of Debian 12 end at ABI 2. */
struct ruleset_attr {
	uint64_t handled_access_fs;
	uint64_t handled_access_net;
	uint64_t scoped;
};

#define CREATE_RULESET_VERSION 1u

/* What each ABI added. */
static const struct abi {
	uint8_t fs_bits;  /* rights 0..fs_bits - 1 */
	uint8_t net_bits; /* TCP bind, connect */
	uint8_t scope_bits;
	uint8_t size; /* of the struct */
} abis[] = {
	[1] = { 13, 0, 0, 8 },
	[2] = { 14, 0, 0, 8 }, /* refer */
	[3] = { 15, 0, 0, 8 }, /* truncate */
	[4] = { 15, 2, 0, 16 },
	[5] = { 16, 2, 0, 16 }, /* device ioctls */
	[6] = { 16, 2, 2, 24 }, /* abstract sockets, signals */
};

static uint64_t low_bits(unsigned n)
{
	return (UINT64_C(1) << n) - 1;
}

int confine_landlock_abi(void)
{
	long abi = syscall(SYS_landlock_create_ruleset, NULL, 0, CREATE_RULESET_VERSION);

	return abi < 0 ? -errno : (int)abi;
}

int confine_landlock(int *ret_abi, struct error *e)
{
	int abi = confine_landlock_abi();
	struct ruleset_attr attr;
	const struct abi *a;
	autoclose int fd = -1;

	if (abi == -ENOSYS || abi == -EOPNOTSUPP) {
		*ret_abi = 0;
		return 0;
	}
	if (abi < 1)
		return error_set(e, abi ? -abi : EPROTO, "confinement: landlock: %s",
			strerror(abi ? -abi : EPROTO));
	a = &abis[MIN((size_t)abi, ARRAY_SIZE(abis) - 1)];
	attr = (struct ruleset_attr){
		.handled_access_fs = low_bits(a->fs_bits),
		.handled_access_net = low_bits(a->net_bits),
		.scoped = low_bits(a->scope_bits),
	};
	fd = (int)syscall(SYS_landlock_create_ruleset, &attr, (size_t)a->size, 0);
	if (fd < 0)
		return error_set(
			e, errno, "confinement: landlock_create_ruleset: %s", strerror(errno));
	if (syscall(SYS_landlock_restrict_self, fd, 0))
		return error_set(
			e, errno, "confinement: landlock_restrict_self: %s", strerror(errno));
	*ret_abi = abi;
	return 0;
}

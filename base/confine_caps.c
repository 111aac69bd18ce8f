/*
 * base/confine_caps.c - capabilities and ids, emptied for good
 *
 * What:    bounding, ambient, permitted, effective and inheritable sets end empty, and securebits
 *          are locked so that being uid 0 of a user namespace means nothing; no_new_privs makes
 *          execve() unable to add any.
 * Threads: raw system calls, which change the calling thread only: before the first thread is
 *          started.
 * Spec:    capabilities(7), prctl(2)
 */
#include <errno.h>
#include <linux/capability.h>
#include <linux/securebits.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include "base/confine_int.h"

#define SECUREBITS_NONE_EVER                                                                       \
	(SECBIT_NOROOT | SECBIT_NOROOT_LOCKED | SECBIT_NO_SETUID_FIXUP |                           \
		SECBIT_NO_SETUID_FIXUP_LOCKED | SECBIT_KEEP_CAPS_LOCKED |                          \
		SECBIT_NO_CAP_AMBIENT_RAISE | SECBIT_NO_CAP_AMBIENT_RAISE_LOCKED)

static int caps_get(struct __user_cap_data_struct ret[_LINUX_CAPABILITY_U32S_3])
{
	struct __user_cap_header_struct h = { .version = _LINUX_CAPABILITY_VERSION_3 };

	return syscall(SYS_capget, &h, ret) ? -errno : 0;
}

bool confine_caps_have(const int *caps, size_t n)
{
	struct __user_cap_data_struct d[_LINUX_CAPABILITY_U32S_3] = { 0 };

	if (caps_get(d))
		return false;
	for (size_t i = 0; i < n; i++)
		if (!(d[CAP_TO_INDEX(caps[i])].effective & CAP_TO_MASK(caps[i])))
			return false;
	return true;
}

/* The kernel knows capabilities 0..N; the first unknown one is EINVAL. */
static int bounding_drop(void)
{
	for (unsigned long cap = 0; cap < 64; cap++)
		if (prctl(PR_CAPBSET_DROP, cap, 0, 0, 0))
			return errno == EINVAL && cap > CAP_SETPCAP ? 0 : -errno;
	return 0;
}

/* What only CAP_SETPCAP may do, and what stays in force for whatever user this process becomes. */
static int lock_bounds(struct error *e)
{
	int r = bounding_drop();

	if (r)
		return error_set(e, -r, "confinement: PR_CAPBSET_DROP: %s", strerror(-r));
	if (prctl(PR_SET_SECUREBITS, SECUREBITS_NONE_EVER, 0, 0, 0))
		return error_set(e, errno, "confinement: PR_SET_SECUREBITS: %s", strerror(errno));
	return 0;
}

int confine_ids_set(uid_t uid, gid_t gid)
{
	/* Not the library's functions: after a fork those would signal the parent's threads. */
	if (syscall(SYS_setgroups, 0, NULL) || syscall(SYS_setresgid, gid, gid, gid) ||
		syscall(SYS_setresuid, uid, uid, uid))
		return -errno;
	return 0;
}

int confine_privileges_drop(const struct confine_arg *a, struct error *e)
{
	static const int setpcap[] = { CAP_SETPCAP };
	struct __user_cap_header_struct h = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct none[_LINUX_CAPABILITY_U32S_3] = { 0 };
	int r;

	/* Without CAP_SETPCAP there is nothing to drop but what the sets below hold. */
	if (confine_caps_have(setpcap, 1)) {
		r = lock_bounds(e);
		if (r)
			return r;
	}
	if (a->set_ids) {
		r = confine_ids_set(a->uid, a->gid);
		if (r)
			return error_set(e, -r, "confinement: changing to user %u: %s", a->uid,
				strerror(-r));
	}
	if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0))
		return error_set(e, errno, "confinement: PR_CAP_AMBIENT: %s", strerror(errno));
	if (syscall(SYS_capset, &h, none))
		return error_set(e, errno, "confinement: capset: %s", strerror(errno));
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
		return error_set(e, errno, "confinement: PR_SET_NO_NEW_PRIVS: %s", strerror(errno));
	return 0;
}

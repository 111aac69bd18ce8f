/*
 * base/confine_root.c - an empty root
 *
 * What:    the mount namespace of a role ends with one file system: an empty read-only tmpfs. It is
 *          mounted where /proc was, since that directory certainly exists; then pivot_root(".",
 *          ".") stacks the old root on it, from where it is unmounted with all that is below.
 * Spec:    pivot_root(2), "pivot_root(".", ".")"; mount_namespaces(7)
 */
#include <errno.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/syscall.h>

#include "base/confine_int.h"

int confine_root_private(void)
{
	return mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) ? -errno : 0;
}

int confine_root_empty(struct error *e)
{
	static const char *const at = "/proc";
	unsigned long flags = MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC;

	if (mount("none", at, "tmpfs", flags, "size=4k,nr_inodes=1,mode=0555"))
		return error_set(e, errno, "confinement: mount of an empty file system at %s: %s",
			at, strerror(errno));
	if (chdir(at) || syscall(SYS_pivot_root, ".", "."))
		return error_set(e, errno, "confinement: pivot_root: %s", strerror(errno));
	if (umount2(".", MNT_DETACH) || chdir("/"))
		return error_set(
			e, errno, "confinement: unmounting the host's root: %s", strerror(errno));
	return 0;
}

#include "api/store/kernels.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "api/store/lookup.h"
#include "api/store/vmlinux.h"

static const char *const makes[] = { KERNEL_DEFAULT, "debian-12", NULL };

static const struct lookup_kind kind = { "kernel", "kernels", KERNEL_EMULATED, makes };

static int open_file(int dir, const char *name, const char *file, int *ret, struct error *e)
{
	*ret = openat(dir, file, O_RDONLY | O_CLOEXEC);
	if (*ret < 0)
		return error_set(e, errno,
			"kernel '%s': %s: %s; make it again: skerry setup --force --kernel %s",
			name, file, strerror(errno), name);
	return 0;
}

int kernel_open(const char *name, struct kernel *ret, struct error *e)
{
	struct kernel k = { -1, -1 };
	autoclose int dir = -1;
	int r;

	if (!name)
		name = KERNEL_DEFAULT;
	r = lookup(&kind, name, &dir, e);
	if (r == LOOKUP_PATH) {
		r = vmlinux_open(name, &k.vmlinux_fd, e);
	} else if (r == LOOKUP_OBJECT) {
		r = open_file(dir, name, "vmlinux", &k.vmlinux_fd, e);
		if (!r)
			r = open_file(dir, name, "modules.cpio", &k.modules_fd, e);
	}
	if (r < 0) {
		kernel_close(&k);
		return r;
	}
	*ret = k;
	return 0;
}

void kernel_close(struct kernel *k)
{
	close_fd(&k->vmlinux_fd);
	close_fd(&k->modules_fd);
}

#include "vmm/config.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>

#include "base/memfd.h"

static int refuse(struct error *e, const char *field, int64_t value)
{
	return error_set(
		e, EINVAL, "vmm configuration: %s: %" PRId64 " is not legal", field, value);
}

static bool terminated(const char *text, size_t size)
{
	return memchr(text, 0, size) != NULL;
}

static bool is_open(int fd)
{
	return fd >= ROLE_FD_FIRST && fcntl(fd, F_GETFD) >= 0;
}

static int check_fds(const struct vmm_config *c, struct error *e)
{
	if (!is_open(c->kvm_fd))
		return refuse(e, "kvm_fd", c->kvm_fd);
	if (!is_open(c->kernel_fd))
		return refuse(e, "kernel_fd", c->kernel_fd);
	if (c->console_fd != -1 && !is_open(c->console_fd))
		return refuse(e, "console_fd", c->console_fd);
	if (c->listen_fd != -1 && !is_open(c->listen_fd))
		return refuse(e, "listen_fd", c->listen_fd);
	for (uint32_t i = 0; i < c->ninitrds; i++)
		if (!is_open(c->initrd_fd[i]))
			return refuse(e, "initrd_fd", c->initrd_fd[i]);
	for (uint32_t i = 0; i < c->ndisks; i++)
		if (!is_open(c->disk[i].fd))
			return refuse(e, "disk fd", c->disk[i].fd);
	return 0;
}

int vmm_config_check(const struct vmm_config *c, struct error *e)
{
	if (c->magic != VMM_CONFIG_MAGIC || c->version != VMM_CONFIG_VERSION ||
		c->size != sizeof(*c))
		return error_set(e, EINVAL,
			"vmm configuration: version %u of %u bytes, expected %d of %zu; it was written by "
			"another version of skerry",
			c->version, c->size, VMM_CONFIG_VERSION, sizeof(*c));
	if (c->flags & ~(uint32_t)VMM_FLAGS_ALL)
		return refuse(e, "flags", c->flags);
	if (!c->cpus || c->cpus > VM_CPUS_MAX)
		return refuse(e, "cpus", c->cpus);
	if (c->ndisks > VMM_DISKS_MAX)
		return refuse(e, "ndisks", c->ndisks);
	if (c->ninitrds > VMM_INITRDS_MAX)
		return refuse(e, "ninitrds", c->ninitrds);
	for (uint32_t i = 0; i < c->ndisks; i++)
		if (c->disk[i].read_only > 1)
			return refuse(e, "read_only", c->disk[i].read_only);
	if (!terminated(c->name, sizeof(c->name)) || !terminated(c->cmdline, sizeof(c->cmdline)))
		return error_set(e, EINVAL, "vmm configuration: a text without its end");
	return check_fds(c, e);
}

int vmm_config_read(int fd, struct vmm_config *ret, struct error *e)
{
	int r = memfd_read(fd, ret, sizeof(*ret));

	if (r == -EPERM)
		return error_set(e, EPERM, "vmm configuration: not sealed");
	if (r)
		return error_set(e, -r, "vmm configuration: %s", strerror(-r));
	return vmm_config_check(ret, e);
}

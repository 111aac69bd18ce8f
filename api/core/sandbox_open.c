/*
 * api/core/sandbox_open.c - what a sandbox needs from this machine
 *
 * Kernel command line: only what stock kernels need here or what shortens the boot. A panic restarts the machine at
 * once (panic=-1), which the vmm reports; "quiet" because each byte on the console costs exits, but errors and
 * panics are printed all the same.
 */
#include "api/core/sandbox_open.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/sysinfo.h>

#include "api/store/images.h"
#include "api/store/kernels.h"
#include "base/memfd.h"
#include "base/table.h"
#include "guest-init/guest_blob.h"

#define CMDLINE                                                                                    \
	"console=ttyS0 quiet loglevel=4 panic=-1 8250.nr_uarts=1 noreplace-smp pci=off "           \
	"cryptomgr.notests skerry.hostname=skerry skerry.tmpfs=%llu"

/* Half of the memory, as Linux does for a tmpfs by itself. */
#define TMPFS_SHARE 2

#define GUEST_CID 3 /* the first that is nobody's; each machine is the only one on its vsock */

static int add_fd(struct sandbox_inputs *in, int fd)
{
	in->fds[in->nfds] = fd;
	return (int)in->nfds++;
}

static int check_memory(uint64_t memory, struct error *e)
{
	char want[32], have[32];
	struct sysinfo info;
	uint64_t total;

	if (sysinfo(&info))
		return 0;
	total = ((uint64_t)info.totalram + info.totalswap) * info.mem_unit;
	if (memory <= total)
		return 0;
	return error_set(e, ENOMEM, "--memory %s: this machine has only %s; ask for less",
		table_format_size(want, sizeof(want), memory),
		table_format_size(have, sizeof(have), ALIGN_DOWN(total, MIB)));
}

static int open_kvm(struct sandbox_inputs *in, struct error *e)
{
	int fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);

	if (fd < 0)
		return error_set(e, errno, "/dev/kvm: %s", strerror(errno));
	in->config.kvm_fd = add_fd(in, fd);
	return 0;
}

/* The kernel, its modules if it has any, and our init. */
static int open_kernel(struct sandbox_inputs *in, const char *name, struct error *e)
{
	struct kernel k;
	int r = kernel_open(name, &k, e), init;

	if (r)
		return r;
	in->config.kernel_fd = add_fd(in, k.vmlinux_fd);
	if (k.modules_fd >= 0)
		in->config.initrd_fd[in->config.ninitrds++] = add_fd(in, k.modules_fd);
	init = memfd_sealed(
		"skerry-init", guest_blob_start, (size_t)(guest_blob_end - guest_blob_start));
	if (init < 0)
		return error_set(e, -init, "guest-init: %s", strerror(-init));
	in->config.initrd_fd[in->config.ninitrds++] = add_fd(in, init);
	return 0;
}

/* Shared lock: whoever removes or changes the image asks for an exclusive one. */
static int open_image(struct sandbox_inputs *in, const char *name, struct error *e)
{
	struct flock lock = { .l_type = F_RDLCK, .l_whence = SEEK_SET };
	struct vmm_disk_config *d = &in->config.disk[in->config.ndisks];
	int fd = -1, r = image_open(name, &fd, e);

	if (r)
		return r;
	d->fd = add_fd(in, fd);
	d->read_only = 1;
	memcpy(d->serial, "base", 4);
	in->config.ndisks++;
	if (fcntl(fd, F_OFD_SETLK, &lock))
		return error_set(e, errno, "image '%s': is being changed; try again later",
			name ? name : IMAGE_DEFAULT);
	return 0;
}

static void fill(struct vmm_config *v, const struct sandbox_config *c)
{
	v->magic = VMM_CONFIG_MAGIC;
	v->version = VMM_CONFIG_VERSION;
	v->size = sizeof(*v);
	v->flags = VMM_DIE_WITH_PARENT;
	if (c->best == CONFINE_NONE)
		v->flags |= VMM_NO_CONFINE;
	if (c->phases)
		v->flags |= VMM_TRACE;
	v->cpus = c->cpus;
	v->kvm_fd = v->kernel_fd = v->console_fd = v->listen_fd = -1;
	v->memory = ALIGN_DOWN(c->memory, MIB);
	v->guest_cid = GUEST_CID;
	v->start_ns = c->trace->at_ns[TRACE_START];
	snprintf(v->name, sizeof(v->name), "%s", c->name);
	snprintf(v->cmdline, sizeof(v->cmdline), CMDLINE,
		(unsigned long long)(v->memory / TMPFS_SHARE));
}

static int open_all(struct sandbox_inputs *in, const struct sandbox_config *c, struct error *e)
{
	int r = check_memory(c->memory, e), fd;

	if (!r)
		r = open_kvm(in, e);
	if (!r)
		r = open_kernel(in, c->kernel, e);
	if (!r)
		r = open_image(in, c->image, e);
	if (r)
		return r;
	fd = memfd_sealed("skerry-config", &in->config, sizeof(in->config));
	if (fd < 0)
		return error_set(e, -fd, "configuration: %s", strerror(-fd));
	in->fds[ROLE_FD_CONFIG] = fd;
	return 0;
}

int sandbox_open(struct sandbox_inputs *ret, const struct sandbox_config *c, int log_fd,
	int console_fd, int ctl_fd, struct error *e)
{
	int r;

	memset(ret, 0, sizeof(*ret));
	for (size_t i = 0; i < ARRAY_SIZE(ret->fds); i++)
		ret->fds[i] = -1;
	ret->nfds = ROLE_FD_FIRST;
	fill(&ret->config, c);
	ret->fds[ROLE_FD_CTL] = ctl_fd;
	ret->config.console_fd = add_fd(ret, console_fd);
	ret->fds[ROLE_FD_LOG] = log_fd;
	r = open_all(ret, c, e);
	if (r)
		sandbox_close(ret);
	return r;
}

void sandbox_close(struct sandbox_inputs *in)
{
	for (unsigned i = 0; i < in->nfds; i++)
		close_fd(&in->fds[i]);
}

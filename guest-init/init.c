/*
 * guest-init/init.c - PID 1 of a sandbox
 *
 * What:    from the kernel's hand-over to an agent that serves the host, then the agent for good.
 *          Everything is in this one static program: no shell and no other program takes part.
 * Root:    the image (ext4, read-only, shared by all sandboxes) below an overlay whose writable
 *          layer is a tmpfs of limited size. It is moved onto "/", so that user namespaces work.
 * Clock:   kvmclock gives the time of day at boot; $skerry.setTime steps it after the host slept.
 * Entropy: the kernel seeds itself from the CPU and virtio-rng; nothing here waits for it.
 * Command line: boot.h
 */
#include <stdio.h>
#include <string.h>
#include <fcntl.h>
#include <sys/mount.h>
#include <time.h>

#include "base/guest_proto.h"
#include "guest-init/agent.h"
#include "guest-init/boot.h"

#define DEFAULT_USER "app"

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * NSEC_PER_SEC + (uint64_t)t.tv_nsec;
}

static void enter_image(const struct boot *b)
{
	boot_wait_dev(b->root);
	boot_mount(b->root, "/lower", "ext4", MS_RDONLY | MS_NOATIME, NULL);
	boot_overlay("/lower", "/rw", b->tmpfs_bytes, "/newroot");
	boot_enter_root("/newroot");
	boot_system(b);
}

/* Listening first: when our call reaches the host it may call back at once. */
static void open_vsock(struct guest_agent *a)
{
	int r = guest_agent_listen(a, GP_VSOCK_PORT);

	if (!r)
		r = guest_agent_connect(a, GP_VSOCK_PORT);
	if (r)
		boot_fatal(
			"vsock: %s; is there a device, and is its driver in the kernel or loaded?",
			strerror(-r));
}

static void open_port(struct guest_agent *a, const char *path)
{
	int fd, r;

	boot_wait_dev(path);
	fd = open(path, O_RDWR | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	r = fd < 0 ? -1 : guest_agent_add_conn(a, fd, GUEST_CONN_LASTING);
	if (r)
		boot_fatal("%s: can't be opened", path);
}

int main(void)
{
	static struct boot b;
	struct guest_agent *a;
	int r;

	b.init_ns = now_ns();
	if (getpid() != 1) {
		fprintf(stderr,
			"skerry-init: this is the init of a guest, it runs as PID 1 only\n");
		return 1;
	}
	boot_early(&b);
	boot_modules("/modules");
	if (!strcmp(b.mode, "emu"))
		emu_main(&b);
	enter_image(&b);
	a = boot_serve(&b, DEFAULT_USER);
	if (b.port[0])
		open_port(a, b.port);
	else
		open_vsock(a);
	r = guest_agent_run(a);
	boot_fatal("agent: %s", strerror(-r));
}

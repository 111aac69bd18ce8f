/*
 * guest-init/emu.c - PID 1 of the emulated host
 *
 * What:    L1 shows the machine that it runs on: its file system, read-only and fresh, is the root. What programs
 *          need of their own is put over it: /proc, /sys, /dev, the runtime folder (with room for temporary
 *          files). The state and cache folders can be written: an overlay over what is there, kept on a disk or,
 *          on request, in memory. Then the agent serves commands, one virtio-serial port each.
 * Root:    moved onto "/", so that processes may make user namespaces (which a chroot forbids).
 * Caching: the root is not cached, as the machine's files change, only read ahead. The folders of the store are,
 *          as published objects never change, and what packages install, which makes the start of a program
 *          several times faster. (api/emu starts another L1 when objects or packages have changed.)
 */
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <dirent.h>

#include "base/emu_names.h"
#include "guest-init/agent.h"
#include "guest-init/boot.h"

#define NEWROOT    "/newroot"
#define STORE      "/store"
#define DISK       "/disk"
#define DISK_DEV   "/dev/vda"
#define P9_OPTIONS "trans=virtio,version=9p2000.L,msize=512000"
#define PATH_BYTES 4400
#define FILES_MAX  1048576
#define SERIAL_DRV "/sys/bus/virtio/drivers/virtio_console"
#define BDI_DIR    "/sys/class/bdi"
#define READ_AHEAD "128" /* KiB; without, each page of a program costs a round trip of its own */

struct emu_conf {
	char text[EMU_CONF_MAX];
	const char *state, *cache, *runtime, *hostname;
	unsigned ports;
	bool scratch, packages;
};

/* ---- what the daemon says ---- */

static void conf_line(struct emu_conf *c, char *line)
{
	char *value = strchr(line, '=');

	if (!value)
		return;
	*value++ = '\0';
	if (!strcmp(line, "state"))
		c->state = value;
	else if (!strcmp(line, "cache"))
		c->cache = value;
	else if (!strcmp(line, "runtime"))
		c->runtime = value;
	else if (!strcmp(line, "hostname"))
		c->hostname = value;
	else if (!strcmp(line, "ports"))
		c->ports = (unsigned)strtoul(value, NULL, 10);
	else if (!strcmp(line, "scratch"))
		c->scratch = *value == '1';
	else if (!strcmp(line, "packages"))
		c->packages = *value == '1';
}

static void conf_read(struct emu_conf *c)
{
	int fd = open("/" EMU_CONF, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, c->text, sizeof(c->text) - 1);
	char *line, *next;

	if (n < 0)
		boot_fatal("/" EMU_CONF ": %s", strerror(errno));
	close(fd);
	c->text[n] = '\0';
	for (line = c->text; *line; line = next) {
		next = line + strcspn(line, "\n");
		if (*next)
			*next++ = '\0';
		conf_line(c, line);
	}
	if (!c->state || !c->cache || !c->runtime || !c->ports || c->ports > GUEST_CONNS_MAX)
		boot_fatal("/" EMU_CONF ": incomplete");
}

/* ---- file systems ---- */

static void join(char ret[PATH_BYTES], const char *a, const char *b)
{
	if (snprintf(ret, PATH_BYTES, "%s%s", a, b) >= PATH_BYTES)
		boot_fatal("'%s%s': path too long", a, b);
}

static void make_dir(const char *path, mode_t mode)
{
	if (mkdir(path, mode) && errno != EEXIST)
		boot_fatal("mkdir %s: %s", path, strerror(errno));
}

/*
 * Mount @target of the new root so that it can be written: what the machine has there below, @name on the disk
 * above. By way of a bind mount, as an overlay's options take no path with a comma or a colon.
 */
static void writable(const char *target, const char *name)
{
	char lower[PATH_BYTES], at[PATH_BYTES], dir[64], upper[80], work[80], lowest[64],
		options[256];

	join(lower, STORE, target);
	join(at, NEWROOT, target);
	snprintf(lowest, sizeof(lowest), "/lower-%s", name);
	boot_mount(lower, lowest, NULL, MS_BIND, NULL);
	snprintf(dir, sizeof(dir), DISK "/%s", name);
	snprintf(upper, sizeof(upper), "%s/upper", dir);
	snprintf(work, sizeof(work), "%s/work", dir);
	make_dir(dir, 0700);
	make_dir(upper, 0700);
	make_dir(work, 0700);
	snprintf(options, sizeof(options), "lowerdir=%s,upperdir=%s,workdir=%s", lowest, upper,
		work);
	boot_mount("overlay", at, "overlay", 0, options);
}

/* An uncached 9p mount gets no read-ahead of its own. */
static void set_read_ahead(void)
{
	DIR *d = opendir(BDI_DIR);
	struct dirent *de;
	char path[320];
	int fd;

	while (d && (de = readdir(d))) {
		if (strncmp(de->d_name, "9p-", 3))
			continue;
		snprintf(path, sizeof(path), BDI_DIR "/%s/read_ahead_kb", de->d_name);
		fd = open(path, O_WRONLY | O_CLOEXEC);
		if (fd < 0 || write(fd, READ_AHEAD, strlen(READ_AHEAD)) < 0)
			boot_log("%s: %s", path, strerror(errno));
		close_fd(&fd);
	}
	if (d)
		closedir(d);
}

/* What nothing but the package manager changes, cached. */
static void mount_packages(void)
{
	static const char *const dirs[] = { "/usr/bin", "/usr/sbin", "/usr/lib", "/usr/lib64",
		"/usr/libexec" };
	char from[64], at[64];

	for (size_t i = 0; i < ARRAY_SIZE(dirs); i++) {
		snprintf(from, sizeof(from), STORE "%s", dirs[i]);
		snprintf(at, sizeof(at), NEWROOT "%s", dirs[i]);
		if (!access(from, X_OK))
			boot_mount(from, at, NULL, MS_BIND, NULL);
	}
}

static void mount_store(const struct emu_conf *c)
{
	boot_mount(EMU_TAG_STORE, STORE, "9p", MS_RDONLY | MS_NODEV, P9_OPTIONS ",cache=loose");
	if (c->scratch) {
		boot_mount("scratch", DISK, "tmpfs", 0, "mode=0700");
	} else {
		boot_wait_dev(DISK_DEV);
		/* Unused inode tables stay unwritten: the file on this machine stays sparse. */
		boot_mount(DISK_DEV, DISK, "ext4", MS_NOATIME, "discard,noinit_itable");
	}
	if (c->packages)
		mount_packages();
	writable(c->state, "state");
	/* With XDG_STATE_HOME and XDG_CACHE_HOME the same, they are one folder. */
	if (strcmp(c->state, c->cache))
		writable(c->cache, "cache");
}

static void mount_runtime(const struct emu_conf *c)
{
	char at[PATH_BYTES], tmp[PATH_BYTES];

	join(at, NEWROOT, c->runtime);
	boot_mount("runtime", at, "tmpfs", MS_NOSUID | MS_NODEV, "mode=0700");
	join(tmp, at, "/tmp");
	make_dir(tmp, 01777);
	if (chmod(tmp, 01777)) /* whatever the umask is */
		boot_fatal("chmod %s: %s", tmp, strerror(errno));
}

static void mount_devices(void)
{
	boot_mount("devpts", "/dev/pts", "devpts", MS_NOSUID | MS_NOEXEC,
		"ptmxmode=0666,mode=0620,gid=5");
	boot_mount("shm", "/dev/shm", "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777");
	boot_mount("cgroup2", "/sys/fs/cgroup", "cgroup2", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL);
}

/* ---- the rest of a system ---- */

static void loopback_up(void)
{
	struct ifreq ifr = { .ifr_name = "lo", .ifr_flags = IFF_UP | IFF_RUNNING };
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	if (fd < 0 || ioctl(fd, SIOCSIFFLAGS, &ifr))
		boot_log("loopback: %s", strerror(errno));
	close_fd(&fd);
}

/* Guest memory may be locked, rings and many descriptors used: L1 is there for nothing else. */
static void raise_limits(void)
{
	struct rlimit lock = { RLIM_INFINITY, RLIM_INFINITY }, files = { FILES_MAX, FILES_MAX };

	if (setrlimit(RLIMIT_MEMLOCK, &lock) || setrlimit(RLIMIT_NOFILE, &files))
		boot_log("limits: %s", strerror(errno));
}

/* ---- ports ---- */

/* Ports are named after the number of their device on the virtio bus. */
static unsigned serial_device(void)
{
	DIR *d = opendir(SERIAL_DRV);
	struct dirent *de;
	unsigned n = 0;
	bool found = false;

	while (d && (de = readdir(d)))
		if (sscanf(de->d_name, "virtio%u", &n) == 1)
			found = true;
	if (!found)
		boot_fatal("no virtio-serial device");
	closedir(d);
	return n;
}

static int open_port(unsigned device, unsigned nr)
{
	char path[64];
	int fd;

	snprintf(path, sizeof(path), "/dev/vport%up%u", device, nr);
	boot_wait_dev(path);
	fd = open(path, O_RDWR | O_NONBLOCK | O_CLOEXEC);
	if (fd < 0)
		boot_fatal("%s: %s", path, strerror(errno));
	return fd;
}

static void on_ctl(unused_arg void *ctx, int fd)
{
	char c = 0;

	/* End of file: the daemon is dead, and QEMU is next. */
	while (read(fd, &c, 1) == 1)
		if (c == EMU_CTL_END) {
			sync(); /* the journal does the rest at the next start */
			boot_power_off();
		}
}

static void serve(const struct boot *b, unsigned ports)
{
	struct guest_agent *a = boot_serve(b, NULL);
	unsigned device = serial_device();
	int ctl, r;

	ctl = open_port(device, EMU_PORT_CTL);
	r = guest_agent_watch(a, ctl, on_ctl, NULL);
	for (unsigned i = 0; !r && i < ports; i++)
		r = guest_agent_add_conn(
			a, open_port(device, EMU_PORT_AGENT + i), GUEST_CONN_LASTING);
	if (!r)
		r = guest_agent_run(a);
	boot_fatal("agent: %s", strerror(-r));
}

void emu_main(struct boot *b)
{
	static struct emu_conf conf;

	conf_read(&conf);
	boot_mount(EMU_TAG_ROOT, NEWROOT, "9p", MS_RDONLY, P9_OPTIONS ",cache=none");
	set_read_ahead();
	mount_store(&conf);
	mount_runtime(&conf);
	boot_enter_root(NEWROOT);
	mount_devices();
	loopback_up();
	raise_limits();
	if (conf.hostname && sethostname(conf.hostname, strlen(conf.hostname)))
		boot_log("hostname: %s", strerror(errno));
	serve(b, conf.ports);
	boot_power_off(); /* serve() doesn't return */
}

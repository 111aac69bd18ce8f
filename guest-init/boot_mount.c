/*
 * guest-init/boot_mount.c - file systems, and what else makes a complete system of them
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <net/if.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>

#include "guest-init/agent.h"
#include "guest-init/boot.h"

#define PATH_BYTES 512
#define FILES_SOFT 1024   /* select(2) can't take more; who can raises it */
#define FILES_HARD 524288 /* as systemd sets it */
#define HOSTS_MAX  65536

void boot_mount(const char *source, const char *target, const char *type, unsigned long flags,
	const char *data)
{
	mkdir(target, 0755); /* if it is missing and can't be made, mount() says so */
	if (!mount(source, target, type, flags, data))
		return;
	if (errno == ENODEV)
		boot_fatal("mount %s: this kernel lacks the file system '%s' or its module", target,
			type ? type : "");
	if (errno == EINVAL || errno == EUCLEAN)
		boot_fatal("mount %s on %s: %s; it is damaged, or no %s", source, target,
			strerror(errno), type ? type : "folder");
	boot_fatal("mount %s on %s%s%s: %s", source, target, type ? " as " : "", type ? type : "",
		strerror(errno));
}

static void read_cmdline(struct boot *b)
{
	int fd = open("/proc/cmdline", O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, b->cmdline, sizeof(b->cmdline) - 1);

	if (n < 0)
		boot_fatal("/proc/cmdline: %s", strerror(errno));
	close(fd);
	if (n && b->cmdline[n - 1] == '\n')
		n--;
	b->cmdline[n] = '\0';
}

void boot_early(struct boot *b)
{
	boot_mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL);
	boot_mount("sysfs", "/sys", "sysfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL);
	boot_mount("devtmpfs", "/dev", "devtmpfs", MS_NOSUID, "mode=0755");
	read_cmdline(b);
	boot_parse(b);
}

static void make_dir(const char *path, mode_t mode)
{
	if (mkdir(path, mode) && errno != EEXIST)
		boot_fatal("mkdir %s: %s", path, strerror(errno));
}

void boot_overlay(const char *lower, const char *rw, uint64_t tmpfs_bytes, const char *target)
{
	char options[3 * PATH_BYTES], path[PATH_BYTES];

	strcpy(options, "mode=0755"); /* the kernel's own limit is half of the memory */
	if (tmpfs_bytes)
		snprintf(options, sizeof(options), "mode=0755,size=%" PRIu64, tmpfs_bytes);
	boot_mount("tmpfs", rw, "tmpfs", MS_NOATIME, options);
	snprintf(path, sizeof(path), "%s/upper", rw);
	make_dir(path, 0755);
	snprintf(path, sizeof(path), "%s/work", rw);
	make_dir(path, 0755);
	/* redirect_dir: folders of the image can be renamed, as dpkg and git expect. */
	snprintf(options, sizeof(options),
		"lowerdir=%s,upperdir=%s/upper,workdir=%s/work,redirect_dir=on", lower, rw, rw);
	boot_mount("overlay", target, "overlay", MS_NOATIME, options);
}

static void move_into(const char *target, const char *path)
{
	char to[PATH_BYTES];

	snprintf(to, sizeof(to), "%s%s", target, path);
	mkdir(to, 0755);
	if (mount(path, to, NULL, MS_MOVE, NULL))
		boot_fatal("the image has no folder %s, and it can't be made: %s", path,
			strerror(errno));
}

void boot_enter_root(const char *target)
{
	move_into(target, "/proc");
	move_into(target, "/sys");
	move_into(target, "/dev");
	/* Onto "/", not only chroot(): else no process could make a user namespace. */
	if (chdir(target) || mount(".", "/", NULL, MS_MOVE, NULL) || chroot(".") || chdir("/"))
		boot_fatal("enter %s: %s", target, strerror(errno));
}

static void link_to(const char *target, const char *path)
{
	if (symlink(target, path) && errno != EEXIST)
		boot_log("symlink %s: %s", path, strerror(errno));
}

void boot_devices(void)
{
	boot_mount("devpts", "/dev/pts", "devpts", MS_NOSUID | MS_NOEXEC,
		"ptmxmode=0666,mode=0620,gid=5");
	boot_mount("shm", "/dev/shm", "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777");
	link_to("/proc/self/fd", "/dev/fd");
	link_to("/proc/self/fd/0", "/dev/stdin");
	link_to("/proc/self/fd/1", "/dev/stdout");
	link_to("/proc/self/fd/2", "/dev/stderr");
	boot_mount("cgroup2", "/sys/fs/cgroup", "cgroup2", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL);
}

void boot_loopback(void)
{
	struct ifreq ifr = { .ifr_name = "lo", .ifr_flags = IFF_UP };
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	if (fd < 0 || ioctl(fd, SIOCSIFFLAGS, &ifr))
		boot_log("loopback: %s", strerror(errno));
	close_fd(&fd);
}

/* ---- names ---- */

/* Reads a small regular file as text; its length, -1 if there is none. */
static ssize_t read_file(const char *path, char *ret, size_t size)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	ssize_t n = fd < 0 ? -1 : read(fd, ret, size - 1);

	close_fd(&fd);
	if (n >= 0)
		ret[n] = '\0';
	return n;
}

static void append_file(const char *path, const char *text)
{
	int fd =
		open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NONBLOCK | O_NOCTTY, 0644);

	if (fd < 0 || write(fd, text, strlen(text)) < 0)
		boot_log("%s: %s", path, strerror(errno));
	close_fd(&fd);
}

/* Whether a word stands in a file of the form of hosts(5). */
static bool has_word(const char *text, const char *word)
{
	size_t len = strlen(word), n;

	for (; *text; text += n) {
		text += strspn(text, " \t\n");
		n = strcspn(text, " \t\n");
		if (n == len && !strncmp(text, word, len))
			return true;
	}
	return false;
}

/* sudo and others look their own host up: a name that no file knows costs time and a warning. */
static void name_host(const char *name)
{
	static char hosts[HOSTS_MAX];
	char line[128];

	if (sethostname(name, strlen(name)))
		boot_log("hostname %s: %s", name, strerror(errno));
	if (read_file("/etc/hosts", hosts, sizeof(hosts)) <= 0) {
		hosts[0] = '\0';
		append_file("/etc/hosts",
			"127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n");
	}
	if (has_word(hosts, name) || !strcmp(name, "localhost"))
		return;
	snprintf(line, sizeof(line), "127.0.1.1 %s\n", name);
	append_file("/etc/hosts", line);
}

static void set_names(const struct boot *b)
{
	char name[65] = "skerry", file[256];
	size_t n;

	if (b->hostname[0]) {
		memcpy(name, b->hostname, sizeof(name));
	} else if (read_file("/etc/hostname", file, sizeof(file)) > 0) {
		n = strcspn(file, " \t\n#");
		if (n && n < sizeof(name)) {
			memcpy(name, file, n);
			name[n] = '\0';
		}
	}
	name_host(name);
	if (access("/etc/hostname", F_OK)) {
		append_file("/etc/hostname", name);
		append_file("/etc/hostname", "\n");
	}
}

/* ---- all of it ---- */

void boot_system(const struct boot *b)
{
	struct rlimit files = { FILES_SOFT, FILES_HARD };

	boot_devices();
	boot_mount("run", "/run", "tmpfs", MS_NOSUID | MS_NODEV, "mode=0755,size=25%");
	if (mkdir("/run/lock", 01777) || chmod("/run/lock", 01777)) /* whatever the umask is */
		boot_log("/run/lock: %s", strerror(errno));
	boot_loopback();
	set_names(b);
	if (setrlimit(RLIMIT_NOFILE, &files))
		boot_log("limits: %s", strerror(errno));
}

struct guest_agent *boot_serve(const struct boot *b, const char *default_user)
{
	struct guest_config c = {
		.init_ns = b->init_ns,
		.default_user = default_user,
		.cgroup = "/sys/fs/cgroup",
		.power = true,
		.log_fd = open("/dev/kmsg", O_WRONLY | O_CLOEXEC),
	};
	struct guest_agent *a;
	int r = guest_agent_create(&a, &c);

	if (r)
		boot_fatal("agent: %s", strerror(-r));
	return a;
}

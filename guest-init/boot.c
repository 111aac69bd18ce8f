/*
 * guest-init/boot.c - command line, messages, modules, waiting for devices
 */
#include "guest-init/boot.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/netlink.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/reboot.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <termios.h>
#include <time.h>

#include "guest-init/agent.h"

#define PREFIX        "skerry-init: "
#define MESSAGE_MAX   512
#define LIST_MAX      (32 * 1024)
#define DEVICE_WAIT_S 10

/* ---- messages and the end ---- */

static printf_like(2, 0) size_t format(char line[MESSAGE_MAX], const char *fmt, va_list ap)
{
	size_t n = strlen(PREFIX);

	memcpy(line, PREFIX, n);
	vsnprintf(line + n, MESSAGE_MAX - n - 1, fmt, ap);
	n = strlen(line);
	line[n++] = '\n';
	return n;
}

static bool write_to(const char *device, const char *line, size_t len)
{
	int fd = open(device, O_WRONLY | O_NOCTTY | O_CLOEXEC);
	bool ok = fd >= 0 && write(fd, line, len) == (ssize_t)len;

	if (ok)
		tcdrain(fd); /* before the power goes */
	close_fd(&fd);
	return ok;
}

void boot_power_off(void)
{
	reboot(RB_POWER_OFF);
	reboot(RB_AUTOBOOT); /* no way to power off: restarting ends the machine as well */
	_exit(1);
}

void boot_fatal(const char *fmt, ...)
{
	char line[MESSAGE_MAX];
	va_list ap;
	size_t n;

	va_start(ap, fmt);
	n = format(line, fmt, ap);
	va_end(ap);
	if (!write_to("/dev/console", line, n))
		write_to("/dev/kmsg", line, n);
	boot_power_off();
}

void boot_log(const char *fmt, ...)
{
	char line[MESSAGE_MAX];
	va_list ap;
	size_t n;

	va_start(ap, fmt);
	n = format(line, fmt, ap);
	va_end(ap);
	write_to("/dev/kmsg", line, n);
}

/* ---- command line ---- */

bool boot_param(const char *cmdline, const char *key, char *ret, size_t size)
{
	size_t len = strlen(key), n;
	bool found = false;

	for (const char *p = cmdline; *p; p += n) {
		p += strspn(p, " \n");
		n = strcspn(p, " \n");
		if (n <= len || strncmp(p, key, len) || p[len] != '=' || n - len > size)
			continue;
		memcpy(ret, p + len + 1, n - len - 1);
		ret[n - len - 1] = '\0';
		found = true;
	}
	return found;
}

bool boot_bytes(const char *text, uint64_t *ret)
{
	static const char suffixes[] = "kmg";
	const char *s;
	char *end;

	if (*text < '0' || *text > '9')
		return false;
	errno = 0;
	*ret = strtoull(text, &end, 10);
	if (errno)
		return false;
	s = *end ? strchr(suffixes, *end | 0x20) : NULL;
	if (s) {
		unsigned shift = 10 * (unsigned)(s - suffixes + 1);

		if (*ret > UINT64_MAX >> shift)
			return false;
		*ret <<= shift;
		end++;
	}
	return !*end;
}

void boot_parse(struct boot *b)
{
	char text[32];

	strcpy(b->root, "/dev/vda");
	boot_param(b->cmdline, "skerry.root", b->root, sizeof(b->root));
	boot_param(b->cmdline, "skerry.hostname", b->hostname, sizeof(b->hostname));
	boot_param(b->cmdline, "skerry.mode", b->mode, sizeof(b->mode));
	boot_param(b->cmdline, "skerry.port", b->port, sizeof(b->port));
	if (boot_param(b->cmdline, "skerry.tmpfs", text, sizeof(text)) &&
		!boot_bytes(text, &b->tmpfs_bytes))
		boot_fatal("skerry.tmpfs=%s: not a number of bytes", text);
}

/* ---- modules ---- */

static void load_module(const char *path, const char *args)
{
	autoclose int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0 || (syscall(SYS_finit_module, fd, args, 0) && errno != EEXIST))
		boot_log("module %s: %s", path, strerror(errno));
	unlink(path);
}

static void load_line(const char *dir, char *line)
{
	char *args = line + strcspn(line, " \t"), path[256];

	if (*args)
		*args++ = '\0';
	if (!*line)
		return;
	if (snprintf(path, sizeof(path), "%s/%s", dir, line) >= (int)sizeof(path))
		boot_log("module %s: the name is too long", line);
	else
		load_module(path, args);
}

void boot_modules(const char *dir)
{
	static char text[LIST_MAX];
	char path[256], *line, *next;
	int fd;
	ssize_t n;

	snprintf(path, sizeof(path), "%s/list", dir);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return;
	n = read(fd, text, sizeof(text));
	close(fd);
	if (n < 0 || n == sizeof(text))
		boot_fatal("%s: can't be read, or longer than %d bytes", path, LIST_MAX);
	text[n] = '\0';
	for (line = text; *line; line = next) {
		next = line + strcspn(line, "\n");
		if (*next)
			*next++ = '\0';
		load_line(dir, line);
	}
	unlink(path);
}

/* ---- devices ---- */

static int64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static int open_events(void)
{
	struct sockaddr_nl all = { .nl_family = AF_NETLINK, .nl_groups = 1 };
	int fd =
		socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_KOBJECT_UEVENT);

	if (fd < 0 || bind(fd, (struct sockaddr *)&all, sizeof(all)))
		boot_fatal("kernel events: %s", strerror(errno));
	return fd;
}

void boot_wait_dev(const char *path)
{
	int64_t deadline = now_ms() + DEVICE_WAIT_S * 1000, left;
	struct pollfd p = { .events = POLLIN };
	char event[4096];

	if (!access(path, F_OK))
		return;
	p.fd = open_events();
	/* Any event is a reason to look; the first look is for what came before we listened. */
	while (access(path, F_OK)) {
		left = deadline - now_ms();
		if (left <= 0)
			boot_fatal(
				"%s didn't appear in %d s; is it attached, and its driver in the "
				"kernel or its modules?",
				path, DEVICE_WAIT_S);
		if (poll(&p, 1, (int)left) > 0)
			while (recv(p.fd, event, sizeof(event), 0) > 0)
				;
	}
	close(p.fd);
}

#include "api/emu/emu_dirs.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>

#include "api/store/dirs.h"
#include "base/loop.h"

#define LOCK_TURN_NS   (20 * NSEC_PER_MSEC)
#define LISTEN_BACKLOG 64
#define KEY_LEN        16
#define LOOK_MS        UINT64_C(100) /* for blocked signals, while waiting */

static void sleep_ns(uint64_t ns)
{
	struct timespec ts = { (time_t)(ns / NSEC_PER_SEC), (long)(ns % NSEC_PER_SEC) };

	nanosleep(&ts, NULL);
}

int emu_runtime_open(struct error *e)
{
	return dirs_open(DIRS_RUNTIME, true, e);
}

int emu_base_open(bool create, struct error *e)
{
	autoclose int runtime = emu_runtime_open(e);
	int fd;

	if (runtime < 0)
		return runtime;
	if (create && mkdirat(runtime, "emu", 0700) && errno != EEXIST)
		return error_set(e, errno, "runtime folder 'emu': %s", strerror(errno));
	fd = openat(runtime, "emu", O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
	if (fd < 0)
		return error_set(e, errno, "runtime folder 'emu': %s", strerror(errno));
	return fd;
}

int emu_each_begin(struct emu_each *each, int base)
{
	int fd = openat(base, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *list = fd < 0 ? NULL : fdopendir(fd);

	if (!list) {
		int r = -errno;

		close_fd(&fd);
		return r;
	}
	*each = (struct emu_each){ .base = base, .dir = -1, .list = list };
	return 0;
}

bool emu_each_next(struct emu_each *each)
{
	struct dirent *de;

	close_fd(&each->dir);
	while ((de = readdir(each->list))) {
		if (strlen(de->d_name) != KEY_LEN ||
			strspn(de->d_name, "0123456789abcdef") != KEY_LEN)
			continue;
		each->dir = openat(
			each->base, de->d_name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
		if (each->dir < 0)
			continue;
		memcpy(each->key, de->d_name, KEY_LEN + 1);
		return true;
	}
	return false;
}

void emu_each_end(struct emu_each *each)
{
	close_fd(&each->dir);
	closedir(each->list);
}

int emu_lock(int dir, uint64_t deadline_ns)
{
	struct stat st;

	while (flock(dir, LOCK_EX | LOCK_NB)) {
		if (errno != EWOULDBLOCK && errno != EINTR)
			return -errno;
		if (loop_now_ns() >= deadline_ns)
			return -ETIMEDOUT;
		sleep_ns(LOCK_TURN_NS);
	}
	if (fstat(dir, &st))
		return -errno;
	return st.st_nlink ? 0 : -ESTALE;
}

void emu_clean(int base, int dir, const char *key)
{
	static const char *const names[] = { EMU_SOCK, EMU_CONSOLE };

	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		unlinkat(dir, names[i], 0);
	unlinkat(base, key, AT_REMOVEDIR);
}

void emu_base_remove(int base)
{
	autoclose int runtime = openat(base, "..", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	/* Who starts a daemon holds this lock until the folder isn't empty any more. */
	if (runtime >= 0 && !emu_lock(base, 0))
		unlinkat(runtime, "emu", AT_REMOVEDIR);
}

/* By way of /proc, so that the length of the folder's path doesn't matter. */
static struct sockaddr_un sock_addr(int dir)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };

	snprintf(a.sun_path, sizeof(a.sun_path), "/proc/self/fd/%d/%s", dir, EMU_SOCK);
	return a;
}

int emu_connect_dir(int dir)
{
	struct sockaddr_un a = sock_addr(dir);
	/* The queue of a hung daemon is full: connect(2) would wait. */
	struct timeval most = { .tv_sec = 1 };
	autoclose int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &most, sizeof(most)) ||
		connect(fd, (struct sockaddr *)&a, sizeof(a)))
		return -errno;
	most.tv_sec = 0;
	if (setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &most, sizeof(most)))
		return -errno;
	return take_fd(&fd);
}

int emu_listen_dir(int dir)
{
	struct sockaddr_un a = sock_addr(dir);
	autoclose int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	mode_t old;
	int r;

	if (fd < 0)
		return -errno;
	old = umask(0177);
	r = bind(fd, (struct sockaddr *)&a, sizeof(a)) ? -errno : 0;
	umask(old);
	if (r)
		return r;
	if (listen(fd, LISTEN_BACKLOG))
		return -errno;
	return take_fd(&fd);
}

int emu_ask(int fd, enum emu_op op, const struct stat *disk)
{
	struct emu_request req = { .version = EMU_PROTO_VERSION, .op = (uint16_t)op };
	ssize_t n;

	memcpy(req.magic, EMU_MAGIC, sizeof(req.magic));
	if (disk) {
		req.disk_dev = disk->st_dev;
		req.disk_ino = disk->st_ino;
	}
	do {
		n = send(fd, &req, sizeof(req), MSG_NOSIGNAL);
	} while (n < 0 && errno == EINTR);
	return n == sizeof(req) ? 0 : n < 0 ? -errno : -EIO;
}

int emu_pending_signal(void)
{
	static const int ends[] = { SIGINT, SIGTERM, SIGHUP };
	struct sigaction sa;
	sigset_t set;

	if (sigpending(&set))
		return 0;
	for (size_t i = 0; i < ARRAY_SIZE(ends); i++)
		if (sigismember(&set, ends[i]) &&
			!(sigaction(ends[i], NULL, &sa) == 0 && sa.sa_handler == SIG_IGN))
			return ends[i];
	return 0;
}

/* Exactly @len bytes. 1, 0 at an end of file before the first, else -errno. */
static int recv_exact(int fd, uint8_t *data, size_t len, uint64_t deadline_ns)
{
	size_t have = 0;

	while (have < len) {
		struct pollfd p = { .fd = fd, .events = POLLIN };
		uint64_t now = loop_now_ns();
		ssize_t n;

		if (now >= deadline_ns)
			return -ETIMEDOUT;
		if (emu_pending_signal())
			return -EINTR;
		n = poll(&p, 1, (int)MIN((deadline_ns - now) / NSEC_PER_MSEC + 1, LOOK_MS));
		if (n < 0 && errno != EINTR)
			return -errno;
		if (n <= 0)
			continue;
		n = recv(fd, data + have, len - have, MSG_DONTWAIT);
		if (n < 0 && (errno == EAGAIN || errno == EINTR))
			continue;
		if (n < 0)
			return -errno;
		if (!n)
			return have ? -EPROTO : 0;
		have += (size_t)n;
	}
	return 1;
}

int emu_hear(int fd, uint64_t deadline_ns, char *text)
{
	uint8_t head[EMU_MSG_HEADER];
	uint32_t type, len;
	int r = recv_exact(fd, head, sizeof(head), deadline_ns);

	if (r <= 0)
		return r;
	type = head[0] | (uint32_t)head[1] << 8 | (uint32_t)head[2] << 16 | (uint32_t)head[3] << 24;
	len = head[4] | (uint32_t)head[5] << 8 | (uint32_t)head[6] << 16 | (uint32_t)head[7] << 24;
	if (type < EMU_MSG_WAIT || type > EMU_MSG_DISK || len > EMU_TEXT_MAX)
		return -EPROTO;
	if (len) {
		r = recv_exact(fd, (uint8_t *)text, len, deadline_ns);
		if (r <= 0)
			return r ? r : -EPROTO;
	}
	text[len] = '\0';
	return (int)type;
}

/*
 * api/emu/emu_start.c - find the daemon of the emulated host, or start it
 *
 * What:    one command at a time starts daemons (runtime/emu is locked meanwhile); it hands the new daemon its
 *          folder, already locked, and waits until it listens. The rest is said over the socket.
 * Races:   a daemon that ends between a look and a connection closes the connection without a word: look again.
 */
#include "api/emu/emu_start.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "api/emu/emu.h"
#include "api/emu/emu_dirs.h"
#include "base/loop.h"
#include "base/memfd.h"
#include "base/process.h"

#define LOCK_MAX_NS  (40 * NSEC_PER_SEC) /* others start daemons, or one is ending */
#define STOP_MAX_NS  (20 * NSEC_PER_SEC) /* more than a daemon waits for L1 */
#define READY_MAX_NS (20 * NSEC_PER_SEC) /* from exec to listening: milliseconds */
#define TRIES        8

/* ---- start ---- */

/* Remove the folders of daemons that were killed. */
static void sweep(int base)
{
	struct emu_each each;

	if (emu_each_begin(&each, base))
		return;
	while (emu_each_next(&each))
		if (!emu_lock(each.dir, 0))
			emu_clean(base, each.dir, each.key);
	emu_each_end(&each);
}

/* Our folder, made and locked. */
static int lock_folder(int base, const char *key, struct error *e)
{
	uint64_t deadline_ns = loop_now_ns() + LOCK_MAX_NS;
	int fd, r;

	for (;;) {
		if (mkdirat(base, key, 0700) && errno != EEXIST)
			return error_set(
				e, errno, "emulated host: folder '%s': %s", key, strerror(errno));
		fd = openat(base, key, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
		if (fd < 0 && errno == ENOENT)
			continue;
		if (fd < 0)
			return error_set(
				e, errno, "emulated host: folder '%s': %s", key, strerror(errno));
		r = emu_lock(fd, deadline_ns);
		if (!r)
			return fd;
		close(fd);
		if (r == -ETIMEDOUT)
			return error_set(e, ETIMEDOUT,
				"the emulated host that is ending does not end; try: skerry emu --stop --force");
		if (r != -ESTALE)
			return error_set(e, -r, "emulated host: lock: %s", strerror(-r));
	}
}

/* One byte: it listens. Text: why it doesn't. */
static int wait_ready(int fd, struct error *e)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };
	char text[sizeof(e->msg)];
	ssize_t n;

	if (poll(&p, 1, (int)(READY_MAX_NS / NSEC_PER_MSEC)) <= 0)
		return error_set(e, ETIMEDOUT, "the emulated host's daemon does not start");
	n = read(fd, text, sizeof(text) - 1);
	if (n == 1 && !text[0])
		return 0;
	if (n > 0)
		return error_set(e, EIO, "%.*s", (int)n, text);
	return error_set(e, EIO, "the emulated host's daemon died at its start");
}

static int spawn_daemon(const struct emu_config *c, int dir, struct error *e)
{
	autoclose int config = memfd_sealed("skerry-emu-config", c, sizeof(*c));
	struct process proc;
	int ready[2], r;

	if (config < 0)
		return error_set(e, -config, "memfd: %s", strerror(-config));
	if (pipe2(ready, O_CLOEXEC))
		return error_set(e, errno, "pipe: %s", strerror(errno));
	r = process_init(e);
	if (!r) {
		const int fds[EMU_FD_COUNT] = {
			-1,
			-1,
			-1,
			[EMU_FD_CONFIG] = config,
			[EMU_FD_DIR] = dir,
			[EMU_FD_READY] = ready[1],
		};
		const struct process_spec spec = {
			.argv0 = "skerry-emu",
			.name = c->key,
			.fds = fds,
			.nfds = EMU_FD_COUNT,
			.best = CONFINE_NONE, /* it starts programs and opens files by their path */
			.least = CONFINE_NONE,
		};
		r = process_spawn(&proc, &spec, e);
	}
	close(ready[1]);
	if (!r) {
		r = wait_ready(ready[0], e);
		close_fd(&proc.pidfd);
	}
	close(ready[0]);
	return r;
}

/* With runtime/emu locked. */
static int start_locked(const struct emu_config *c, int base, struct error *e)
{
	autoclose int dir = -1;
	int fd, r;

	dir = openat(base, c->key, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
	if (dir >= 0) {
		fd = emu_connect_dir(dir); /* somebody was faster */
		if (fd >= 0)
			return fd;
		close_fd(&dir);
	}
	sweep(base);
	dir = lock_folder(base, c->key, e);
	if (dir < 0)
		return dir;
	unlinkat(dir, EMU_SOCK, 0);
	r = spawn_daemon(c, dir, e);
	if (r) {
		emu_clean(base, dir, c->key);
		return r;
	}
	fd = emu_connect_dir(dir);
	return fd < 0 ? error_set(e, -fd, "emulated host: connect: %s", strerror(-fd)) : fd;
}

/* A connection to a daemon that lives, or that was started for it. */
static int reach(const struct emu_config *c, struct error *e)
{
	int r = -ESTALE, fd;

	for (int i = 0; i < TRIES && r == -ESTALE; i++) {
		autoclose int base = emu_base_open(true, e);
		autoclose int dir = -1;

		if (base < 0)
			return base;
		dir = openat(base, c->key, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
		fd = dir < 0 ? -ENOENT : emu_connect_dir(dir);
		if (fd >= 0)
			return fd;
		r = emu_lock(base, loop_now_ns() + LOCK_MAX_NS);
		if (!r)
			return start_locked(c, base, e); /* closing base unlocks it */
	}
	return error_set(e, -r, "emulated host: runtime folder: lock: %s", strerror(-r));
}

/* ---- wait for a port ---- */

static int open_console(const struct emu_config *c)
{
	struct error e;
	autoclose int base = emu_base_open(false, &e);
	autoclose int dir =
		base < 0 ? -1 : openat(base, c->key, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	return dir < 0 ? -1 : openat(dir, EMU_CONSOLE, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
}

/* 1 ready, 0 the daemon ended before it said anything final, -errno. */
static int wait_port(int fd, struct emu_wait *w, struct error *e)
{
	char *text = w->tail;
	size_t first;
	int type;

	for (;;) {
		type = emu_hear(fd, UINT64_MAX, text);
		switch (type) {
		case EMU_MSG_DISK:
		case EMU_MSG_WAIT:
			if (type == EMU_MSG_DISK && !w->need_disk)
				return error_set(e, EBUSY, "another emulated host has the disk");
			if (w->tell && *text)
				w->tell(text);
			*text = '\0';
			continue;
		case EMU_MSG_READY:
			return 1;
		case EMU_MSG_FAIL:
			/* One line says what, the rest are L1's last words. */
			first = strcspn(text, "\n");
			error_set(e, EIO, "%.*s", (int)first, text);
			memmove(text, text + first + (text[first] != '\0'),
				strlen(text + first) + (text[first] == '\0'));
			return -EIO;
		case 0:
		case -ECONNRESET:
			return 0;
		case -EINTR:
			return error_set(e, EINTR, "interrupted");
		default:
			return error_set(
				e, EPROTO, "emulated host: its daemon talks nonsense (%d)", type);
		}
	}
}

int emu_connect(
	struct emu_session *ret, const struct emu_config *c, struct emu_wait *w, struct error *e)
{
	int r = 0;

	w->tail[0] = '\0';
	for (int i = 0; !r && i < TRIES; i++) {
		autoclose int fd = reach(c, e);

		if (fd < 0) {
			r = fd;
			break;
		}
		r = emu_ask(fd, EMU_OP_SESSION, NULL);
		if (!r)
			r = wait_port(fd, w, e);
		else if (r == -EPIPE || r == -ECONNRESET)
			r = 0;
		else
			error_set(e, -r, "emulated host: %s", strerror(-r));
		if (r > 0) {
			ret->fd = take_fd(&fd);
			ret->console = open_console(c);
		}
	}
	if (!r)
		return error_set(e, EAGAIN, "the emulated host ends as soon as it is started");
	return MIN(r, 0);
}

/* A daemon that doesn't do what it was asked: its death ends QEMU and everything in L1. */
static void kill_daemon(int fd)
{
	struct ucred peer;
	socklen_t len = sizeof(peer);

	if (!getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) && peer.pid > 0)
		kill(peer.pid, SIGKILL);
}

/* 0: it has ended, whatever it answered. */
static int stop_one(int fd, int dir, bool force, struct error *e)
{
	uint64_t deadline_ns = loop_now_ns() + STOP_MAX_NS;
	char text[EMU_TEXT_MAX + 1];
	int r = emu_hear(fd, deadline_ns, text);

	if (r == EMU_MSG_FAIL)
		return error_set(e, EBUSY,
			"the emulated host was not ended: %s; --force ends it all the same", text);
	/* Gone is who no longer holds the lock. */
	r = emu_lock(dir, deadline_ns);
	if (r == -ETIMEDOUT && force) {
		kill_daemon(fd);
		r = emu_lock(dir, loop_now_ns() + STOP_MAX_NS);
	}
	return r && r != -ESTALE
		       ? error_set(e, -r, "the emulated host does not end; --force kills it")
		       : 0;
}

int emu_stop(bool force, unsigned *ret_stopped, struct error *e)
{
	autoclose int base = emu_base_open(false, e);
	struct emu_each each;
	unsigned n = 0;
	int r = 0;

	*ret_stopped = 0;
	if (base == -ENOENT)
		return 0;
	if (base < 0)
		return base;
	r = emu_each_begin(&each, base);
	if (r)
		return error_set(e, -r, "emulated host: runtime folder: %s", strerror(-r));
	while (!r && emu_each_next(&each)) {
		autoclose int fd = emu_connect_dir(each.dir);

		if (fd < 0 || emu_ask(fd, force ? EMU_OP_STOP_FORCE : EMU_OP_STOP, NULL))
			continue; /* dead or ending by itself */
		r = stop_one(fd, each.dir, force, e);
		n += !r;
	}
	emu_each_end(&each);
	*ret_stopped = n;
	return r;
}

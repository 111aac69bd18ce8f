/*
 * api/emu/emu_daemon.c - the role "skerry-emu": owns one emulated host
 *
 * What:    started by the first command that needs it, detached; starts QEMU, lets commands talk to the agent in L1,
 *          and ends when idle. QEMU dies with it; its folder is locked as long as it lives.
 *
 *            DISK --> BOOT --> UP --> ENDING --> gone
 *              \________\_______________/^
 *
 *          Ending: no new commands, L1 writes its disk back and powers off, files are removed.
 * Limits:  EMU_PORTS commands at once, EMU_WAITING_MAX more wait; buffers per session as in relay.h.
 */
#include "api/emu/emu_daemon.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "api/emu/emu.h"
#include "api/emu/emu_dirs.h"
#include "base/memfd.h"

#define RING_ENTRIES   128
#define BOOT_MAX_NS    (120 * NSEC_PER_SEC) /* takes 4 s; 20 on a very busy machine */
#define BOOT_MAX_IC_NS (300 * NSEC_PER_SEC) /* icount is two to three times slower */
#define END_MAX_NS     (10 * NSEC_PER_SEC)  /* for L1 to write back and power off */
#define DISK_RETRY_NS  (100 * NSEC_PER_MSEC)
#define DISK_ASK_NS    (2 * NSEC_PER_SEC)
#define DISK_TELL_NS   (8 * NSEC_PER_SEC) /* an idle one that still boots is gone by then */
#define ASK_MAX_NS     (1 * NSEC_PER_SEC)
#define DISK_MAX_NS    (90 * NSEC_PER_SEC)
#define TAIL_LINES     12

static const uint8_t daemon_next[DAEMON_STATES] = {
	[DAEMON_DISK] = 1 << DAEMON_BOOT | 1 << DAEMON_ENDING,
	[DAEMON_BOOT] = 1 << DAEMON_UP | 1 << DAEMON_ENDING,
	[DAEMON_UP] = 1 << DAEMON_ENDING,
	[DAEMON_ENDING] = 0,
};

static void daemon_set(struct daemon *d, enum daemon_state s)
{
	assert(daemon_next[d->state] & 1 << s);
	d->state = s;
}

/* What happens here is read together with what L1 says. */
static void note(struct daemon *d, const char *fmt, ...) printf_like(2, 3);

static void note(struct daemon *d, const char *fmt, ...)
{
	char line[512] = "skerry-emu: ";
	size_t at = strlen(line);
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(line + at, sizeof(line) - at - 1, fmt, ap);
	va_end(ap);
	if (n < 0)
		return;
	at = MIN(at + (size_t)n, sizeof(line) - 2);
	line[at++] = '\n';
	emu_console_write(&d->console, line, at);
}

/* ---- the end ---- */

static void stop_listening(struct daemon *d)
{
	int fd;

	if (d->listen_fd < 0)
		return;
	unlinkat(d->dir, EMU_SOCK, 0);
	loop_cancel(d->loop, &d->accept);
	/* Who connected meanwhile sees an end of file, and starts a new daemon. */
	shutdown(d->listen_fd, SHUT_RDWR);
	while ((fd = accept4(d->listen_fd, NULL, NULL, SOCK_CLOEXEC)) >= 0)
		close(fd);
	close_fd(&d->listen_fd);
}

void daemon_end(struct daemon *d)
{
	static const char bye = EMU_CTL_END;

	if (d->state == DAEMON_ENDING)
		return;
	daemon_set(d, DAEMON_ENDING);
	stop_listening(d);
	conns_fail(d, "the emulated host is ending");
	loop_timer_clear(d->loop, &d->idle);
	loop_timer_clear(d->loop, &d->boot);
	loop_timer_clear(d->loop, &d->disk_retry);
	if (d->qemu.pid > 0 && send(d->qemu.ctl, &bye, 1, MSG_NOSIGNAL | MSG_DONTWAIT) == 1)
		loop_timer_set(d->loop, &d->end, loop_now_ns() + END_MAX_NS);
	else
		loop_stop(d->loop);
}

static void end_timeout(struct loop_timer *t)
{
	loop_stop(container_of(t, struct daemon, end)->loop);
}

/* Tell those who wait why, and end at once: L1 is not what it should be. */
static void daemon_fail(struct daemon *d, const char *what)
{
	char tail[EMU_TEXT_MAX - 512], text[EMU_TEXT_MAX];

	emu_console_tail(d->console.fd, TAIL_LINES, tail, sizeof(tail));
	snprintf(text, sizeof(text), "%.300s%s%s", what, *tail ? "; its last words:\n" : "", tail);
	conns_fail(d, text);
	if (d->state != DAEMON_ENDING) {
		daemon_set(d, DAEMON_ENDING);
		stop_listening(d);
	}
	loop_stop(d->loop);
}

static void qemu_exited(struct loop_op *op, int res)
{
	struct daemon *d = container_of(op, struct daemon, exited);
	char what[96] = "the emulated host ended";
	int status = 0;

	if (res < 0)
		return;
	if (waitpid(d->qemu.pid, &status, 0) == d->qemu.pid)
		d->qemu.pid = -1;
	/* Its console may hold more than was read yet. */
	for (;;) {
		ssize_t n = read(d->qemu.console, d->console_in, sizeof(d->console_in));

		if (n <= 0)
			break;
		emu_console_write(&d->console, d->console_in, (size_t)n);
	}
	if (d->state == DAEMON_ENDING) {
		loop_stop(d->loop);
		return;
	}
	if (WIFSIGNALED(status))
		snprintf(what, sizeof(what), "QEMU was killed by signal %d", WTERMSIG(status));
	else if (WEXITSTATUS(status))
		snprintf(what, sizeof(what), "QEMU failed with status %d", WEXITSTATUS(status));
	daemon_fail(d, what);
	note(d, "%s", what); /* for those whose connection breaks next */
}

static void signalled(struct loop_op *op, int res)
{
	struct daemon *d = container_of(op, struct daemon, signal);

	if (res >= 0)
		daemon_end(d);
}

/* ---- idle or not ---- */

static void idle_timeout(struct loop_timer *t)
{
	daemon_end(container_of(t, struct daemon, idle));
}

void daemon_conns_changed(struct daemon *d)
{
	if (d->state == DAEMON_ENDING)
		return;
	if (d->nconns)
		loop_timer_clear(d->loop, &d->idle);
	else if (d->retiring || (d->state == DAEMON_DISK && d->disk_told))
		daemon_end(d);
	else
		loop_timer_set(d->loop, &d->idle, loop_now_ns() + d->cfg.idle_ns);
}

void daemon_port_up(struct daemon *d)
{
	if (d->state == DAEMON_BOOT) {
		daemon_set(d, DAEMON_UP);
		loop_timer_clear(d->loop, &d->boot);
	}
	conns_serve(d);
}

void daemon_port_lost(struct daemon *d, const struct port *p, const char *why)
{
	if (d->state == DAEMON_ENDING)
		return;
	note(d, "port %u: %s", p->index, why);
	for (unsigned i = 0; i < EMU_PORTS; i++)
		if (d->port[i].relay.state != RELAY_DEAD)
			return;
	daemon_fail(d, "the emulated host answers no more");
}

static void boot_timeout(struct loop_timer *t)
{
	struct daemon *d = container_of(t, struct daemon, boot);

	daemon_fail(d, "the emulated host did not come up in time");
}

/* ---- L1's console ---- */

static void console_read_done(struct loop_op *op, int res)
{
	struct daemon *d = container_of(op, struct daemon, console_read);

	if (res <= 0) /* QEMU ended: its pidfd says so */
		return;
	emu_console_write(&d->console, d->console_in, (size_t)res);
	loop_read(d->loop, &d->console_read, d->console_slot, d->console_in, sizeof(d->console_in),
		LOOP_OFF_NONE);
}

/* ---- the beginning ---- */

static int watch_qemu(struct daemon *d)
{
	d->console_slot = loop_add_fd(d->loop, d->qemu.console);
	d->pidfd_slot = loop_add_fd(d->loop, d->qemu.pidfd);
	if (d->console_slot < 0 || d->pidfd_slot < 0)
		return MIN(d->console_slot, d->pidfd_slot);
	d->console_read.done = console_read_done;
	loop_read(d->loop, &d->console_read, d->console_slot, d->console_in, sizeof(d->console_in),
		LOOP_OFF_NONE);
	d->exited.done = qemu_exited;
	loop_poll(d->loop, &d->exited, d->pidfd_slot, POLLIN);
	return ports_start(d);
}

static void start_qemu(struct daemon *d)
{
	struct error e = { 0 };
	int r = emu_qemu_start(&d->qemu, &d->cfg, d->disk, emu_tsc_end(&d->tsc), &e);

	if (!r) {
		r = watch_qemu(d);
		if (r)
			error_set(&e, -r, "emulated host: %s", strerror(-r));
	}
	if (r) {
		daemon_fail(d, e.msg);
		return;
	}
	daemon_set(d, DAEMON_BOOT);
	loop_timer_set(
		d->loop, &d->boot, loop_now_ns() + (d->cfg.icount ? BOOT_MAX_IC_NS : BOOT_MAX_NS));
}

/* Ask the other emulated hosts of this user to let go of our disk when they can. True: one can't yet. */
static bool ask_for_disk(struct daemon *d)
{
	autoclose int base = openat(d->dir, "..", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	char text[EMU_TEXT_MAX + 1];
	struct emu_each each;
	struct stat disk;
	bool busy = false;

	if (base < 0 || emu_disk_stat(&d->cfg, &disk) || emu_each_begin(&each, base))
		return false;
	while (emu_each_next(&each)) {
		autoclose int fd = strcmp(each.key, d->cfg.key) ? emu_connect_dir(each.dir) : -1;

		/* One that can't be asked is ending, or dead and its lock free. */
		if (fd >= 0 && !emu_ask(fd, EMU_OP_RETIRE, &disk))
			busy |= emu_hear(fd, loop_now_ns() + ASK_MAX_NS, text) == EMU_MSG_FAIL;
	}
	emu_each_end(&each);
	return busy;
}

static void wait_for_disk(struct daemon *d)
{
	uint64_t now = loop_now_ns();
	bool busy = false;

	if (!d->disk_since_ns)
		d->disk_since_ns = now;
	if (now >= d->disk_since_ns + DISK_MAX_NS) {
		daemon_fail(d,
			"another emulated host has the state folder's disk, and commands in it that "
			"don't end; end them, or use: skerry emu --stop --force");
		return;
	}
	if (now >= d->disk_asked_ns + DISK_ASK_NS) {
		d->disk_asked_ns = now;
		busy = ask_for_disk(d);
	}
	if (!d->disk_told && (busy || now >= d->disk_since_ns + DISK_TELL_NS)) {
		d->disk_told = true;
		conns_tell_disk(d);
	}
	loop_timer_set(d->loop, &d->disk_retry, now + DISK_RETRY_NS);
}

static void try_disk(struct daemon *d)
{
	struct error e = { 0 };
	int r = 0;

	if (!d->cfg.scratch)
		r = d->disk = emu_disk_open(&d->cfg, &e);
	if (r >= 0)
		start_qemu(d);
	else if (r == -EWOULDBLOCK)
		wait_for_disk(d);
	else
		daemon_fail(d, e.msg);
}

static void disk_retry(struct loop_timer *t)
{
	try_disk(container_of(t, struct daemon, disk_retry));
}

static int watch_signals(struct daemon *d)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGHUP);
	if (sigprocmask(SIG_BLOCK, &set, NULL) || signal(SIGPIPE, SIG_IGN) == SIG_ERR)
		return -errno;
	d->signal_fd = signalfd(-1, &set, SFD_CLOEXEC);
	if (d->signal_fd < 0)
		return -errno;
	d->signal_slot = loop_add_fd(d->loop, d->signal_fd);
	if (d->signal_slot < 0)
		return d->signal_slot;
	d->signal.done = signalled;
	loop_poll(d->loop, &d->signal, d->signal_slot, POLLIN);
	return 0;
}

static int start_listening(struct daemon *d)
{
	d->listen_fd = emu_listen_dir(d->dir);
	if (d->listen_fd < 0)
		return d->listen_fd;
	d->listen_slot = loop_add_fd(d->loop, d->listen_fd);
	if (d->listen_slot < 0)
		return d->listen_slot;
	conns_listen(d);
	return 0;
}

static int set_up(struct daemon *d, struct error *e)
{
	int r = memfd_read(EMU_FD_CONFIG, &d->cfg, sizeof(d->cfg));

	if (r || d->cfg.magic != EMU_CONFIG_MAGIC || d->cfg.size != sizeof(d->cfg))
		return error_set(e, EINVAL, "skerry-emu is started by skerry, not by hand");
	emu_tsc_begin(&d->tsc);
	r = loop_create(&d->loop, RING_ENTRIES, e);
	if (!r)
		r = loop_start(d->loop, false, e);
	if (r)
		return r;
	r = emu_console_create(&d->console, d->dir);
	if (!r)
		r = watch_signals(d);
	if (!r)
		r = start_listening(d);
	return r ? error_set(e, -r, "emulated host: %s", strerror(-r)) : 0;
}

static struct daemon *daemon_create(void)
{
	struct daemon *d = calloc(1, sizeof(*d));

	if (!d)
		return NULL;
	d->dir = EMU_FD_DIR;
	d->ready = EMU_FD_READY;
	d->listen_fd = d->signal_fd = d->disk = d->console.fd = -1;
	d->qemu.pid = d->qemu.pidfd = d->qemu.console = d->qemu.ctl = -1;
	d->idle.fire = idle_timeout;
	d->boot.fire = boot_timeout;
	d->end.fire = end_timeout;
	d->disk_retry.fire = disk_retry;
	for (unsigned i = 0; i < EMU_PORTS; i++) {
		d->qemu.port[i] = -1;
		d->port[i].daemon = d;
		d->port[i].index = i;
	}
	return d;
}

static void daemon_destroy(struct daemon *d)
{
	autoclose int base = openat(d->dir, "..", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	emu_qemu_end(&d->qemu); /* before its files and the disk's lock go */
	close_fd(&d->disk);
	if (base >= 0 && d->cfg.magic == EMU_CONFIG_MAGIC)
		emu_clean(base, d->dir, d->cfg.key);
	if (base >= 0)
		emu_base_remove(base);
	loop_destroy(d->loop);
	conns_free(d);
	close_fd(&d->listen_fd);
	close_fd(&d->signal_fd);
	emu_console_finish(&d->console);
	free(d);
}

int emu_daemon_main(unused_arg int argc, unused_arg char **argv)
{
	struct daemon *d = daemon_create();
	struct error e = { 0 };
	int r = d ? set_up(d, &e) : error_set(&e, ENOMEM, "emulated host: out of memory");

	for (int fd = EMU_FD_CONFIG; fd < EMU_FD_COUNT; fd++)
		if (fcntl(fd, F_SETFD, FD_CLOEXEC))
			r = error_set(&e, EINVAL, "skerry-emu is started by skerry, not by hand");
	if (r) {
		dprintf(EMU_FD_READY, "%s", e.msg);
	} else {
		char yes = 0;

		/* If nobody reads it, the command that started us has died; others may come. */
		if (write(EMU_FD_READY, &yes, 1) != 1)
			note(d, "the command that started this is gone");
		close(EMU_FD_READY);
		daemon_conns_changed(d);
		try_disk(d);
		if (loop_run(d->loop))
			note(d, "the event loop broke");
	}
	if (d)
		daemon_destroy(d);
	return r ? 1 : 0;
}

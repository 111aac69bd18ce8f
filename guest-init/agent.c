/*
 * guest-init/agent.c - the loop of the agent
 *
 * What:    one thread, one epoll. A turn: ask the kernel, run the sources that were queued until
 *          then (each does a bounded piece of work and queues itself again if there is more), send
 *          what came together.
 * Trust:   guest-init/agent.h
 * Signals: all blocked. SIGCHLD comes through a signalfd; as PID 1 nothing else can end us but
 *          ourselves.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/reboot.h>
#include <sys/signalfd.h>
#include <sys/sysinfo.h>
#include <sys/wait.h>
#include <time.h>

#include "guest-init/agent_int.h"

#define EVENTS       64
#define REAP_BUDGET  256
#define FILES_MAX    65536
#define LOG_SECONDS  10
#define LOG_LINES    20 /* in LOG_SECONDS */
#define SIG_POWEROFF 38 /* SIGRTMIN+4 and +5 as glibc counts: what systemd gives these meanings */
#define SIG_REBOOT   39

uint64_t agent_now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * NSEC_PER_SEC + (uint64_t)t.tv_nsec;
}

void agent_log(struct guest_agent *a, const char *fmt, ...)
{
	uint64_t window = agent_now_ns() / NSEC_PER_SEC / LOG_SECONDS;
	char line[256] = "skerry-init: ";
	size_t n = strlen(line);
	va_list ap;

	if (window != a->log_window) {
		a->log_window = window;
		a->log_lines = 0;
	}
	if (a->config.log_fd < 0 || a->log_lines++ >= LOG_LINES)
		return;
	va_start(ap, fmt);
	vsnprintf(line + n, sizeof(line) - n - 1, fmt, ap);
	va_end(ap);
	n = strlen(line);
	line[n++] = '\n';
	if (write(a->config.log_fd, line, n) < 0)
		return; /* nobody to tell */
}

int fd_nonblock(int fd)
{
	int flags = fcntl(fd, F_GETFL);

	return flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) ? -errno : 0;
}

/* ---- sources ---- */

void source_init(struct source *s, void (*run)(struct source *s))
{
	*s = (struct source){ .fd = -1, .run = run };
	list_init(&s->node);
}

int source_add(struct guest_agent *a, struct source *s, int fd, uint32_t events)
{
	struct epoll_event e = { .events = events | EPOLLET, .data.ptr = s };

	if (epoll_ctl(a->epoll, EPOLL_CTL_ADD, fd, &e))
		return -errno;
	s->fd = fd;
	return 0;
}

void source_queue(struct guest_agent *a, struct source *s)
{
	if (!list_linked(&s->node))
		list_push(&a->queue, &s->node);
}

void source_close(struct guest_agent *a, struct source *s)
{
	if (list_linked(&s->node))
		list_del(&s->node);
	if (s->fd < 0)
		return;
	/*
	 * Explicitly: a copy of the descriptor would keep it in the epoll, pointing at freed
	 * memory.
	 */
	epoll_ctl(a->epoll, EPOLL_CTL_DEL, s->fd, NULL);
	close_fd(&s->fd);
}

/* ---- watches of others ---- */

struct watch {
	struct source src;
	guest_watch_fn *fn;
	void *ctx;
};

static void watch_run(struct source *s)
{
	struct watch *w = container_of(s, struct watch, src);

	w->fn(w->ctx, s->fd);
}

int guest_agent_watch(struct guest_agent *a, int fd, guest_watch_fn *fn, void *ctx)
{
	struct watch *w = calloc(1, sizeof(*w));
	int r;

	if (!w)
		return -ENOMEM;
	source_init(&w->src, watch_run);
	w->fn = fn;
	w->ctx = ctx;
	r = source_add(a, &w->src, fd, EPOLLIN);
	if (r)
		free(w);
	return r; /* a watch lives as long as the agent, which is PID 1 */
}

/* ---- signals ---- */

static _Noreturn void power(int how)
{
	sync();
	reboot(how);
	_exit(1); /* refused: the kernel panics, which ends the machine too */
}

static void take_signals(struct guest_agent *a)
{
	struct signalfd_siginfo si[16];
	ssize_t n;

	while ((n = read(a->children.fd, si, sizeof(si))) > 0)
		for (size_t i = 0; i < (size_t)n / sizeof(si[0]); i++) {
			if (!a->config.power)
				continue;
			if (si[i].ssi_signo == SIG_POWEROFF)
				power(RB_POWER_OFF);
			if (si[i].ssi_signo == SIG_REBOOT)
				power(RB_AUTOBOOT);
		}
}

static void children_run(struct source *s)
{
	struct guest_agent *a = container_of(s, struct guest_agent, children);
	struct list *n, *tmp;
	int status, budget = REAP_BUDGET;
	pid_t pid = 0;

	take_signals(a);
	while (budget-- && (pid = waitpid(-1, &status, WNOHANG)) > 0)
		proc_exited(a, pid, status);
	if (pid > 0)
		source_queue(a, s);
	cgroup_sweep(&a->cgroups);
	list_each(n, tmp, &a->conns) cgroup_conn_sweep(&list_entry(n, struct conn, node)->cgroup);
}

static int open_signals(struct guest_agent *a)
{
	sigset_t set;
	int fd, r;

	sigfillset(&set);
	if (sigprocmask(SIG_SETMASK, &set, NULL))
		return -errno;
	sigemptyset(&set);
	sigaddset(&set, SIGCHLD);
	if (a->config.power) {
		sigaddset(&set, SIG_POWEROFF);
		sigaddset(&set, SIG_REBOOT);
	}
	fd = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
	if (fd < 0)
		return -errno;
	r = source_add(a, &a->children, fd, EPOLLIN);
	if (r)
		close(fd);
	return r;
}

/* ---- life ---- */

/* Descriptors 0 to 2 exist, so that none of ours gets in the way of a child's. */
static int fill_std(int null)
{
	for (int fd = 0; fd < 3; fd++)
		if (fcntl(fd, F_GETFD) < 0 && dup2(null, fd) < 0)
			return -errno;
	return 0;
}

static void limits(struct guest_agent *a)
{
	struct rlimit l;
	struct sysinfo si;

	getrlimit(RLIMIT_NOFILE, &a->nofile);
	l = a->nofile;
	l.rlim_cur = MIN(MAX(l.rlim_cur, FILES_MAX), l.rlim_max);
	setrlimit(
		RLIMIT_NOFILE, &l); /* only upwards; if it fails spawns fail earlier, with EMFILE */
	a->stdin_max = GUEST_STDIN_MAX;
	if (!sysinfo(&si))
		a->stdin_max = MIN(a->stdin_max, (size_t)si.totalram * si.mem_unit / 8);
}

static int open_files(struct guest_agent *a)
{
	int fd = open("/dev/null", O_RDWR | O_CLOEXEC);

	if (fd < 0)
		return -errno;
	a->null = fcntl(fd, F_DUPFD_CLOEXEC, 3);
	if (a->null < 0 || fill_std(fd)) {
		close(fd);
		return -EMFILE;
	}
	if (fd > 2)
		close(fd);
	a->pts = open("/dev/pts", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	a->vmstat = open("/proc/vmstat", O_RDONLY | O_CLOEXEC);
	a->epoll = epoll_create1(EPOLL_CLOEXEC);
	return a->epoll < 0 ? -errno : open_signals(a);
}

static int set_time(uint64_t unix_ns)
{
	struct timespec t = { .tv_sec = (time_t)(unix_ns / NSEC_PER_SEC),
		.tv_nsec = (long)(unix_ns % NSEC_PER_SEC) };

	return clock_settime(CLOCK_REALTIME, &t) ? -errno : 0;
}

static int send_signal(pid_t pid, int sig)
{
	return kill(pid, sig) ? -errno : 0;
}

int guest_agent_create(struct guest_agent **ret, const struct guest_config *c)
{
	struct guest_agent *a = calloc(1, sizeof(*a));
	int r;

	if (!a)
		return -ENOMEM;
	a->config = *c;
	a->sys =
		(struct guest_sys){ .spawn = spawn_run, .kill = send_signal, .set_time = set_time };
	a->epoll = a->null = a->pts = a->vmstat = -1;
	source_init(&a->children, children_run);
	source_init(&a->listener, NULL);
	list_init(&a->queue);
	list_init(&a->conns);
	list_init(&a->dirty);
	list_init(&a->ended);
	list_init(&a->held);
	limits(a);
	cgroup_open(&a->cgroups, c->cgroup);
	a->json = jread_create();
	r = a->json ? open_files(a) : -ENOMEM;
	if (r) {
		guest_agent_destroy(a);
		return r;
	}
	a->ready_ns = agent_now_ns();
	*ret = a;
	return 0;
}

void guest_agent_destroy(struct guest_agent *a)
{
	struct list *n;

	if (!a)
		return;
	while ((n = list_pop(&a->conns)))
		conn_destroy(list_entry(n, struct conn, node));
	source_close(a, &a->children);
	source_close(a, &a->listener);
	cgroup_close(&a->cgroups);
	jread_destroy(a->json);
	close_fd(&a->pts);
	close_fd(&a->vmstat);
	close_fd(&a->null);
	close_fd(&a->epoll);
	free(a);
}

/* ---- the loop ---- */

static int release_held(struct guest_agent *a)
{
	uint64_t now = agent_now_ns() / NSEC_PER_MSEC;

	while (!list_empty(&a->held)) {
		struct proc *p = list_entry(a->held.next, struct proc, held);

		if (p->held_until_ms > now)
			return (int)(p->held_until_ms - now);
		proc_release(p);
	}
	return -1;
}

static void end_conns(struct guest_agent *a)
{
	struct list *n;

	while ((n = list_pop(&a->ended)))
		conn_end(list_entry(n, struct conn, ended));
}

static void run_queue(struct guest_agent *a)
{
	struct list now, *n;

	end_conns(a);
	list_init(&now);
	while ((n = list_pop(&a->queue)))
		list_push(&now, n);
	while ((n = list_pop(&now))) {
		struct source *s = list_entry(n, struct source, node);

		s->run(s);
		end_conns(a);
	}
}

static void flush_dirty(struct guest_agent *a)
{
	struct list *n;

	while ((n = list_pop(&a->dirty)))
		conn_flush(list_entry(n, struct conn, dirty));
	end_conns(a);
}

int agent_turn(struct guest_agent *a, int most_ms)
{
	struct epoll_event ev[EVENTS];
	int timeout = release_held(a), n;

	if (!list_empty(&a->queue))
		timeout = 0;
	else if (timeout < 0 || (most_ms >= 0 && most_ms < timeout))
		timeout = most_ms;
	n = epoll_wait(a->epoll, ev, EVENTS, timeout);
	if (n < 0 && errno != EINTR)
		return -errno;
	for (int i = 0; i < n; i++) {
		struct source *s = ev[i].data.ptr;

		s->ready |= ev[i].events;
		source_queue(a, s);
	}
	run_queue(a);
	flush_dirty(a);
	return 0;
}

int guest_agent_run(struct guest_agent *a)
{
	int r = 0;

	while (!a->stop && !r)
		r = agent_turn(a, -1);
	return r;
}

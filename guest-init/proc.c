/*
 * guest-init/proc.c - processes that a connection started
 *
 * What:    a struct proc lives from the start to the connection's end, or until GUEST_EXITED_MAX
 *          others have exited after it: somebody may still ask for its status. Its streams don't
 *          depend on it: a child that outlives it may hold them open.
 * Holding: without binary, output waits for the first processWait, or HOLD_MS from the answer (from
 *          the end of stdin if there is one): protocol.md 6.2, SDKs drop what comes before they
 *          have registered the streams.
 * Ids:     a pid is the kernel's. It is not given out again before we reap it, so a signal can't
 *          hit another.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <termios.h>

#include "guest-init/agent_int.h"

#define TTY_GROUP 5 /* of terminals, as Debian and devpts(5) have it */

struct proc *proc_find(struct conn *c, uint64_t pid)
{
	struct hash_node *n = *hash_head(&c->agent->procs, pid);

	for (; n; n = n->next) {
		struct proc *p = container_of(n, struct proc, hash);

		if ((uint64_t)p->pid == pid && p->conn == c)
			return p;
	}
	return NULL;
}

/* ---- start ---- */

/* Descriptors of one start: ours go to streams, theirs to the process. */
struct ends {
	int ours[3], theirs[3];
	int pty; /* master */
};

static void close_theirs(struct ends *e)
{
	for (int i = 0; i < 3; i++)
		close_fd(&e->theirs[i]);
}

static void close_ends(struct ends *e)
{
	for (int i = 0; i < 3; i++)
		close_fd(&e->ours[i]);
	close_theirs(e);
	close_fd(&e->pty);
}

static int copy_fd(int fd)
{
	int r = fcntl(fd, F_DUPFD_CLOEXEC, 3);

	return r < 0 ? -errno : r;
}

/* A pipe whose end @ours (0 reads, 1 writes) is the agent's. */
static int open_pipe(struct ends *e, int i, int ours)
{
	int fd[2];

	if (pipe2(fd, O_CLOEXEC))
		return -errno;
	e->ours[i] = fd[ours];
	e->theirs[i] = fd[!ours];
	return 0;
}

static int open_null(struct conn *c, struct ends *e, int i)
{
	e->theirs[i] = copy_fd(c->agent->null);
	return MIN(e->theirs[i], 0);
}

static int open_pipes(struct conn *c, const struct proc_request *q, struct ends *e)
{
	int r = q->has_stdin ? open_pipe(e, 0, 1) : open_null(c, e, 0);

	for (int i = 1; i < 3 && !r; i++)
		r = q->null_out[i - 1] ? open_null(c, e, i) : open_pipe(e, i, 0);
	return r;
}

static int set_size(int fd, unsigned rows, unsigned cols)
{
	struct winsize w = { .ws_row = (unsigned short)rows, .ws_col = (unsigned short)cols };

	return ioctl(fd, TIOCSWINSZ, &w) ? -errno : 0;
}

static int open_slave(const struct proc_request *q, int master)
{
	struct termios t;
	int unlock = 0, fd;

	if (ioctl(master, TIOCSPTLCK, &unlock))
		return -errno;
	fd = ioctl(master, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	if (!tcgetattr(fd, &t)) {
		t.c_iflag |= IUTF8;
		tcsetattr(fd, TCSANOW, &t);
	}
	/* Not as root in a test: then it belongs to us already. */
	if (q->spawn.set_ids && (fchown(fd, q->spawn.uid, TTY_GROUP) || fchmod(fd, 0620))) {
		close(fd);
		return -EPERM;
	}
	return fd;
}

static int open_pty(struct conn *c, const struct proc_request *q, struct ends *e)
{
	int r = -ENXIO;

	if (c->agent->pts >= 0)
		e->pty = openat(c->agent->pts, "ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC);
	if (e->pty < 0) /* elsewhere /dev/pts/ptmx may be nobody's */
		e->pty = open("/dev/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC);
	if (e->pty < 0)
		return -errno;
	r = set_size(e->pty, q->rows, q->cols);
	if (r)
		return r;
	e->theirs[0] = r = open_slave(q, e->pty);
	for (int i = 1; i < 3 && r >= 0; i++)
		e->theirs[i] = r = copy_fd(e->theirs[0]);
	if (r >= 0)
		e->ours[1] = r = copy_fd(e->pty);
	if (r >= 0 && q->has_stdin)
		e->ours[0] = r = copy_fd(e->pty);
	return MIN(r, 0);
}

/* Gives our ends to streams. On failure those made so far remain, in @p. */
static int make_streams(
	struct conn *c, const struct proc_request *q, struct ends *e, struct proc *p)
{
	int r = 0;

	for (int i = 0; i < 2 && !r; i++) {
		if (e->ours[i + 1] < 0)
			continue;
		r = output_create(c, take_fd(&e->ours[i + 1]), q->pty, &p->out[i]);
		if (!r)
			p->out[i]->proc = p;
	}
	if (!r && q->has_stdin) {
		r = input_claim(c, q->stdin_id, take_fd(&e->ours[0]), q->pty, &p->in);
		if (!r)
			p->in->proc = p;
	}
	return r;
}

static void drop_streams(struct proc *p)
{
	struct input *i = p->in;

	for (int k = 0; k < 2; k++)
		if (p->out[k])
			output_free(p->out[k]);
	if (i) {
		i->proc = NULL;
		p->in = NULL;
		input_cancel(i, ECANCELED, "the process could not be started");
	}
}

static int run(struct conn *c, struct proc_request *q, struct ends *e, struct proc *p)
{
	autoclose int group = cgroup_prog_create(&c->cgroup, &p->group);
	int r;

	memcpy(q->spawn.fd, e->theirs, sizeof(e->theirs));
	q->spawn.tty = q->pty;
	q->spawn.nofile = c->agent->nofile;
	q->spawn.cgroup_fd = group;
	r = c->agent->sys.spawn(&q->spawn, &p->pid);
	if (!r)
		return 0;
	cgroup_prog_end(&c->cgroup, p->group);
	p->group = 0;
	if (group < 0 || q->spawn.stage != SPAWN_CLONE || r == -EAGAIN || r == -ENOMEM)
		return r;
	q->spawn.cgroup_fd = -1; /* the guest's root made groups of ours that can't be entered */
	return c->agent->sys.spawn(&q->spawn, &p->pid);
}

/* The kernel gave out this number again: nobody can mean the old one. */
static void forget_pid(struct guest_agent *a, pid_t pid)
{
	struct hash_node *n = *hash_head(&a->procs, (uint64_t)pid), *next;

	for (; n; n = next) {
		struct proc *p = container_of(n, struct proc, hash);

		next = n->next;
		if (p->pid == pid && p->exited)
			proc_free(p);
	}
}

static struct proc *proc_new(struct conn *c)
{
	struct proc *p = calloc(1, sizeof(*p));

	if (!p)
		return NULL;
	p->conn = c;
	p->pty = -1;
	list_init(&p->held);
	list_init(&p->node);
	return p;
}

int proc_start(struct conn *c, struct proc_request *q, struct proc **ret, struct proc_failure *f)
{
	struct ends e = { { -1, -1, -1 }, { -1, -1, -1 }, -1 };
	struct guest_agent *a = c->agent;
	struct proc *p = proc_new(c);
	int r = p ? 0 : -ENOMEM;

	if (a->nprocs >= GUEST_PROCS_MAX)
		r = -EAGAIN;
	if (!r)
		r = q->pty ? open_pty(c, q, &e) : open_pipes(c, q, &e);
	if (!r)
		r = make_streams(c, q, &e, p);
	*f = (struct proc_failure){ -r, SPAWN_SETUP };
	if (!r) {
		r = run(c, q, &e, p);
		*f = (struct proc_failure){ q->spawn.err, q->spawn.stage };
	}
	if (r) {
		if (p)
			drop_streams(p);
		close_ends(&e);
		free(p);
		return r;
	}
	close_theirs(&e);
	p->pty = e.pty;
	forget_pid(a, p->pid);
	list_push(&c->procs, &p->node);
	hash_add(&a->procs, (uint64_t)p->pid, &p->hash);
	a->nprocs++;
	*ret = p;
	return 0;
}

/* ---- holding ---- */

void proc_started(struct proc *p)
{
	p->holding = true;
	if (p->conn->binary)
		proc_release(p);
	else if (!p->in)
		proc_stdin_over(p);
}

void proc_stdin_over(struct proc *p)
{
	if (!p->holding || list_linked(&p->held))
		return;
	p->held_until_ms = agent_now_ns() / NSEC_PER_MSEC + HOLD_MS;
	list_push(
		&p->conn->agent->held, &p->held); /* all wait equally long: the list stays sorted */
}

void proc_release(struct proc *p)
{
	if (!p->holding)
		return;
	p->holding = false;
	list_del(&p->held);
	for (int i = 0; i < 2; i++)
		if (p->out[i])
			output_release(p->out[i]);
}

/* ---- exit ---- */

static void answer_wait(struct proc *p, uint64_t id)
{
	bool killed = WIFSIGNALED(p->status);
	int code = killed ? 128 + WTERMSIG(p->status) : WEXITSTATUS(p->status);
	char name[16];
	struct jwrite w;

	rpc_ok_begin(p->conn, &w, id);
	jwrite_fmt(&w, "{\"success\":%s,\"code\":%d,\"signal\":", code ? "false" : "true", code);
	if (killed)
		jwrite_text(&w, signals_name(WTERMSIG(p->status), name));
	else
		jwrite_raw(&w, "null");
	jwrite_raw(&w, ",\"oom\":");
	if (p->oom)
		jwrite_text(&w, p->oom);
	else
		jwrite_raw(&w, "null");
	jwrite_raw(&w, "}");
	rpc_ok_end(p->conn, &w);
}

/* Whether the kernel's count of processes killed for want of memory rose since we last looked. */
static bool oom_kills_rose(struct guest_agent *a)
{
	char text[16384];
	const char *p;
	uint64_t n;
	ssize_t len = a->vmstat < 0 ? -1 : pread(a->vmstat, text, sizeof(text) - 1, 0);

	if (len <= 0)
		return false;
	text[len] = '\0';
	p = strstr(text, "\noom_kill ");
	n = p ? strtoull(p + 10, NULL, 10) : 0;
	if (n <= a->oom_kills)
		return false;
	a->oom_kills = n;
	return true;
}

/* A shell whose child was killed passes 137 on: its group's count says the same then. */
static const char *judge_oom(struct proc *p)
{
	bool killed = WIFSIGNALED(p->status) && WTERMSIG(p->status) == SIGKILL;

	if (!killed && !(WIFEXITED(p->status) && WEXITSTATUS(p->status) == 128 + SIGKILL))
		return NULL;
	if (cgroup_prog_oom(&p->conn->cgroup, p->group))
		return "high-confidence";
	return killed && !p->group && oom_kills_rose(p->conn->agent) ? "low-confidence" : NULL;
}

static struct proc *find_running(struct guest_agent *a, pid_t pid)
{
	struct hash_node *n = *hash_head(&a->procs, (uint64_t)pid);

	for (; n; n = n->next) {
		struct proc *p = container_of(n, struct proc, hash);

		if (p->pid == pid && !p->exited)
			return p;
	}
	return NULL;
}

void proc_exited(struct guest_agent *a, pid_t pid, int status)
{
	struct proc *p = find_running(a, pid);
	struct conn *c;

	if (!p) /* an orphan, or what a connection left that has ended */
		return;
	c = p->conn;
	p->exited = true;
	p->status = status;
	p->oom = judge_oom(p);
	a->nprocs--;
	cgroup_prog_end(&c->cgroup, p->group);
	close_fd(&p->pty);
	list_del(&p->node);
	list_push(&c->exited, &p->node);
	for (unsigned i = 0; i < p->nwaits; i++)
		answer_wait(p, p->waits[i]);
	p->nwaits = 0;
	if (++c->nexited > GUEST_EXITED_MAX)
		proc_free(list_entry(c->exited.next, struct proc, node));
}

int proc_wait(struct proc *p, uint64_t id)
{
	proc_release(p);
	if (p->exited) {
		answer_wait(p, id);
		return 0;
	}
	if (p->nwaits >= GUEST_WAITS_MAX)
		return -EBUSY;
	p->waits[p->nwaits++] = id;
	return 0;
}

/* ---- the rest ---- */

int proc_kill(struct proc *p, int sig, bool group)
{
	struct guest_agent *a = p->conn->agent;
	int r;

	if (p->exited)
		return -ESRCH;
	if (!group)
		return a->sys.kill(p->pid, sig);
	/*
	 * It leads its process group; SIGKILL is meant for all that it started, whatever group that
	 * is in.
	 */
	r = a->sys.kill(-p->pid, sig);
	if (sig == SIGKILL && cgroup_prog_kill(&p->conn->cgroup, p->group))
		return 0;
	return r;
}

int proc_resize(struct proc *p, unsigned rows, unsigned cols)
{
	if (p->pty < 0)
		return p->exited ? -ESRCH : -ENOTTY;
	return set_size(p->pty, rows, cols);
}

void proc_hangup(struct proc *p)
{
	close_fd(&p->pty);
	if (p->in)
		input_cancel(p->in, EPIPE, "the terminal was closed");
}

void proc_free(struct proc *p)
{
	struct conn *c = p->conn;

	proc_release(p);
	for (int i = 0; i < 2; i++)
		if (p->out[i])
			p->out[i]->proc = NULL;
	if (p->in)
		p->in->proc = NULL;
	close_fd(&p->pty);
	list_del(&p->held);
	list_del(&p->node);
	hash_del(&p->hash);
	if (p->exited)
		c->nexited--;
	else
		c->agent->nprocs--;
	free(p);
}

/*
 * Where there are groups the connection's takes them all; the signals are for where there are none.
 */
void proc_kill_all(struct conn *c)
{
	struct list *n, *tmp;

	list_each(n, tmp, &c->procs)
	{
		struct proc *p = list_entry(n, struct proc, node);

		if (c->agent->sys.kill(-p->pid, SIGKILL) == -ESRCH)
			continue; /* it is exiting */
	}
}

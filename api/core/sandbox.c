/*
 * api/core/sandbox.c - life of one sandbox
 *
 *   BOOT --agent answers--> UP
 *   BOOT, UP --any cause of an end--> ENDING --process reaped, console read to its end--> ENDED
 *
 * Causes of an end: the vmm says CTL_EXIT, or its process ends without a word; the boot takes longer than its
 * deadline; the agent's connection ends or breaks; sandbox_stop(). The first cause is what is reported. Only at the
 * end is the console complete, which tells a panic from a reboot: the kernel restarts after a panic.
 */
#include "api/core/sandbox.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "api/core/agent_link.h"
#include "api/core/clock.h"
#include "api/core/console.h"
#include "api/core/sandbox_open.h"
#include "api/core/vmm_log.h"
#include "base/ctl.h"
#include "base/fdpass.h"
#include "base/guest_proto.h"
#include "base/table.h"

#define EXIT_NS        (3 * NSEC_PER_SEC) /* from CTL_EXIT to the end of the process */
#define LOST_AGENT_NS  (2 * NSEC_PER_SEC) /* from the end of its connection to CTL_EXIT */
#define CONSOLE_LINES  12
#define PANIC          "Kernel panic - not syncing"
#define WIRE_BYTES     (512 << 10)
#define CTL_BUDGET     16   /* messages in one turn of the loop */
#define CTL_QUEUED_MAX 1024 /* more than a socket holds */

enum state { STATE_BOOT, STATE_UP, STATE_ENDING, STATE_ENDED };

struct sandbox {
	struct loop *loop;
	const struct sandbox_ops *ops;
	void *ctx;
	struct trace *trace;
	enum state state;
	uint64_t memory, boot_timeout_ns;

	struct process process;
	bool reaped;
	int wait_status;
	int ctl_fd, ctl_slot, pid_slot;
	struct loop_op ctl_op, pid_op;

	struct vmm_log *log;
	struct console *console;
	bool console_closed;
	struct clock_watch *clock;
	struct agent *agent;
	struct agent_link *link;

	struct loop_timer timer; /* BOOT: deadline; later: of what has to come next */
	enum sandbox_why why;
	struct error error;
	uint32_t vm_exit; /* enum vm_exit of CTL_EXIT */
	char detail[sizeof(((struct ctl_exit *)0)->detail)];
	bool have_exit, agent_gone, freed;
};

void sandbox_oom_message(struct error *e, uint64_t memory)
{
	uint64_t more = memory < SANDBOX_MEMORY_MAX / 2 ? 2 * memory : SANDBOX_MEMORY_MAX;
	char now[32];

	table_format_size(now, sizeof(now), memory);
	if (memory >= SANDBOX_MEMORY_MAX)
		error_set(e, ENOMEM, "guest ran out of memory (%s), the most there is", now);
	else if (more % GIB)
		error_set(e, ENOMEM, "guest ran out of memory (%s); try --memory %llum", now,
			(unsigned long long)(more / MIB));
	else
		error_set(e, ENOMEM, "guest ran out of memory (%s); try --memory %llug", now,
			(unsigned long long)(more / GIB));
}

/* ---- the end ---- */

static bool panicked(const struct sandbox *s)
{
	return console_contains(s->console, PANIC);
}

static bool panicked_for_memory(const struct sandbox *s)
{
	return panicked(s) && (console_contains(s->console, "System is deadlocked on memory") ||
				      console_contains(s->console, "Out of memory"));
}

static void judge_exit(struct sandbox *s)
{
	struct error *e = &s->error;

	if (panicked_for_memory(s)) {
		s->why = SANDBOX_OUT_OF_MEMORY;
		sandbox_oom_message(e, s->memory);
	} else if (panicked(s)) {
		s->why = SANDBOX_PANIC;
		error_set(e, EIO, "the guest's kernel panicked");
	} else if (s->vm_exit == VM_EXIT_NONE) {
		s->why = SANDBOX_START_FAILED;
		error_set(e, EIO, "%s",
			s->detail[0] ? s->detail : "the virtual machine could not start");
	} else if (s->vm_exit == VM_EXIT_POWEROFF) {
		s->why = SANDBOX_POWERED_OFF;
		error_set(e, EIO, "the guest powered itself off before the command ended");
	} else if (s->vm_exit == VM_EXIT_RESET) {
		s->why = SANDBOX_REBOOTED;
		error_set(e, EIO, "the guest restarted itself before the command ended");
	} else if (s->vm_exit == VM_EXIT_TRIPLE_FAULT) {
		s->why = SANDBOX_CRASHED;
		error_set(e, EIO, "the guest crashed (triple fault)");
	} else {
		s->why = SANDBOX_CRASHED;
		error_set(e, EIO, "the virtual machine failed: %s", s->detail);
	}
}

static void judge_death(struct sandbox *s)
{
	int sig = WIFSIGNALED(s->wait_status) ? WTERMSIG(s->wait_status) : 0;
	struct error *e = &s->error;

	s->why = SANDBOX_VMM_DIED;
	if (sig == SIGSYS)
		error_set(e, EIO,
			"the virtual machine's process made a system call that its confinement "
			"forbids, and was ended; please report this");
	else if (sig == SIGKILL)
		error_set(e, EIO,
			"the virtual machine's process was killed; if nobody did it, this machine "
			"ran out of memory");
	else if (sig)
		error_set(e, EIO, "the virtual machine's process died: %s", strsignal(sig));
	else
		error_set(e, EIO, "the virtual machine's process ended unexpectedly (status %d)",
			WEXITSTATUS(s->wait_status));
}

static void end_when_quiet(struct sandbox *s)
{
	if (s->state != STATE_ENDING || !s->reaped || !s->console_closed)
		return;
	s->state = STATE_ENDED;
	loop_timer_clear(s->loop, &s->timer);
	vmm_log_finish(s->log);
	if (!s->error.code) {
		if (s->have_exit)
			judge_exit(s);
		else
			judge_death(s);
	}
	s->ops->ended(s->ctx, s->why, &s->error);
}

static void kill_now(struct sandbox *s)
{
	if (!s->reaped)
		process_kill(&s->process, SIGKILL);
}

/* From now on only the end is waited for; killed if it takes longer than @patience_ns. */
static void begin_end(struct sandbox *s, uint64_t patience_ns)
{
	if (s->state >= STATE_ENDING)
		return;
	s->state = STATE_ENDING;
	if (patience_ns)
		loop_timer_set(s->loop, &s->timer, loop_now_ns() + patience_ns);
	else
		kill_now(s);
	end_when_quiet(s);
}

void sandbox_stop(struct sandbox *s)
{
	if (s->state >= STATE_ENDING)
		return;
	s->why = SANDBOX_STOPPED;
	error_set(&s->error, ECANCELED, "stopped");
	begin_end(s, 0);
}

static void timer_fire(struct loop_timer *t)
{
	struct sandbox *s = container_of(t, struct sandbox, timer);
	char within[32];

	if (s->state == STATE_ENDING) {
		kill_now(s);
		return;
	}
	if (s->agent_gone) {
		s->why = SANDBOX_AGENT_LOST;
		if (!s->error.code)
			error_set(&s->error, EIO, "the guest's agent ended");
	} else {
		s->why = SANDBOX_BOOT_TIMEOUT;
		error_set(&s->error, ETIMEDOUT,
			"the guest didn't start within %s; --boot-timeout gives it longer",
			table_format_duration(within, sizeof(within), s->boot_timeout_ns));
	}
	begin_end(s, 0);
}

/* ---- events ---- */

static void free_if_idle(struct sandbox *s);

static void phase(struct sandbox *s, const struct ctl_phase *p)
{
	static const enum trace_phase map[PHASE_COUNT] = {
		[PHASE_EXEC] = TRACE_VMM_MAIN,
		[PHASE_KVM_READY] = TRACE_KVM_READY,
		[PHASE_CONFINED] = TRACE_CONFINED,
		[PHASE_FIRST_KVM_RUN] = TRACE_FIRST_RUN,
	};

	if (p->id < PHASE_COUNT)
		trace_mark(s->trace, map[p->id], p->mono_ns);
}

static void ctl_message(struct sandbox *s, const struct ctl_msg *m)
{
	struct error e;

	switch (m->type) {
	case CTL_HELLO:
		if (ctl_check_hello(m, &e) && s->state < STATE_ENDING) {
			s->why = SANDBOX_START_FAILED;
			s->error = e;
			begin_end(s, 0);
		}
		break;
	case CTL_PHASE:
		phase(s, &m->u.phase);
		break;
	case CTL_EXIT:
		if (s->have_exit)
			break;
		s->have_exit = true;
		s->vm_exit = m->u.exit.why;
		memcpy(s->detail, m->u.exit.detail, sizeof(s->detail));
		s->detail[sizeof(s->detail) - 1] = '\0';
		begin_end(s, EXIT_NS);
		break;
	default:
		break;
	}
}

/* At most @budget messages. Return: what ctl_recv() said last. */
static int ctl_read(struct sandbox *s, unsigned budget)
{
	int fds[CTL_FDS_MAX], r = -EAGAIN;
	struct ctl_msg m;

	while (budget-- && (r = ctl_recv(s->ctl_fd, &m, fds)) > 0) {
		for (int i = 0; i < CTL_FDS_MAX; i++)
			close_fd(&fds[i]);
		ctl_message(s, &m);
	}
	return r;
}

static void process_gone(struct sandbox *s)
{
	if (s->reaped || process_reap(&s->process, true, &s->wait_status) < 0)
		return;
	s->reaped = true;
	(void)ctl_read(s, CTL_QUEUED_MAX); /* its last words may be news only now */
	begin_end(s, EXIT_NS);
	end_when_quiet(s);
}

static void pid_done(struct loop_op *op, int res)
{
	struct sandbox *s = container_of(op, struct sandbox, pid_op);

	if (s->freed)
		free_if_idle(s);
	else if (res > 0)
		process_gone(s);
}

static void ctl_wait(struct sandbox *s)
{
	loop_poll(s->loop, &s->ctl_op, s->ctl_slot, POLLIN);
}

static void ctl_done(struct loop_op *op, int res)
{
	struct sandbox *s = container_of(op, struct sandbox, ctl_op);
	int r;

	if (s->freed) {
		free_if_idle(s);
		return;
	}
	if (res < 0 && res != -EINTR)
		return;
	r = ctl_read(s, CTL_BUDGET);
	if (r > 0 || r == -EAGAIN)
		ctl_wait(s);
	else if (s->process.pidfd < 0)
		process_gone(s); /* without a pidfd the end of the channel is the sign */
	else
		begin_end(s, EXIT_NS);
}

static void console_done(void *ctx)
{
	struct sandbox *s = ctx;

	s->console_closed = true;
	end_when_quiet(s);
}

static void clock_stepped(void *ctx, uint64_t unix_ns)
{
	struct sandbox *s = ctx;

	if (s->state == STATE_UP)
		agent_set_time(s->agent, unix_ns);
}

static void link_closed(void *ctx, const struct error *e)
{
	struct sandbox *s = ctx;

	if (s->state >= STATE_ENDING)
		return;
	s->agent_gone = true;
	if (e->code) {
		s->why = SANDBOX_AGENT_LOST;
		s->error = *e;
		error_prefix(&s->error, "the guest's agent");
		begin_end(s, 0);
		return;
	}
	/* Most likely the machine is going down and the vmm will say how. */
	loop_timer_set(s->loop, &s->timer, loop_now_ns() + LOST_AGENT_NS);
}

static void agent_ready(unused_arg struct agent *a, void *ctx, const struct agent_hello *h)
{
	struct sandbox *s = ctx;
	uint64_t offset = h->received_ns - h->now_ns; /* modulo 2^64 */

	if (s->state != STATE_BOOT)
		return;
	s->state = STATE_UP;
	loop_timer_clear(s->loop, &s->timer);
	trace_mark(s->trace, TRACE_GUEST_INIT, h->init_ns + offset);
	trace_mark(s->trace, TRACE_AGENT_READY, h->ready_ns + offset);
	trace_mark(s->trace, TRACE_CONNECTED, h->received_ns);
	s->ops->ready(s->ctx, s->agent);
}

static void agent_flush(unused_arg struct agent *a, void *ctx)
{
	struct sandbox *s = ctx;

	if (s->link)
		agent_link_flush(s->link);
}

static const struct agent_ops agent_ops = { .ready = agent_ready, .flush = agent_flush };

/* ---- start ---- */

static int spawn(struct sandbox *s, const struct sandbox_config *c, int log_fd, int console_fd,
	int ctl_fd, struct error *e)
{
	struct sandbox_inputs in;
	struct process_spec spec = {
		.argv0 = "skerry-vmm",
		.name = c->name,
		.best = c->best,
		.least = c->least,
		.die_with_parent = true,
	};
	int r = sandbox_open(&in, c, log_fd, console_fd, ctl_fd, e);

	if (r)
		return r;
	trace_mark(s->trace, TRACE_OPENED, loop_now_ns());
	spec.fds = in.fds;
	spec.nfds = in.nfds;
	r = process_spawn(&s->process, &spec, e);
	sandbox_close(&in);
	if (r)
		return r;
	s->reaped = false;
	trace_mark(s->trace, TRACE_SPAWNED, loop_now_ns());
	return 0;
}

static int watch_process(struct sandbox *s, struct error *e)
{
	int slot;

	s->ctl_slot = slot = loop_add_fd(s->loop, s->ctl_fd);
	if (slot >= 0 && s->process.pidfd >= 0)
		s->pid_slot = slot = loop_add_fd(s->loop, s->process.pidfd);
	if (slot < 0)
		return error_set(
			e, -slot, "watching the virtual machine's process: %s", strerror(-slot));
	ctl_wait(s);
	if (s->pid_slot >= 0)
		loop_poll(s->loop, &s->pid_op, s->pid_slot, POLLIN);
	return 0;
}

/* The agent's connection exists before the guest runs; hello waits in the socket. */
static int offer_agent(struct sandbox *s, struct error *e)
{
	struct ctl_hello hello = { .version = CTL_VERSION, .pid = (uint32_t)getpid() };
	struct ctl_vsock port = { .port = GP_VSOCK_PORT };
	int pair[2], bytes = WIRE_BYTES, r;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair))
		return error_set(e, errno, "connection to the guest: %s", strerror(errno));
	for (int i = 0; i < 2; i++)
		setsockopt(pair[i], SOL_SOCKET, SO_SNDBUF, &bytes, sizeof(bytes)); /* speed only */
	r = ctl_send(s->ctl_fd, CTL_HELLO, &hello, sizeof(hello), NULL, 0);
	if (!r)
		r = ctl_send(s->ctl_fd, CTL_VSOCK_ACCEPT, &port, sizeof(port), &pair[1], 1);
	close(pair[1]);
	/* -EPIPE: the vmm is gone already, and will be reported as that */
	if (r && r != -EPIPE && r != -ECONNRESET) {
		close(pair[0]);
		return error_set(e, -r, "control channel of the virtual machine: %s", strerror(-r));
	}
	r = agent_link_create(&s->link, s->loop, pair[0], s->agent, link_closed, s, e);
	if (r) {
		close(pair[0]);
		return r;
	}
	r = agent_hello(s->agent);
	return r ? error_set(e, -r, "hello to the guest: %s", strerror(-r)) : 0;
}

static int start(struct sandbox *s, const struct sandbox_config *c, struct error *e)
{
	autoclose int log_fd = -1, console_fd = -1;
	int ctl[2], r;

	r = agent_create(&s->agent, &agent_ops, s);
	if (r)
		return error_set(e, -r, "connection to the guest: %s", strerror(-r));
	r = clock_watch_create(&s->clock, s->loop, clock_stepped, s, e);
	if (!r)
		r = vmm_log_create(&s->log, s->loop, &log_fd, e);
	if (!r)
		r = console_create(&s->console, s->loop, &console_fd, console_done, s, e);
	if (r)
		return r;
	r = fdpass_pair(ctl, true);
	if (r)
		return error_set(e, -r, "control channel of the virtual machine: %s", strerror(-r));
	s->ctl_fd = ctl[0];
	r = spawn(s, c, take_fd(&log_fd), take_fd(&console_fd), ctl[1], e);
	if (!r)
		r = watch_process(s, e);
	return r ? r : offer_agent(s, e);
}

int sandbox_create(struct sandbox **ret, const struct sandbox_config *c, struct error *e)
{
	struct sandbox *s = calloc(1, sizeof(*s));
	int r;

	if (!s)
		return error_set(e, ENOMEM, "out of memory");
	s->loop = c->loop;
	s->ops = c->ops;
	s->ctx = c->ctx;
	s->trace = c->trace;
	s->memory = c->memory;
	s->boot_timeout_ns = c->boot_timeout_ns;
	s->ctl_fd = s->ctl_slot = s->pid_slot = -1;
	s->process.pidfd = -1;
	s->reaped = true;
	s->ctl_op.done = ctl_done;
	s->pid_op.done = pid_done;
	s->timer.fire = timer_fire;
	r = start(s, c, e);
	if (r) {
		sandbox_destroy(s);
		return r;
	}
	loop_timer_set(s->loop, &s->timer, loop_now_ns() + c->boot_timeout_ns);
	*ret = s;
	return 0;
}

static void free_if_idle(struct sandbox *s)
{
	if (!s->freed || s->ctl_op.busy || s->pid_op.busy)
		return;
	if (s->ctl_slot >= 0)
		loop_remove_fd(s->loop, s->ctl_slot);
	if (s->pid_slot >= 0)
		loop_remove_fd(s->loop, s->pid_slot);
	close_fd(&s->ctl_fd);
	free(s);
}

void sandbox_destroy(struct sandbox *s)
{
	if (!s)
		return;
	s->freed = true;
	loop_timer_clear(s->loop, &s->timer);
	loop_cancel(s->loop, &s->ctl_op);
	loop_cancel(s->loop, &s->pid_op);
	if (!s->reaped)
		process_end(&s->process);
	agent_link_close(s->link);
	agent_destroy(s->agent);
	clock_watch_free(s->clock);
	if (s->state != STATE_ENDED)
		vmm_log_finish(s->log);
	vmm_log_free(s->log);
	console_free(s->console);
	free_if_idle(s);
}

enum confine_level sandbox_level(const struct sandbox *s)
{
	return s->process.level;
}

void sandbox_print_console(const struct sandbox *s, FILE *f)
{
	console_print(s->console, PANIC, CONSOLE_LINES, f);
}

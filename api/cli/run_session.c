/*
 * api/cli/run_session.c - one command in one new sandbox, in the foreground
 *
 * What:    glues sandbox, attached process, signals and deadlines together. The first thing that decides the
 *          status (the command's exit, a failure, a deadline, a signal that nobody obeyed) stops the loop.
 * Signals: SIGINT, SIGTERM, SIGHUP and SIGQUIT go to the command's process group, which then has GRACE_NS to end;
 *          a second SIGINT within TWICE_NS ends it at once, as does any of them while the guest still boots.
 *          SIGUSR1 and SIGUSR2 are just passed on.
 */
#include "api/cli/run_session.h"

#include <errno.h>
#include <signal.h>
#include <string.h>

#include "api/cli/command.h"
#include "api/core/attach.h"
#include "api/core/signals.h"
#include "base/log.h"
#include "base/process.h"

#define GRACE_NS         (10 * NSEC_PER_SEC) /* after a signal */
#define GRACE_ORPHAN_NS  (2 * NSEC_PER_SEC)  /* after the death of our parent */
#define GRACE_TIMEOUT_NS (2 * NSEC_PER_SEC)  /* after --timeout */
#define TWICE_NS         (2 * NSEC_PER_SEC)
#define LOOP_ENTRIES     64
#define SETTLE_TURNS     16

struct session {
	const struct run_params *p;
	struct loop *loop;
	struct signals *signals;
	struct sandbox *sandbox;
	struct attach *attach;
	struct trace trace;
	struct loop_timer timeout, grace;
	struct loop_task settle;
	unsigned settle_turns;
	int grace_status; /* if it runs out */
	const char *grace_why;
	uint64_t last_int_ns;
	bool timed_out;
	bool decided;
	int status;
};

static void decide(struct session *s, int status)
{
	if (s->decided)
		return;
	s->decided = true;
	s->status = status;
	loop_stop(s->loop);
}

static void decide_error(struct session *s, const struct error *e)
{
	if (s->decided)
		return;
	cli_error(e);
	decide(s, CLI_ERROR);
}

/* ---- deadlines and signals ---- */

static void begin_grace(struct session *s, uint64_t ns, int status, const char *why)
{
	if (s->grace.heap_pos)
		return;
	s->grace_status = status;
	s->grace_why = why;
	loop_timer_set(s->loop, &s->grace, loop_now_ns() + ns);
}

static void grace_over(struct loop_timer *t)
{
	struct session *s = container_of(t, struct session, grace);

	if (!s->p->quiet)
		log_warn("the command did not end after %s; killed", s->grace_why);
	decide(s, s->grace_status);
}

static void timeout_over(struct loop_timer *t)
{
	struct session *s = container_of(t, struct session, timeout);

	s->timed_out = true;
	if (!s->p->quiet)
		log_warn("the command is ended: --timeout is over");
	attach_signal(s->attach, SIGTERM);
	begin_grace(s, GRACE_TIMEOUT_NS, CLI_TIMEOUT, "its timeout");
}

static void set_timeout(struct session *s)
{
	if (s->p->timeout_ns)
		loop_timer_set(s->loop, &s->timeout, loop_now_ns() + s->p->timeout_ns);
}

static void on_signal(void *ctx, int sig)
{
	struct session *s = ctx;
	uint64_t now = loop_now_ns();
	bool orphan = sig == SIGNALS_PARENT;

	if (sig == SIGUSR1 || sig == SIGUSR2) {
		if (s->attach)
			attach_signal(s->attach, sig);
		return;
	}
	if (orphan)
		sig = SIGHUP;
	if (!s->attach || (sig == SIGINT && s->last_int_ns && now - s->last_int_ns < TWICE_NS)) {
		decide(s, CLI_SIGNAL + sig);
		return;
	}
	if (sig == SIGINT)
		s->last_int_ns = now;
	attach_signal(s->attach, sig);
	if (orphan)
		begin_grace(s, GRACE_ORPHAN_NS, CLI_SIGNAL + sig, "the death of skerry's parent");
	else
		begin_grace(s, GRACE_NS, CLI_SIGNAL + sig, strsignal(sig));
}

/* ---- the command ---- */

static int exit_status(struct session *s, const struct agent_exit *x)
{
	struct error e;

	if (s->timed_out)
		return CLI_TIMEOUT;
	if (x->oom == AGENT_OOM_YES && x->code == CLI_SIGNAL + SIGKILL) {
		sandbox_oom_message(&e, s->p->sandbox.memory);
		cli_error(&e);
		return CLI_ERROR;
	}
	return (int)x->code;
}

/* The agent says "No such file or directory (os error 2): spawn 'x'"; of that a person needs the beginning. */
static int failure_status(const struct session *s, const struct agent_failure *f)
{
	const struct agent_spawn *spawn = &s->p->spawn;
	int reason = (int)(strstr(f->message, " (os error ")
				   ? strstr(f->message, " (os error ") - f->message
				   : (ptrdiff_t)strlen(f->message));

	if (strstr(f->message, "): chdir '")) {
		log_error("--workdir '%s': %.*s", spawn->cwd ? spawn->cwd : "", reason, f->message);
		return CLI_ERROR;
	}
	log_error("'%s': %.*s", spawn->command, reason, f->message);
	if (!strcmp(f->code, "ENOENT") || !strcmp(f->code, "ENOTDIR"))
		return CLI_NOT_FOUND;
	return !strcmp(f->code, "EACCES") || !strcmp(f->code, "ENOEXEC") ? CLI_NOT_EXECUTABLE
									 : CLI_ERROR;
}

static void on_done(void *ctx, const struct attach_result *r)
{
	struct session *s = ctx;

	trace_mark(&s->trace, TRACE_EXIT, loop_now_ns());
	if (s->decided)
		return;
	switch (r->end) {
	case ATTACH_EXITED:
		decide(s, exit_status(s, &r->exit));
		break;
	case ATTACH_FAILED:
		decide(s, failure_status(s, &r->failure));
		break;
	case ATTACH_ERROR:
		decide_error(s, &r->error);
		break;
	}
}

static void on_started(void *ctx)
{
	struct session *s = ctx;

	trace_mark(&s->trace, TRACE_STARTED, loop_now_ns());
	set_timeout(s);
}

static void on_first_output(void *ctx)
{
	struct session *s = ctx;

	trace_mark(&s->trace, TRACE_FIRST_OUTPUT, loop_now_ns());
}

static void on_ready(void *ctx, struct agent *a)
{
	struct session *s = ctx;
	struct agent_spawn spawn = s->p->spawn;
	struct attach_config c = {
		.loop = s->loop,
		.agent = a,
		.spawn = &spawn,
		.fd = { s->p->forward_stdin ? 0 : -1, 1, 2 },
		.done = on_done,
		.started = on_started,
		.first_output = on_first_output,
		.ctx = s,
	};
	struct error e;

	if (s->decided)
		return;
	if (attach_create(&s->attach, &c, &e))
		decide_error(s, &e);
	else
		set_timeout(s); /* anew from its start; a guest may never say that it did */
}

static void on_ended(void *ctx, enum sandbox_why why, const struct error *e)
{
	struct session *s = ctx;

	if (s->decided)
		return;
	cli_error(e);
	if (why != SANDBOX_STOPPED && why != SANDBOX_START_FAILED)
		sandbox_print_console(s->sandbox, stderr);
	decide(s, CLI_ERROR);
}

static const struct sandbox_ops sandbox_ops = { .ready = on_ready, .ended = on_ended };

static void warn_confinement(const struct session *s)
{
	struct error why = { 0 };

	if (s->p->quiet || s->p->sandbox.best == CONFINE_NONE ||
		sandbox_level(s->sandbox) >= CONFINE_ROOT)
		return;
	process_best_level(&why);
	log_warn("confined at level '%s' only: %s", confine_level_name(sandbox_level(s->sandbox)),
		why.msg);
}

static int start(struct session *s, struct error *e)
{
	struct sandbox_config c = s->p->sandbox;
	int r = loop_create(&s->loop, LOOP_ENTRIES, e);

	if (!r)
		r = loop_start(s->loop, false, e);
	if (!r)
		r = signals_create(&s->signals, s->loop, on_signal, s, e);
	if (r)
		return r;
	c.loop = s->loop;
	c.trace = &s->trace;
	c.phases = s->p->trace != RUN_TRACE_OFF;
	c.ops = &sandbox_ops;
	c.ctx = s;
	r = sandbox_create(&s->sandbox, &c, e);
	if (!r)
		warn_confinement(s);
	return r;
}

static void settle_turn(struct loop_task *t)
{
	struct session *s = container_of(t, struct session, settle);

	if (++s->settle_turns < SETTLE_TURNS)
		loop_defer(s->loop, t);
	else
		loop_stop(s->loop);
}

static void end(struct session *s)
{
	if (!s->loop)
		return;
	attach_free(s->attach);
	sandbox_destroy(s->sandbox);
	signals_free(s->signals);
	loop_timer_clear(s->loop, &s->timeout);
	loop_timer_clear(s->loop, &s->grace);
	/* what was cancelled gets a few turns to complete and be freed; nothing is waited for */
	s->settle.run = settle_turn;
	loop_defer(s->loop, &s->settle);
	if (loop_run(s->loop))
		log_debug("the event loop broke");
	loop_destroy(s->loop);
}

int run_session(const struct run_params *p)
{
	struct session s = { .p = p, .status = CLI_ERROR };
	struct error e = { 0 };
	int r;

	s.timeout.fire = timeout_over;
	s.grace.fire = grace_over;
	trace_mark(&s.trace, TRACE_START, p->start_ns);
	r = start(&s, &e);
	if (!r) {
		r = loop_run(s.loop);
		if (r)
			error_set(&e, -r, "event loop: %s", strerror(-r));
	}
	if (r)
		cli_error(&e);
	end(&s);
	if (p->trace != RUN_TRACE_OFF)
		trace_print(&s.trace, p->trace == RUN_TRACE_JSON, stderr);
	return s.status;
}

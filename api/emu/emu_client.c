/*
 * api/emu/emu_client.c - a command line of this machine, run inside the emulated host
 *
 * What:    one process in L1 whose stdio, signals and status are ours. It has our environment and working
 *          directory; paths mean the same there, as L1's root is this machine's file system.
 * End:     the process exits; or the connection breaks: then everything it started in L1 has been killed, and the
 *          last lines of L1's console say why. If we die, the daemon does the same.
 */
#include "api/emu/emu.h"

#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "api/cli/command.h"
#include "api/core/agent_link.h"
#include "api/core/attach.h"
#include "api/core/signals.h"
#include "api/emu/accel.h"
#include "api/emu/emu_console.h"
#include "api/emu/emu_dirs.h"
#include "api/emu/emu_start.h"
#include "base/log.h"

#define RING_ENTRIES 64
#define TAIL_LINES   12
#define ENV_EXTRA    5
#define DRAIN_TURNS  32

extern char **environ;

struct client {
	struct loop *loop;
	struct agent *agent;
	struct agent_link *link;
	struct attach *attach;
	struct agent_spawn spawn;
	const struct emu_opts *opts;
	int stdin_fd; /* or -1 */
	struct signals *signals;
	struct loop_task drain;
	unsigned drain_turns;
	int console;
	bool program; /* a program of the user's choice: 126 and 127 are its own */
	int status;
};

static void finish(struct client *c, int status)
{
	c->status = status;
	loop_stop(c->loop);
}

/* ---- events ---- */

static void on_done(void *ctx, const struct attach_result *r)
{
	struct client *c = ctx;
	int status = CLI_ERROR;

	switch (r->end) {
	case ATTACH_EXITED:
		status = (int)r->exit.code;
		break;
	case ATTACH_FAILED:
		log_error("in the emulated host: %s: %s", c->spawn.command, r->failure.message);
		if (c->program && !strcmp(r->failure.code, "ENOENT"))
			status = CLI_NOT_FOUND;
		else if (c->program && !strcmp(r->failure.code, "EACCES"))
			status = CLI_NOT_EXECUTABLE;
		break;
	case ATTACH_ERROR:
		log_error("%s", r->error.msg);
		break;
	}
	finish(c, status);
}

static void on_ready(struct agent *a, void *ctx, unused_arg const struct agent_hello *h)
{
	struct client *c = ctx;
	struct attach_config config = {
		.loop = c->loop,
		.agent = a,
		.spawn = &c->spawn,
		.fd = { c->stdin_fd, 1, 2 },
		.done = on_done,
		.ctx = c,
	};
	struct timespec now;
	struct error e;

	/* Files made here and there should agree on the time. Counting instructions, L1 has a time of its own. */
	if (!c->opts->icount && !clock_gettime(CLOCK_REALTIME, &now))
		agent_set_time(a, (uint64_t)now.tv_sec * NSEC_PER_SEC + (uint64_t)now.tv_nsec);
	if (attach_create(&c->attach, &config, &e)) {
		log_error("emulated host: %s", e.msg);
		finish(c, CLI_ERROR);
	}
}

static void on_flush(unused_arg struct agent *a, void *ctx)
{
	struct client *c = ctx;

	agent_link_flush(c->link);
}

static const struct agent_ops agent_events = { .ready = on_ready, .flush = on_flush };

static void print_tail(const char *tail)
{
	if (*tail)
		fprintf(stderr, "%s\n", tail);
}

static void on_closed(void *ctx, const struct error *e)
{
	char tail[EMU_TEXT_MAX];
	struct client *c = ctx;

	if (e->code)
		log_error("the emulated host: %s", e->msg);
	else
		log_error("the emulated host ended while this command was running");
	if (c->console >= 0) {
		emu_console_tail(c->console, TAIL_LINES, tail, sizeof(tail));
		print_tail(tail);
	}
	finish(c, CLI_ERROR);
}

static void on_signal(void *ctx, int sig)
{
	struct client *c = ctx;

	if (sig == SIGNALS_PARENT) /* the end of the connection ends all in L1 */
		finish(c, CLI_ERROR);
	else if (c->attach)
		attach_signal(c->attach, sig);
	else
		finish(c, CLI_SIGNAL + sig); /* nothing has started */
}

/* ---- set-up ---- */

/* What the process in L1 gets: our environment, and where things are there. */
struct inner_env {
	const char **list;
	size_t n;
	char extra[ENV_EXTRA][EMU_PATH_MAX + 32];
};

static bool is_replaced(const struct inner_env *env, const char *entry)
{
	for (size_t i = 0; i < ENV_EXTRA; i++) {
		size_t n = strcspn(env->extra[i], "=") + 1;

		if (!strncmp(env->extra[i], entry, n))
			return true;
	}
	return false;
}

/* "/var/lib/skerry" is what XDG_STATE_HOME=/var/lib means. */
static void put_parent(char *ret, size_t size, const char *name, const char *path)
{
	const char *slash = strrchr(path, '/');

	snprintf(ret, size, "%s=%.*s", name, slash > path ? (int)(slash - path) : 1, path);
}

static int make_env(struct inner_env *env, const struct emu_config *c)
{
	const size_t size = sizeof(env->extra[0]);
	size_t n = 0;

	put_parent(env->extra[0], size, "XDG_STATE_HOME", c->state);
	put_parent(env->extra[1], size, "XDG_CACHE_HOME", c->cache);
	snprintf(env->extra[2], size, "XDG_RUNTIME_DIR=%s", c->runtime);
	snprintf(env->extra[3], size, "TMPDIR=%s/tmp", c->runtime);
	snprintf(env->extra[4], size, "%s=1", ACCEL_ENV_INSIDE);
	while (environ[n])
		n++;
	env->list = calloc(n + ENV_EXTRA, sizeof(*env->list));
	if (!env->list)
		return -ENOMEM;
	for (size_t i = 0; i < n; i++)
		if (!is_replaced(env, environ[i]))
			env->list[env->n++] = environ[i];
	for (size_t i = 0; i < ENV_EXTRA; i++)
		env->list[env->n++] = env->extra[i];
	return 0;
}

static int client_start(struct client *c, int fd, struct error *e)
{
	int r = loop_create(&c->loop, RING_ENTRIES, e);

	if (!r)
		r = loop_start(c->loop, false, e);
	if (r)
		return r;
	r = signals_create(&c->signals, c->loop, on_signal, c, e);
	if (r)
		return r;
	r = agent_create(&c->agent, &agent_events, c);
	if (r)
		return error_set(e, -r, "emulated host: %s", strerror(-r));
	r = agent_link_create(&c->link, c->loop, dup(fd), c->agent, on_closed, c, e);
	if (r)
		return r;
	r = agent_hello(c->agent);
	return r ? error_set(e, -r, "emulated host: %s", strerror(-r)) : 0;
}

static void drain_turn(struct loop_task *t)
{
	struct client *c = container_of(t, struct client, drain);

	if (++c->drain_turns < DRAIN_TURNS)
		loop_defer(c->loop, t);
	else
		loop_stop(c->loop);
}

static void client_finish(struct client *c)
{
	attach_free(c->attach);
	agent_link_close(c->link);
	signals_free(c->signals);
	agent_destroy(c->agent);
	/* What was under way gets a few turns to complete and be freed. */
	if (c->signals) {
		c->drain.run = drain_turn;
		loop_defer(c->loop, &c->drain);
		if (loop_run(c->loop))
			log_debug("the event loop broke");
	}
	loop_destroy(c->loop);
}

static int serve(struct client *c, const struct emu_session *s)
{
	struct error e = { 0 };
	int r = client_start(c, s->fd, &e);

	if (!r)
		r = loop_run(c->loop);
	if (r) {
		log_error("%s", e.code ? e.msg : strerror(-r));
		c->status = CLI_ERROR;
	}
	client_finish(c);
	return c->status;
}

static void tell(const char *text)
{
	log_info("%s", text);
}

/* A port of the host that keeps what is written, or of one that doesn't if the command can do without. */
static int find_host(
	struct emu_config *config, struct emu_wait *w, struct emu_session *s, struct error *e)
{
	int r = emu_connect(s, config, w, e);

	if (r != -EBUSY || w->need_disk)
		return r;
	if (w->tell)
		w->tell("another emulated host is in use; what this one writes to the state folder is not "
			"kept");
	emu_use_scratch(config);
	return emu_connect(s, config, w, e);
}

static int run(struct client *c, struct emu_config *config, struct emu_wait *w)
{
	struct emu_session s = { .fd = -1, .console = -1 };
	struct error e;
	int status;

	if (c->opts->say && *c->opts->say && !c->opts->quiet)
		log_info("%s", c->opts->say);
	w->tell = c->opts->quiet ? NULL : tell;
	w->need_disk = !c->opts->scratch_ok;
	if (find_host(config, w, &s, &e)) {
		if (e.code == EINTR)
			return CLI_SIGNAL + emu_pending_signal();
		log_error("%s", e.msg);
		print_tail(w->tail);
		return CLI_ERROR;
	}
	c->console = s.console;
	status = serve(c, &s);
	close_fd(&s.fd);
	close_fd(&s.console);
	return status;
}

static int exec_in(
	const char *command, int argc, char *const *args, const struct emu_opts *opts, bool program)
{
	struct {
		struct emu_config config;
		struct inner_env env;
		struct emu_wait wait;
		char cwd[PATH_MAX];
	} *m = calloc(1, sizeof(*m));
	struct client c = { .opts = opts, .program = program, .status = CLI_ERROR };
	struct error e = { 0 };
	int r;

	signals_block();
	r = m ? emu_configure(&m->config, opts->icount, &e)
	      : error_set(&e, ENOMEM, "out of memory");
	if (!r && make_env(&m->env, &m->config))
		r = error_set(&e, ENOMEM, "out of memory");
	if (!r && (!getcwd(m->cwd, sizeof(m->cwd)) || m->cwd[0] != '/'))
		r = error_set(&e, ENOENT, "the working directory is gone; cd to one that exists");
	if (r) {
		log_error("%s", e.msg);
	} else {
		c.stdin_fd = opts->forward_stdin ? 0 : -1;
		c.spawn = (struct agent_spawn){
			.command = command,
			.args = (const char *const *)args,
			.nargs = (size_t)argc,
			.env = m->env.list,
			.nenv = m->env.n,
			.clear_env = true,
			.cwd = m->cwd,
		};
		c.status = run(&c, &m->config, &m->wait);
	}
	if (m)
		free(m->env.list);
	free(m);
	return c.status;
}

int emu_exec(int argc, char *const *argv, const struct emu_opts *opts)
{
	char exe[PATH_MAX];
	ssize_t n = readlink("/proc/self/exe", exe, sizeof(exe) - 1);

	if (n > 0)
		exe[n] = '\0';
	if (n <= 0 || access(exe, X_OK)) {
		log_error(
			"the file of this program is gone, and the emulated host needs it; install it again");
		return CLI_ERROR;
	}
	return exec_in(exe, argc, argv, opts, false);
}

int emu_exec_program(int argc, char *const *argv, const struct emu_opts *opts)
{
	return exec_in(argv[0], argc - 1, argv + 1, opts, true);
}

/*
 * guest-init/rpc_proc.c - the methods about processes: from JSON to a request and back
 *
 * Memory:  all strings of a request lie in one block, no larger than the message and a few fixed
 *          entries.
 * Defaults: user, home as the working directory, and an environment with what every program
 *           expects; the request's
 *          own variables go over it.
 */
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "guest-init/agent_int.h"
#include "guest-init/users.h"

#define DEFAULT_PATH  "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
#define FALLBACK_PATH "/usr/local/bin:/usr/bin:/bin" /* of a program whose environment has none */
#define BASE_ENV      8                              /* variables that are always there, and room */
#define BASE_BYTES    4096
#define TTY_SIZE_MAX  65535

/* A spawn request while it is read. */
struct reading {
	const struct rpc_call *r;
	bool skerry; /* $skerry.spawn: more members */
	struct proc_request q;
	struct user user;
	gid_t groups[USERS_GROUPS];
	char *block, *at, *end; /* strings */
	char **argv, **env;
	size_t nenv, nbase;
};

static int invalid(const struct reading *x, const char *name, const char *expected, int value)
{
	rpc_invalid(x->r->c, x->r->id, name, expected, value);
	return -1;
}

static int refuse(const struct reading *x, const char *message, const char *what)
{
	char text[256];

	snprintf(text, sizeof(text), "%s '%s'", message, what);
	rpc_error(x->r->c, x->r->id, "TypeError", "EINVAL", text);
	return -1;
}

static int member(const struct reading *x, const char *name)
{
	return jread_get(x->r->j, x->r->params, name);
}

/* Decodes a string into the block; NULL: an error was answered. */
static char *take(struct reading *x, const char *name, int value)
{
	const struct jread *j = x->r->j;
	char *s = x->at;
	size_t len;

	if (jread_type(j, value) != JREAD_STRING) {
		invalid(x, name, "string", value);
		return NULL;
	}
	if (jread_len(j, value) > (size_t)(x->end - x->at)) {
		/*
		 * Names may share a token only if the parser is wrong; never write past the block.
		 */
		rpc_errno(x->r->c, x->r->id, ENOMEM, name);
		return NULL;
	}
	jread_str(j, value, s, &len);
	if (memchr(s, '\0', len)) {
		refuse(x, "there is a NUL byte in", name);
		return NULL;
	}
	x->at += len + 1;
	return s;
}

/* "user" or "group": a name or a number. 0: absent, 1: @ret is set, -1. */
static int take_name(struct reading *x, const char *name, const char **ret)
{
	int v = member(x, name);
	uint64_t n;

	if (!v)
		return 0;
	if (jread_u64(x->r->j, v, &n)) {
		int len = snprintf(x->at, (size_t)(x->end - x->at), "%" PRIu64, n);

		*ret = x->at;
		x->at += len + 1;
		return 1;
	}
	*ret = take(x, name, v);
	return *ret ? 1 : -1;
}

/* ---- who ---- */

/* The default user need not exist; where the agent isn't root (tests) it is its own. */
static int default_user(struct reading *x)
{
	const char *name = x->r->c->agent->config.default_user;
	char number[16];
	int r;

	if (name && users_find(name, &x->user) == 0)
		return 0;
	snprintf(number, sizeof(number), "%u", (unsigned)geteuid());
	r = users_find(number, &x->user);
	if (r)
		rpc_errno(x->r->c, x->r->id, -r, "read /etc/passwd");
	return r;
}

static int find_user(struct reading *x, const char *name)
{
	int r = users_find(name, &x->user);

	if (r == -ENOENT)
		return refuse(x, "there is no user", name);
	if (r)
		rpc_errno(x->r->c, x->r->id, -r, "read /etc/passwd");
	return r;
}

static int read_ids(struct reading *x)
{
	struct spawn *s = &x->q.spawn;
	const char *user = NULL, *group = NULL;
	int u = 0, g = 0;

	if (x->skerry) {
		u = take_name(x, "user", &user);
		g = u < 0 ? -1 : take_name(x, "group", &group);
	}
	if (u < 0 || g < 0 || (u ? find_user(x, user) : default_user(x)))
		return -1;
	s->uid = x->user.uid;
	s->gid = x->user.gid;
	if (g && users_group(group, &s->gid))
		return refuse(x, "there is no group", group);
	s->ngroups = (size_t)users_groups(&x->user, x->groups);
	s->groups = x->groups;
	s->set_ids = !geteuid() || u || g;
	return 0;
}

/* ---- environment ---- */

static void base_env(struct reading *x, const char *name, const char *value)
{
	int n = snprintf(x->at, (size_t)(x->end - x->at), "%s=%s", name, value);

	x->env[x->nenv++] = x->at;
	x->at += n + 1;
}

static void base_envs(struct reading *x)
{
	const char *name = x->user.name[0] ? x->user.name : "nobody";

	base_env(x, "PATH", DEFAULT_PATH);
	base_env(x, "HOME", x->user.home);
	base_env(x, "USER", name);
	base_env(x, "LOGNAME", name);
	base_env(x, "SHELL", x->user.shell);
	base_env(x, "LANG", "C.UTF-8");
	if (x->q.pty)
		base_env(x, "TERM", "xterm-256color");
	x->nbase = x->nenv;
}

/* Puts "NAME=VALUE" in the place of a base variable, or at the end. */
static void set_env(struct reading *x, char *text, size_t name_len)
{
	for (size_t i = 0; i < x->nbase; i++)
		if (!strncmp(x->env[i], text, name_len + 1)) {
			x->env[i] = text;
			return;
		}
	x->env[x->nenv++] = text;
}

static int read_env_entry(struct reading *x, int name)
{
	int value = jread_value(x->r->j, name);
	char *text;
	size_t len;

	if (!value)
		return 0;
	text = take(x, "env", name);
	if (!text)
		return -1;
	len = strlen(text);
	if (!len || strchr(text, '='))
		return refuse(x, "no name for an environment variable:", text);
	text[len] = '=';
	return take(x, "env", value) ? (set_env(x, text, len), 0) : -1;
}

static int read_env(struct reading *x)
{
	const struct jread *j = x->r->j;
	int env = member(x, "env"), clear = member(x, "clearEnv");
	bool without = false;

	if (env && jread_type(j, env) != JREAD_OBJECT)
		return invalid(x, "env", "object", env);
	if (clear && !jread_bool(j, clear, &without))
		return invalid(x, "clearEnv", "boolean", clear);
	if (!without)
		base_envs(x);
	for (int k = jread_first(j, env); k; k = jread_next(j, env, k))
		if (read_env_entry(x, k))
			return -1;
	x->q.spawn.envp = x->env;
	x->q.spawn.path = FALLBACK_PATH;
	for (size_t i = 0; i < x->nenv; i++)
		if (!strncmp(x->env[i], "PATH=", 5))
			x->q.spawn.path = x->env[i] + 5;
	return 0;
}

/* ---- what ---- */

static int read_args(struct reading *x)
{
	const struct jread *j = x->r->j;
	int args = member(x, "args");
	size_t n = 0;

	if (args && jread_type(j, args) != JREAD_ARRAY)
		return invalid(x, "args", "array", args);
	x->argv[n] = take(x, "command", member(x, "command"));
	if (!x->argv[n++])
		return -1;
	for (int k = jread_first(j, args); k; k = jread_next(j, args, k)) {
		x->argv[n] = take(x, "args", k);
		if (!x->argv[n++])
			return -1;
	}
	x->q.spawn.argv = x->argv;
	return 0;
}

static int read_cwd(struct reading *x)
{
	int v = member(x, "cwd");

	if (!v) {
		x->q.spawn.cwd = x->user.home;
		x->q.spawn.cwd_optional = true;
		return 0;
	}
	x->q.spawn.cwd = take(x, "cwd", v);
	return x->q.spawn.cwd ? 0 : -1;
}

static int read_pty(struct reading *x)
{
	const struct jread *j = x->r->j;
	int pty = x->skerry ? member(x, "pty") : 0;
	uint64_t rows, cols;

	if (!pty)
		return 0;
	if (!jread_u64(j, jread_get(j, pty, "rows"), &rows) || rows > TTY_SIZE_MAX)
		return invalid(x, "rows", "number", jread_get(j, pty, "rows"));
	if (!jread_u64(j, jread_get(j, pty, "cols"), &cols) || cols > TTY_SIZE_MAX)
		return invalid(x, "cols", "number", jread_get(j, pty, "cols"));
	x->q.pty = true;
	x->q.rows = (unsigned)rows;
	x->q.cols = (unsigned)cols;
	return 0;
}

static int read_stdio(struct reading *x)
{
	const struct jread *j = x->r->j;
	int in = member(x, "stdinStreamId");

	if (in && !jread_u64(j, in, &x->q.stdin_id))
		return invalid(x, "stdinStreamId", "number", in);
	x->q.has_stdin = in;
	x->q.null_out[0] = jread_is(j, member(x, "stdout"), "null");
	x->q.null_out[1] = jread_is(j, member(x, "stderr"), "null");
	return 0;
}

/* Room for the strings and for the pointers to them. */
static int make_room(struct reading *x)
{
	const struct jread *j = x->r->j;
	size_t bytes = jread_len(j, JREAD_ROOT) + BASE_BYTES;
	size_t nargs = jread_count(j, member(x, "args")) + 3; /* before, command, NULL */
	size_t nenv = jread_count(j, member(x, "env")) + BASE_ENV + 1;

	x->block = malloc(bytes + (nargs + nenv) * sizeof(char *));
	if (!x->block) {
		rpc_errno(x->r->c, x->r->id, ENOMEM, "spawn");
		return -1;
	}
	memset(x->block, 0, (nargs + nenv) * sizeof(char *));
	x->argv = (char **)(void *)x->block + 1;
	x->env = x->argv - 1 + nargs;
	x->at = (char *)(x->env + nenv);
	x->end = x->at + bytes;
	return 0;
}

static int read_request(struct reading *x)
{
	if (make_room(x) || read_pty(x) || read_stdio(x) || read_ids(x) || read_args(x))
		return -1;
	return read_env(x) || read_cwd(x) ? -1 : 0;
}

/* ---- answers ---- */

static void write_stream(struct jwrite *w, const char *name, const struct output *o)
{
	if (o)
		jwrite_fmt(w, ",\"%s\":%" PRIu64, name, o->id);
	else
		jwrite_fmt(w, ",\"%s\":null", name);
}

static void answer_spawn(const struct rpc_call *r, struct proc *p)
{
	struct jwrite w;

	rpc_ok_begin(r->c, &w, r->id);
	jwrite_fmt(&w, "{\"pid\":%d", (int)p->pid);
	write_stream(&w, "stdoutStreamId", p->out[0]);
	write_stream(&w, "stderrStreamId", p->out[1]);
	jwrite_raw(&w, "}");
	rpc_ok_end(r->c, &w);
	proc_started(p);
}

static void answer_failure(const struct reading *x, const struct proc_failure *f)
{
	static const char *const doing[] = {
		[SPAWN_OK] = "start",
		[SPAWN_CLONE] = "start",
		[SPAWN_SETUP] = "prepare",
		[SPAWN_CWD] = "chdir",
		[SPAWN_EXEC] = "spawn",
	};
	const char *name = f->stage == SPAWN_CWD ? x->q.spawn.cwd : x->argv[0];
	char what[256];

	snprintf(what, sizeof(what), "%s '%s'", doing[f->stage], name);
	rpc_errno(x->r->c, x->r->id, f->err, what);
}

static void spawn(const struct rpc_call *r, bool skerry)
{
	struct reading x = { .r = r, .skerry = skerry };
	struct proc_failure f;
	struct proc *p;

	if (read_request(&x)) {
		struct input *i = x.q.has_stdin ? input_find(r->c, x.q.stdin_id) : NULL;

		if (i && !i->claimed)
			input_cancel(i, ECANCELED, "the process could not be started");
	} else if (proc_start(r->c, &x.q, &p, &f)) {
		answer_failure(&x, &f);
	} else {
		answer_spawn(r, p);
	}
	free(x.block);
}

void rpc_spawn(const struct rpc_call *r)
{
	spawn(r, false);
}

void rpc_skerry_spawn(const struct rpc_call *r)
{
	spawn(r, true);
}

/* ---- running processes ---- */

static bool get_pid(const struct rpc_call *r, uint64_t *ret)
{
	int v = jread_get(r->j, r->params, "pid");

	if (jread_u64(r->j, v, ret))
		return true;
	rpc_invalid(r->c, r->id, "pid", "number", v);
	return false;
}

void rpc_wait(const struct rpc_call *r)
{
	struct proc *p;
	uint64_t pid;
	int err;

	if (!get_pid(r, &pid))
		return;
	p = proc_find(r->c, pid);
	err = p ? proc_wait(p, r->id) : -ENOENT;
	if (err)
		rpc_errno(r->c, r->id, -err, "wait for a process");
}

static bool get_signal(const struct rpc_call *r, int *ret)
{
	int v = jread_get(r->j, r->params, "signal");
	char name[32];
	size_t len;

	*ret = SIGTERM;
	if (!v)
		return true;
	if (jread_type(r->j, v) != JREAD_STRING) {
		rpc_invalid(r->c, r->id, "signal", "string", v);
		return false;
	}
	*ret = 0;
	if (jread_len(r->j, v) <= sizeof(name)) {
		jread_str(r->j, v, name, &len);
		*ret = signals_number(name);
	}
	if (!*ret)
		rpc_error(r->c, r->id, "TypeError", "EINVAL", "there is no signal of this name");
	return *ret;
}

void rpc_kill(const struct rpc_call *r)
{
	int v = jread_get(r->j, r->params, "group"), sig;
	bool group = false;
	struct proc *p;
	uint64_t pid;

	if (!get_pid(r, &pid) || !get_signal(r, &sig))
		return;
	if (v && !jread_bool(r->j, v, &group)) {
		rpc_invalid(r->c, r->id, "group", "boolean", v);
		return;
	}
	p = proc_find(r->c, pid);
	if (p && !proc_kill(p, sig, group))
		rpc_ok_null(r->c, r->id);
	else /* protocol.md 5.3: this pair and no other, for a process that is gone */
		rpc_error(
			r->c, r->id, "TypeError", "ENOENT", "Child process has already terminated");
}

void rpc_resize(const struct rpc_call *r)
{
	int rv = jread_get(r->j, r->params, "rows"), cv = jread_get(r->j, r->params, "cols"), err;
	uint64_t pid, rows, cols;
	struct proc *p;

	if (!get_pid(r, &pid))
		return;
	if (!jread_u64(r->j, rv, &rows) || rows > TTY_SIZE_MAX) {
		rpc_invalid(r->c, r->id, "rows", "number", rv);
		return;
	}
	if (!jread_u64(r->j, cv, &cols) || cols > TTY_SIZE_MAX) {
		rpc_invalid(r->c, r->id, "cols", "number", cv);
		return;
	}
	p = proc_find(r->c, pid);
	err = p ? proc_resize(p, (unsigned)rows, (unsigned)cols) : -ESRCH;
	if (err)
		rpc_errno(r->c, r->id, -err, "resize the terminal");
	else
		rpc_ok_null(r->c, r->id);
}

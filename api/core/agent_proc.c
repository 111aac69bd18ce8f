/*
 * api/core/agent_proc.c - processes of an agent client: requests, streams, credit
 *
 * A process asks for its exit status (processWait) as soon as it runs. A stream id means something from the
 * answer to spawn until the stream's end or its cancellation; what arrives for it later is dropped, because the
 * guest may not have seen the cancellation yet.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "api/core/agent_int.h"
#include "base/guest_proto.h"
#include "base/log.h"

#define GRANT_BATCH (GP_CREDIT_INITIAL / 4)
#define CREDIT_MAX  (UINT64_C(1) << 53)
#define PID_MAX     (UINT64_C(1) << 32)

static const char *const stream_names[] = { "stdout", "stderr" };

/* ---- requests ---- */

static void add_env(struct agent_msg *m, const struct agent_spawn *s)
{
	cJSON *env = json_add_object(&m->json, m->params, "env");

	for (size_t i = 0; i < s->nenv; i++) {
		const char *eq = strchr(s->env[i], '=');
		autofree char *name = eq ? strndup(s->env[i], (size_t)(eq - s->env[i])) : NULL;

		if (!eq)
			continue; /* exec(2) allows it, but it is no variable */
		if (!name) {
			m->json.failed = true;
			return;
		}
		cJSON_DeleteItemFromObjectCaseSensitive(env, name); /* the last one counts */
		json_add_str(&m->json, env, name, eq + 1);
	}
}

static void build_spawn(
	struct agent_msg *m, const struct agent_proc *p, const struct agent_spawn *s)
{
	struct json_out *j = &m->json;
	cJSON *args, *pty;

	agent_msg_init(m, "$skerry.spawn", p->spawn_id);
	json_add_str(j, m->params, "command", s->command);
	args = json_add_array(j, m->params, "args");
	for (size_t i = 0; i < s->nargs; i++)
		json_push_str(j, args, s->args[i]);
	if (s->nenv)
		add_env(m, s);
	if (s->clear_env)
		json_add_bool(j, m->params, "clearEnv", true);
	if (s->cwd)
		json_add_str(j, m->params, "cwd", s->cwd);
	if (s->user)
		json_add_str(j, m->params, "user", s->user);
	if (s->group)
		json_add_str(j, m->params, "group", s->group);
	if (p->in_state == STREAM_OPEN)
		json_add_u64(j, m->params, "stdinStreamId", p->in_id);
	json_add_str(j, m->params, "stdout", s->stdout_null ? "null" : "piped");
	json_add_str(j, m->params, "stderr", s->stderr_null ? "null" : "piped");
	if (s->pty) {
		pty = json_add_object(j, m->params, "pty");
		json_add_u64(j, pty, "rows", s->rows);
		json_add_u64(j, pty, "cols", s->cols);
	}
}

static void send_stream_end(struct agent *a, uint64_t id)
{
	struct agent_msg m;

	agent_msg_init(&m, "$sandbox.stream.end", 0);
	json_add_u64(&m.json, m.params, "streamId", id);
	agent_send_or_fail(a, &m);
}

static void send_cancel(struct agent *a, uint64_t id)
{
	struct agent_msg m;
	cJSON *reason;

	agent_msg_init(&m, "$sandbox.stream.cancel", 0);
	json_add_u64(&m.json, m.params, "streamId", id);
	reason = json_add_object(&m.json, m.params, "reason");
	json_add_str(&m.json, reason, "constructorName", "BrokenPipe");
	json_add_str(&m.json, reason, "message", "nobody reads this stream any more");
	json_add_str(&m.json, reason, "code", "EPIPE");
	agent_send_or_fail(a, &m);
}

static int send_spawn(struct agent_proc *p, const struct agent_spawn *s, struct error *e)
{
	struct agent *a = p->agent;
	struct agent_msg m;
	int r;

	if (s->stdin_piped) {
		agent_msg_init(&m, "$sandbox.stream.start", 0);
		json_add_u64(&m.json, m.params, "streamId", p->in_id);
		agent_send_or_fail(a, &m);
	}
	build_spawn(&m, p, s);
	r = agent_msg_send(a, &m);
	if (!r)
		return 0;
	if (s->stdin_piped)
		send_stream_end(a, p->in_id);
	if (r == -ENOBUFS)
		return error_set(e, E2BIG,
			"command line and environment: larger than %u KiB in all",
			GP_FRAME_MAX / 1024);
	return error_set(e, -r, "starting '%s': %s", s->command, strerror(-r));
}

int agent_spawn(struct agent *a, const struct agent_spawn *s, const struct agent_proc_ops *ops,
	void *ctx, struct agent_proc **ret, struct error *e)
{
	autofree struct agent_proc *p = calloc(1, sizeof(*p));
	int r;

	if (a->state != AGENT_READY)
		return error_set(e, ENOTCONN, "the guest's agent isn't ready");
	if (!p)
		return error_set(e, ENOMEM, "starting '%s': out of memory", s->command);
	if (a->nprocs >= AGENT_PROCS_MAX)
		return error_set(e, ENOBUFS, "starting '%s': %d processes are running already",
			s->command, AGENT_PROCS_MAX);
	p->agent = a;
	p->ops = ops;
	p->ctx = ctx;
	p->spawn_id = a->next_call++;
	if (s->stdin_piped) {
		p->in_state = STREAM_OPEN;
		p->in_id = a->next_stream++;
		p->in_credit = GP_CREDIT_INITIAL;
	}
	r = send_spawn(p, s, e);
	if (r)
		return r;
	p->next = a->procs;
	p->link = &a->procs;
	if (p->next)
		p->next->link = &p->next;
	a->procs = p;
	a->nprocs++;
	*ret = take_ptr(p);
	return 0;
}

void agent_proc_free(struct agent_proc *p)
{
	if (!p)
		return;
	agent_proc_stdin_end(p);
	for (int s = 0; s < AGENT_STREAMS; s++)
		agent_proc_cancel(p, s);
	*p->link = p->next;
	if (p->next)
		p->next->link = p->link;
	p->agent->nprocs--;
	free(p);
}

void agent_proc_kill(struct agent_proc *p, int sig, bool group)
{
	const char *abbrev = sigabbrev_np(sig);
	struct agent_msg m;
	char name[24];

	if (p->state != PROC_RUNNING || !abbrev)
		return;
	snprintf(name, sizeof(name), "SIG%s", abbrev);
	agent_msg_init(&m, "processKill", p->agent->next_call++);
	json_add_u64(&m.json, m.params, "pid", p->pid);
	json_add_str(&m.json, m.params, "signal", name);
	if (group)
		json_add_bool(&m.json, m.params, "group", true);
	agent_send_or_fail(p->agent, &m);
}

void agent_proc_resize(struct agent_proc *p, unsigned rows, unsigned cols)
{
	struct agent_msg m;

	if (p->state != PROC_RUNNING)
		return;
	agent_msg_init(&m, "$skerry.resize", p->agent->next_call++);
	json_add_u64(&m.json, m.params, "pid", p->pid);
	json_add_u64(&m.json, m.params, "rows", rows);
	json_add_u64(&m.json, m.params, "cols", cols);
	agent_send_or_fail(p->agent, &m);
}

/* ---- input of a process ---- */

size_t agent_proc_stdin_room(struct agent_proc *p)
{
	size_t room = 0;

	if (p->in_state == STREAM_OPEN && buf_len(&p->agent->out) < AGENT_OUT_FULL)
		room = MIN(p->in_credit, GP_CREDIT_INITIAL);
	p->in_starved = !room;
	return room;
}

int agent_proc_stdin(struct agent_proc *p, const void *data, size_t len)
{
	size_t n, before = buf_len(&p->agent->out);
	const uint8_t *d = data;
	int r;

	if (p->in_state != STREAM_OPEN)
		return -EPIPE;
	while (len) {
		n = MIN(len, GP_DATA_MAX);
		if (n > p->in_credit)
			return -ENOBUFS;
		r = frame_put_data(&p->agent->out, p->in_id, d, n);
		if (r)
			return r;
		p->in_credit -= n;
		d += n;
		len -= n;
	}
	agent_wrote(p->agent, before);
	return 0;
}

void agent_proc_stdin_end(struct agent_proc *p)
{
	if (p->in_state != STREAM_OPEN)
		return;
	p->in_state = STREAM_DONE;
	send_stream_end(p->agent, p->in_id);
}

static void stdin_wake(struct agent_proc *p)
{
	if (p->in_starved && agent_proc_stdin_room(p) && p->ops->stdin_room)
		p->ops->stdin_room(p, p->ctx);
}

void agent_out_drained(struct agent *a)
{
	struct agent_proc *p, *next;

	for (p = a->procs; p; p = next) {
		next = p->next; /* a callback may free its own process, no other */
		stdin_wake(p);
	}
}

/* ---- output of a process ---- */

static void send_credit(struct agent_proc *p, struct out_stream *o)
{
	struct agent_msg m;

	agent_msg_init(&m, "$skerry.credit", 0);
	json_add_u64(&m.json, m.params, "streamId", o->id);
	json_add_u64(&m.json, m.params, "bytes", o->granted);
	agent_send_or_fail(p->agent, &m);
	o->window += o->granted;
	o->granted = 0;
}

void agent_proc_grant(struct agent_proc *p, enum agent_stream s, size_t len)
{
	struct out_stream *o = &p->out[s];

	if (o->state != STREAM_OPEN)
		return;
	o->granted += len;
	if (o->granted >= GRANT_BATCH)
		send_credit(p, o);
}

void agent_proc_cancel(struct agent_proc *p, enum agent_stream s)
{
	if (p->out[s].state != STREAM_OPEN)
		return;
	p->out[s].state = STREAM_DONE;
	send_cancel(p->agent, p->out[s].id);
}

static struct agent_proc *find_stream(struct agent *a, uint64_t id, enum agent_stream *ret)
{
	for (struct agent_proc *p = a->procs; p; p = p->next)
		for (int s = 0; s < AGENT_STREAMS; s++)
			if (p->out[s].state == STREAM_OPEN && p->out[s].id == id) {
				*ret = s;
				return p;
			}
	return NULL;
}

static int check_range(uint64_t id, struct error *e)
{
	if (id < AGENT_ID_BASE || id - AGENT_ID_BASE >= AGENT_ID_COUNT)
		return error_set(e, EPROTO, "stream %llu is outside the agreed range",
			(unsigned long long)id);
	return 0;
}

int agent_proc_data(struct agent *a, uint64_t stream, const void *data, size_t len, struct error *e)
{
	enum agent_stream s = AGENT_STDOUT;
	struct agent_proc *p;
	int r = check_range(stream, e);

	if (r)
		return r;
	p = find_stream(a, stream, &s);
	if (!p)
		return 0;
	if (len > p->out[s].window)
		return error_set(e, EPROTO, "%s of process %llu: more data than granted",
			stream_names[s], (unsigned long long)p->pid);
	p->out[s].window -= len;
	p->ops->data(p, p->ctx, s, data, len);
	return 0;
}

static int stream_end(struct agent *a, uint64_t id, struct error *e)
{
	enum agent_stream s = AGENT_STDOUT;
	struct agent_proc *p;
	int r = check_range(id, e);

	if (r)
		return r;
	p = find_stream(a, id, &s);
	if (!p)
		return 0;
	p->out[s].state = STREAM_DONE;
	p->ops->end(p, p->ctx, s);
	return 0;
}

static struct agent_proc *find_stdin(struct agent *a, uint64_t id)
{
	for (struct agent_proc *p = a->procs; p; p = p->next)
		if (p->in_state == STREAM_OPEN && p->in_id == id)
			return p;
	return NULL;
}

static void stdin_cancelled(struct agent *a, uint64_t id)
{
	struct agent_proc *p = find_stdin(a, id);

	if (!p)
		return;
	p->in_state = STREAM_DONE;
	if (p->ops->stdin_closed)
		p->ops->stdin_closed(p, p->ctx);
}

static int stdin_credit(struct agent *a, uint64_t id, uint64_t bytes, struct error *e)
{
	struct agent_proc *p = find_stdin(a, id);

	if (!p)
		return 0;
	if (bytes > CREDIT_MAX - p->in_credit)
		return error_set(e, EPROTO, "stream %llu: absurd credit", (unsigned long long)id);
	p->in_credit += bytes;
	stdin_wake(p);
	return 0;
}

int agent_proc_notify(struct agent *a, const char *method, const cJSON *params, struct error *e)
{
	uint64_t id = 0, bytes = 0;
	int r;

	if (strncmp(method, "$sandbox.stream.", 16) && strcmp(method, "$skerry.credit"))
		return 0; /* of a later version */
	r = json_u64(params, "streamId", JSON_REQUIRED, 0, JSON_INT_MAX, &id, e);
	if (r < 0)
		return error_set(e, EPROTO, "%s: streamId is missing or wrong", method);
	if (!strcmp(method, "$sandbox.stream.start"))
		return check_range(id, e);
	if (!strcmp(method, "$sandbox.stream.end") || !strcmp(method, "$sandbox.stream.error"))
		return stream_end(a, id, e);
	if (!strcmp(method, "$sandbox.stream.cancel")) {
		stdin_cancelled(a, id);
		return 0;
	}
	if (strcmp(method, "$skerry.credit"))
		return error_set(e, EPROTO, "%s on a binary connection", method);
	r = json_u64(params, "bytes", JSON_REQUIRED, 1, CREDIT_MAX, &bytes, e);
	return r < 0 ? error_set(e, EPROTO, "%s: bytes is missing or wrong", method)
		     : stdin_credit(a, id, bytes, e);
}

/* ---- answers ---- */

static int open_stream(struct agent_proc *p, const cJSON *ok, const char *name, enum agent_stream s,
	struct error *e)
{
	enum agent_stream other = AGENT_STDOUT;
	uint64_t id = 0;
	int r = json_u64(ok, name, JSON_OPTIONAL, 0, JSON_INT_MAX, &id, e);

	if (r <= 0)
		return r ? error_set(e, EPROTO, "spawn: bad %s", name) : 0;
	r = check_range(id, e);
	if (r)
		return r;
	if (find_stream(p->agent, id, &other))
		return error_set(
			e, EPROTO, "spawn: stream %llu is in use already", (unsigned long long)id);
	p->out[s] =
		(struct out_stream){ .state = STREAM_OPEN, .id = id, .window = GP_CREDIT_INITIAL };
	return 0;
}

static void send_wait(struct agent_proc *p)
{
	struct agent_msg m;

	p->wait_id = p->agent->next_call++;
	agent_msg_init(&m, "processWait", p->wait_id);
	json_add_u64(&m.json, m.params, "pid", p->pid);
	agent_send_or_fail(p->agent, &m);
}

static int spawn_reply(struct agent_proc *p, const cJSON *msg, struct error *e)
{
	struct agent_failure f = { 0 };
	const cJSON *ok = agent_reply_result(msg, &f);
	int r;

	p->spawn_id = 0;
	if (!ok) {
		p->state = PROC_EXITED;
		p->in_state = STREAM_DONE;
		p->ops->failed(p, p->ctx, &f);
		return 0;
	}
	if (json_u64(ok, "pid", JSON_REQUIRED, 1, PID_MAX, &p->pid, e) < 0)
		return error_set(e, EPROTO, "spawn: bad pid");
	r = open_stream(p, ok, "stdoutStreamId", AGENT_STDOUT, e);
	if (!r)
		r = open_stream(p, ok, "stderrStreamId", AGENT_STDERR, e);
	if (r)
		return r;
	p->state = PROC_RUNNING;
	send_wait(p);
	p->ops->started(p, p->ctx, p->pid);
	return 0;
}

static int wait_reply(struct agent_proc *p, const cJSON *msg, struct error *e)
{
	struct agent_failure f = { 0 };
	const cJSON *ok = agent_reply_result(msg, &f);
	struct agent_exit x = { 0 };
	const char *text = NULL;
	uint64_t code = 0;

	p->wait_id = 0;
	if (!ok)
		return error_set(e, EPROTO, "processWait: %s", f.message);
	if (json_u64(ok, "code", JSON_REQUIRED, 0, 255, &code, e) < 0 ||
		json_str(ok, "signal", JSON_OPTIONAL, sizeof(x.signal) - 1, &text, e) < 0)
		return error_set(e, EPROTO, "processWait: %s", e ? e->msg : "");
	x.code = (unsigned)code;
	if (text)
		log_escape(x.signal, sizeof(x.signal), text, strlen(text));
	text = NULL;
	if (json_str(ok, "oom", JSON_OPTIONAL, 64, &text, e) < 0)
		return error_set(e, EPROTO, "processWait: %s", e ? e->msg : "");
	if (text)
		x.oom = strcmp(text, "high-confidence") ? AGENT_OOM_PERHAPS : AGENT_OOM_YES;
	p->state = PROC_EXITED;
	p->ops->exited(p, p->ctx, &x);
	return 0;
}

int agent_proc_reply(struct agent *a, uint64_t id, const cJSON *msg, struct error *e)
{
	for (struct agent_proc *p = a->procs; p; p = p->next) {
		if (p->spawn_id == id)
			return spawn_reply(p, msg, e);
		if (p->wait_id == id)
			return wait_reply(p, msg, e);
	}
	return 0; /* of a call that nobody waits for */
}

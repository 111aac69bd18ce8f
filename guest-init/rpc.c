/*
 * guest-init/rpc.c - JSON-RPC messages: the envelope, hello, the table of methods
 *
 * Trust:   a message that is no JSON-RPC 2.0, or comes before hello, ends the connection: nobody
 *          knows what was meant. A known method with wrong parameters gets -32602, an unknown one
 *          -32601, every other failure is a result.
 * Spec:    protocol.md 5, JSON-RPC 2.0, base/guest_proto.h
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "guest-init/agent_int.h"

#define VERSION_OLDEST 1 /* still served */

/* ---- answers ---- */

static void answer_begin(struct conn *c, struct jwrite *w, uint64_t id)
{
	conn_begin(c, w);
	jwrite_fmt(w, "{\"jsonrpc\":\"2.0\",\"id\":%" PRIu64, id);
}

void rpc_ok_begin(struct conn *c, struct jwrite *w, uint64_t id)
{
	answer_begin(c, w, id);
	jwrite_raw(w, ",\"result\":{\"ok\":");
}

void rpc_ok_end(struct conn *c, struct jwrite *w)
{
	jwrite_raw(w, "}}");
	conn_send(c, w);
}

void rpc_ok_null(struct conn *c, uint64_t id)
{
	struct jwrite w;

	rpc_ok_begin(c, &w, id);
	jwrite_raw(&w, "null");
	rpc_ok_end(c, &w);
}

void rpc_error(
	struct conn *c, uint64_t id, const char *class_name, const char *code, const char *message)
{
	struct jwrite w;

	answer_begin(c, &w, id);
	jwrite_raw(&w, ",\"result\":{\"error\":");
	errs_write(&w, class_name, code, message);
	rpc_ok_end(c, &w);
}

void rpc_errno(struct conn *c, uint64_t id, int err, const char *what)
{
	struct jwrite w;

	answer_begin(c, &w, id);
	jwrite_raw(&w, ",\"result\":{\"error\":");
	errs_write_errno(&w, err, what);
	rpc_ok_end(c, &w);
}

/* The message inside is JSON text in a JSON string. */
void rpc_invalid(struct conn *c, uint64_t id, const char *path, const char *expected, int value)
{
	const char *got = jread_type_name(jread_type(c->agent->json, value));
	char text[256];
	struct jwrite w;

	snprintf(text, sizeof(text),
		"[{\"expected\":\"%s\",\"code\":\"invalid_type\",\"path\":[\"%s\"],"
		"\"message\":\"Invalid input: expected %s, received %s\"}]",
		expected, path, expected, got);
	answer_begin(c, &w, id);
	jwrite_raw(&w, ",\"error\":{\"code\":-32602,\"message\":\"Invalid params\",\"data\":"
		       "{\"constructorName\":\"ZodError\",\"message\":");
	jwrite_text(&w, text);
	jwrite_raw(&w, "}}}");
	conn_send(c, &w);
}

static void no_method(struct conn *c, uint64_t id)
{
	struct jwrite w;

	answer_begin(c, &w, id);
	jwrite_raw(&w, ",\"error\":{\"code\":-32601,\"message\":\"Method not found\"}}");
	conn_send(c, &w);
}

/* ---- methods of the connection ---- */

static bool get_u64(const struct rpc_call *r, const char *name, uint64_t max, uint64_t *ret)
{
	int v = jread_get(r->j, r->params, name);

	if (jread_u64(r->j, v, ret) && *ret <= max)
		return true;
	rpc_invalid(r->c, r->id, name, "number", v);
	return false;
}

static void answer_hello(struct conn *c, uint64_t id, uint64_t version)
{
	struct guest_agent *a = c->agent;
	struct jwrite w;

	rpc_ok_begin(c, &w, id);
	jwrite_fmt(&w,
		"{\"version\":%" PRIu64 ",\"agent\":\"skerry/" SKERRY_VERSION
		"\",\"initNs\":%" PRIu64 ",\"readyNs\":%" PRIu64 ",\"nowNs\":%" PRIu64 "}",
		version, a->config.init_ns, a->ready_ns, agent_now_ns());
	rpc_ok_end(c, &w);
}

static void rpc_hello(const struct rpc_call *r)
{
	struct conn *c = r->c;
	uint64_t version, base, count;
	bool binary = false;
	int v;

	if (!get_u64(r, "version", JREAD_INT_MAX, &version) ||
		!get_u64(r, "idBase", JREAD_INT_MAX, &base) ||
		!get_u64(r, "idCount", JREAD_INT_MAX + 1, &count))
		return;
	v = jread_get(r->j, r->params, "binary");
	if (v && !jread_bool(r->j, v, &binary)) {
		rpc_invalid(c, r->id, "binary", "boolean", v);
		return;
	}
	if (version < VERSION_OLDEST) {
		rpc_error(c, r->id, "NotSupported", "ENOTSUP",
			"this version of the agent protocol is too old; update the host's program");
		return;
	}
	if (c->hello || !count || count > JREAD_INT_MAX + 1 - base) {
		rpc_error(c, r->id, "TypeError", "EINVAL",
			c->hello ? "hello was said already"
				 : "the id range is empty or above 2^53");
		return;
	}
	c->hello = true;
	c->binary = binary;
	c->id_base = base;
	c->id_count = count;
	c->id_next = 0;
	cgroup_conn_create(&c->agent->cgroups, &c->cgroup);
	answer_hello(c, r->id, MIN(version, GP_VERSION));
}

/* protocol.md 7.1: always succeeds. No method here can be aborted yet. */
static void rpc_abort(const struct rpc_call *r)
{
	rpc_ok_null(r->c, r->id);
}

/*
 * Nanoseconds are beyond what a JSON number carries everywhere: a decimal string will do as well.
 */
static bool get_ns(const struct jread *j, int v, uint64_t *ret)
{
	char text[24], *end;
	size_t len;

	if (jread_type(j, v) != JREAD_STRING)
		return jread_u64(j, v, ret);
	if (jread_len(j, v) > sizeof(text))
		return false;
	jread_str(j, v, text, &len);
	errno = 0;
	*ret = strtoull(text, &end, 10);
	return len && text[0] >= '0' && text[0] <= '9' && end == text + len && !errno;
}

static void rpc_set_time(const struct rpc_call *r)
{
	int v = jread_get(r->j, r->params, "unixNs"), err;
	uint64_t ns;

	if (!get_ns(r->j, v, &ns)) {
		rpc_invalid(r->c, r->id, "unixNs", "number", v);
		return;
	}
	err = r->c->agent->sys.set_time(ns);
	if (err)
		rpc_errno(r->c, r->id, -err, "set the clock");
	else
		rpc_ok_null(r->c, r->id);
}

static const struct {
	const char *name;
	void (*call)(const struct rpc_call *r);
} methods[] = {
	{ "$skerry.hello", rpc_hello },
	{ "spawn", rpc_spawn },
	{ "$skerry.spawn", rpc_skerry_spawn },
	{ "processWait", rpc_wait },
	{ "processKill", rpc_kill },
	{ "$skerry.kill", rpc_kill },
	{ "$skerry.resize", rpc_resize },
	{ "abort", rpc_abort },
	{ "$skerry.setTime", rpc_set_time },
};

/* ---- notifications: streams ---- */

static void note_start(const struct rpc_call *r, uint64_t stream)
{
	input_start(r->c, stream);
}

static void note_enqueue(const struct rpc_call *r, uint64_t stream)
{
	struct input *i = input_find(r->c, stream);
	int v = jread_get(r->j, r->params, "data");
	autofree char *text = NULL;
	size_t len;

	if (!i)
		return;
	if (jread_type(r->j, v) == JREAD_STRING)
		text = malloc(jread_len(r->j, v));
	if (!text) {
		input_cancel(i, EILSEQ, "stream data is no base64 string");
		return;
	}
	jread_str(r->j, v, text, &len);
	if (!base64_decode(text, len, (uint8_t *)text, &len))
		input_cancel(i, EILSEQ, "stream data is no base64");
	else if (len)
		input_data(i, (uint8_t *)text, len);
}

static void note_end(const struct rpc_call *r, uint64_t stream)
{
	struct input *i = input_find(r->c, stream);

	if (i)
		input_end(i);
}

static void note_cancel(const struct rpc_call *r, uint64_t stream)
{
	struct output *o = output_find(r->c, stream);

	if (!o)
		return;
	if (o->pty && o->proc)
		proc_hangup(o->proc);
	output_free(o);
}

static void note_credit(const struct rpc_call *r, uint64_t stream)
{
	struct output *o = output_find(r->c, stream);
	uint64_t bytes;

	if (!jread_u64(r->j, jread_get(r->j, r->params, "bytes"), &bytes))
		conn_fail(r->c, "$skerry.credit without bytes");
	else if (o)
		output_credit(o, bytes);
}

static const struct {
	const char *name;
	void (*note)(const struct rpc_call *r, uint64_t stream);
} notes[] = {
	{ "$sandbox.stream.start", note_start },
	{ "$sandbox.stream.enqueue", note_enqueue },
	{ "$sandbox.stream.end", note_end },
	{ "$sandbox.stream.error", note_end },
	{ "$sandbox.stream.cancel", note_cancel },
	{ "$skerry.credit", note_credit },
};

static void notify(const struct rpc_call *r, int method)
{
	uint64_t stream;

	for (size_t i = 0; i < ARRAY_SIZE(notes); i++) {
		if (!jread_is(r->j, method, notes[i].name))
			continue;
		if (!jread_u64(r->j, jread_get(r->j, r->params, "streamId"), &stream))
			conn_fail(r->c, "a stream notification without streamId");
		else
			notes[i].note(r, stream);
		return;
	}
}

/* ---- the envelope ---- */

static void call(const struct rpc_call *r, int method)
{
	for (size_t i = 0; i < ARRAY_SIZE(methods); i++) {
		if (!jread_is(r->j, method, methods[i].name))
			continue;
		if (!r->c->hello && methods[i].call != rpc_hello)
			break;
		methods[i].call(r);
		return;
	}
	if (r->c->hello)
		no_method(r->c, r->id);
	else
		conn_fail(r->c, "the host called before $skerry.hello");
}

static void dispatch(struct rpc_call *r)
{
	int method = jread_get(r->j, JREAD_ROOT, "method");
	int id = jread_get(r->j, JREAD_ROOT, "id");

	r->params = jread_get(r->j, JREAD_ROOT, "params");
	if (!jread_is(r->j, jread_get(r->j, JREAD_ROOT, "jsonrpc"), "2.0") ||
		jread_type(r->j, method) != JREAD_STRING)
		conn_fail(r->c, "a message that is no JSON-RPC 2.0 request");
	else if (id && (!jread_u64(r->j, id, &r->id) || r->id > JREAD_INT_MAX))
		conn_fail(r->c, "a request whose id is no whole number");
	else if (id)
		call(r, method);
	else if (r->c->hello)
		notify(r, method);
	else
		conn_fail(r->c, "the host spoke before $skerry.hello");
}

void rpc_message(struct conn *c, const uint8_t *text, size_t len)
{
	struct rpc_call r = { .c = c, .j = c->agent->json };

	if (jread_parse(r.j, (const char *)text, len))
		conn_fail(c, "a message that is no JSON object, or too complex");
	else
		dispatch(&r);
	jread_done(r.j);
}

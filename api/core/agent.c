/*
 * api/core/agent.c - connection to an agent: frames, messages, hello
 *
 * Calls are numbered from 1; an answer to a number never used breaks the connection, one that nobody waits for any
 * more is dropped. Output collects in one bounded queue. When it overflows (the guest reads nothing while it is sent
 * signals or credit) the next input reports the connection as broken.
 */
#include <assert.h>
#include <errno.h>
#include <string.h>

#include "api/core/agent_int.h"
#include "base/guest_proto.h"
#include "base/log.h"
#include "base/loop.h"

#define HELLO_ID 1

int agent_create(struct agent **ret, const struct agent_ops *ops, void *ctx)
{
	struct agent *a = calloc(1, sizeof(*a));

	if (!a)
		return -ENOMEM;
	a->ops = ops;
	a->ctx = ctx;
	a->next_call = HELLO_ID;
	a->next_stream = 1;
	frame_reader_init(&a->reader);
	buf_init(&a->out, AGENT_OUT_MAX);
	*ret = a;
	return 0;
}

void agent_destroy(struct agent *a)
{
	struct agent_proc *p, *next;

	if (!a)
		return;
	for (p = a->procs; p; p = next) {
		next = p->next;
		free(p);
	}
	frame_reader_finish(&a->reader);
	buf_free(&a->out);
	free(a);
}

struct buf *agent_out(struct agent *a)
{
	return &a->out;
}

void agent_wrote(struct agent *a, size_t before)
{
	if (!before && buf_len(&a->out) && a->ops->flush)
		a->ops->flush(a, a->ctx);
}

/* ---- sending ---- */

void agent_msg_init(struct agent_msg *m, const char *method, uint64_t id)
{
	json_out_init(&m->json);
	json_add_str(&m->json, m->json.root, "jsonrpc", "2.0");
	if (id)
		json_add_u64(&m->json, m->json.root, "id", id);
	json_add_str(&m->json, m->json.root, "method", method);
	m->params = json_add_object(&m->json, m->json.root, "params");
}

int agent_msg_send(struct agent *a, struct agent_msg *m)
{
	autofree char *text = json_print(&m->json, false);
	size_t before = buf_len(&a->out);
	int r;

	json_out_free(&m->json);
	if (!text)
		return -ENOMEM;
	r = frame_put_json(&a->out, text, strlen(text));
	if (r)
		return r == -EMSGSIZE ? -ENOBUFS : r;
	agent_wrote(a, before);
	return 0;
}

void agent_send_or_fail(struct agent *a, struct agent_msg *m)
{
	if (agent_msg_send(a, m))
		a->out_failed = true;
}

int agent_hello(struct agent *a)
{
	struct agent_msg m;
	int r;

	assert(a->state == AGENT_NEW);
	agent_msg_init(&m, "$skerry.hello", a->next_call++);
	json_add_u64(&m.json, m.params, "version", GP_VERSION);
	json_add_u64(&m.json, m.params, "idBase", AGENT_ID_BASE);
	json_add_u64(&m.json, m.params, "idCount", AGENT_ID_COUNT);
	json_add_bool(&m.json, m.params, "binary", true);
	a->hello_sent_ns = loop_now_ns();
	r = agent_msg_send(a, &m);
	if (!r)
		a->state = AGENT_HELLO;
	return r;
}

void agent_set_time(struct agent *a, uint64_t unix_ns)
{
	struct agent_msg m;

	if (a->state != AGENT_READY)
		return;
	agent_msg_init(&m, "$skerry.setTime", a->next_call++);
	json_add_u64(&m.json, m.params, "unixNs", unix_ns);
	agent_send_or_fail(a, &m);
}

/* ---- receiving ---- */

static void failure_from(struct agent_failure *f, const cJSON *error)
{
	const char *s = NULL;

	*f = (struct agent_failure){ .message = "no reason given" };
	if (json_str(error, "message", JSON_OPTIONAL, SIZE_MAX, &s, NULL) > 0)
		log_escape(f->message, sizeof(f->message), s, strlen(s));
	if (json_str(error, "code", JSON_OPTIONAL, SIZE_MAX, &s, NULL) > 0)
		log_escape(f->code, sizeof(f->code), s, strlen(s));
}

const cJSON *agent_reply_result(const cJSON *msg, struct agent_failure *f)
{
	const cJSON *result = cJSON_GetObjectItemCaseSensitive(msg, "result");
	const cJSON *ok = cJSON_GetObjectItemCaseSensitive(result, "ok");

	if (ok)
		return ok;
	failure_from(f, cJSON_GetObjectItemCaseSensitive(result ? result : msg, "error"));
	return NULL;
}

static int hello_reply(struct agent *a, const cJSON *msg, struct error *e)
{
	struct agent_hello h = { .sent_ns = a->hello_sent_ns, .received_ns = loop_now_ns() };
	struct agent_failure f = { 0 };
	const cJSON *ok = agent_reply_result(msg, &f);

	if (!ok)
		return error_set(e, EPROTO, "hello was refused: %s", f.message);
	if (json_u64(ok, "version", JSON_REQUIRED, 0, UINT32_MAX, &h.version, e) < 0 ||
		json_u64(ok, "initNs", JSON_REQUIRED, 0, UINT64_MAX, &h.init_ns, e) < 0 ||
		json_u64(ok, "readyNs", JSON_REQUIRED, 0, UINT64_MAX, &h.ready_ns, e) < 0 ||
		json_u64(ok, "nowNs", JSON_REQUIRED, 0, UINT64_MAX, &h.now_ns, e) < 0)
		return e ? error_prefix(e, "hello") : -EPROTO;
	if (h.version != GP_VERSION)
		return error_set(e, EPROTO,
			"hello: the agent speaks version %llu, this program %d; run 'skerry setup'",
			(unsigned long long)h.version, GP_VERSION);
	a->state = AGENT_READY;
	a->ops->ready(a, a->ctx, &h);
	return 0;
}

static int reply(struct agent *a, const cJSON *msg, struct error *e)
{
	uint64_t id = 0;

	if (json_u64(msg, "id", JSON_REQUIRED, 1, a->next_call - 1, &id, e) < 0)
		return error_set(e, EPROTO, "answer to a call that was never made");
	if (a->state == AGENT_HELLO)
		return hello_reply(a, msg, e);
	return agent_proc_reply(a, id, msg, e);
}

static int message(struct agent *a, const struct frame *f, struct error *e)
{
	autojson cJSON *msg = NULL;
	const char *method = NULL;
	int r = json_parse(&msg, f->data, f->len, "message", e);

	if (r)
		return r;
	if (!cJSON_IsObject(msg))
		return error_set(e, EPROTO, "message: not an object");
	r = json_str(msg, "method", JSON_OPTIONAL, 64, &method, e);
	if (r < 0)
		return r;
	if (!r)
		return a->next_call == HELLO_ID ? error_set(e, EPROTO, "answer before hello")
						: reply(a, msg, e);
	if (a->state != AGENT_READY)
		return error_set(e, EPROTO, "%s before hello", method);
	return agent_proc_notify(a, method, cJSON_GetObjectItemCaseSensitive(msg, "params"), e);
}

static int take_frame(struct agent *a, const struct frame *f, struct error *e)
{
	if (f->kind == GP_JSON)
		return message(a, f, e);
	if (f->kind != GP_DATA || a->state != AGENT_READY)
		return error_set(e, EPROTO, "frame of kind %d at the wrong time", (int)f->kind);
	return agent_proc_data(a, f->stream, f->data, f->len, e);
}

static int take_frames(struct agent *a, struct error *e)
{
	const char *why = NULL;
	struct frame f;
	int r;

	while ((r = frame_next(&a->reader, &f, &why)) > 0) {
		r = take_frame(a, &f, e);
		if (r)
			return r;
	}
	if (r)
		return error_set(e, EPROTO, "%s", why);
	return a->out_failed ? error_set(e, ENOBUFS, "the guest's agent doesn't read") : 0;
}

/* Whatever went wrong, it is the connection that did: one code for callers. */
static int judge(struct agent *a, int r, struct error *e)
{
	if (!r)
		return 0;
	a->state = AGENT_BROKEN;
	if (e)
		e->code = EPROTO;
	return -EPROTO;
}

int agent_input(struct agent *a, const void *data, size_t len, struct error *e)
{
	int r;

	if (a->state == AGENT_BROKEN)
		return error_set(e, EPROTO, "the connection is broken already");
	assert(len <= AGENT_IN_MAX);
	r = frame_reader_feed(&a->reader, data, len);
	return judge(a, r ? error_set(e, -r, "input: %s", strerror(-r)) : take_frames(a, e), e);
}

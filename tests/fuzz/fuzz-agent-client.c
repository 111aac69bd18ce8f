/* Bytes of a hostile guest to the agent client: hello and one spawn are under way when they arrive. */
#include "api/core/agent.h"
#include "base/frame.h"
#include "base/guest_proto.h"

#include <assert.h>
#include <string.h>

static struct agent_proc *proc;
static uint64_t held; /* bytes of output not yet given back */

static void on_ready(struct agent *a, unused_arg void *ctx, unused_arg const struct agent_hello *h);

static void on_started(struct agent_proc *p, unused_arg void *ctx, unused_arg uint64_t pid)
{
	agent_proc_kill(p, 15, true);
}

static void on_failed(
	unused_arg struct agent_proc *p, unused_arg void *ctx, const struct agent_failure *f)
{
	assert(strlen(f->message) < sizeof(f->message) && strlen(f->code) < sizeof(f->code));
}

static void on_data(struct agent_proc *p, unused_arg void *ctx, enum agent_stream s,
	const void *data, size_t len)
{
	uint8_t sum = 0;

	for (size_t i = 0; i < len; i++)
		sum ^= ((const uint8_t *)data)[i];
	held += len + (sum & 0);
	assert(held <= AGENT_STREAMS * GP_CREDIT_INITIAL);
	if (len > 100) {
		agent_proc_grant(p, s, len);
		held -= len;
	}
}

static void on_end(
	unused_arg struct agent_proc *p, unused_arg void *ctx, unused_arg enum agent_stream s)
{
}

static void on_exited(
	unused_arg struct agent_proc *p, unused_arg void *ctx, const struct agent_exit *x)
{
	assert(x->code <= 255);
}

static void on_room(struct agent_proc *p, unused_arg void *ctx)
{
	static uint8_t zeros[GP_DATA_MAX];
	size_t room = agent_proc_stdin_room(p);

	assert(!agent_proc_stdin(p, zeros, MIN(room, sizeof(zeros))));
}

static const struct agent_ops ops = { .ready = on_ready };
static const struct agent_proc_ops proc_ops = { on_started, on_failed, on_data, on_end, on_exited,
	on_room, NULL };

static void on_ready(struct agent *a, unused_arg void *ctx, unused_arg const struct agent_hello *h)
{
	static const char *const env[] = { "A=B" };
	struct agent_spawn s = { .command = "x", .env = env, .nenv = 1, .stdin_piped = true };

	assert(!agent_spawn(a, &s, &proc_ops, NULL, &proc, NULL));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct agent *a = NULL;
	struct error e;
	size_t n, step = size ? 1 + data[0] % 64 : 1;

	proc = NULL;
	held = 0;
	if (!size)
		return 0;
	if (agent_create(&a, &ops, NULL) || agent_hello(a))
		abort();
	for (size_t i = 1; i < size; i += n) {
		n = MIN(step * step, size - i);
		if (agent_input(a, data + i, n, &e))
			break;
		assert(buf_len(agent_out(a)) <= AGENT_OUT_MAX);
		if (proc && data[i] & 1)
			agent_proc_stdin_room(proc);
		if (data[i] & 2)
			buf_consume(agent_out(a), buf_len(agent_out(a)));
		agent_out_drained(a);
	}
	agent_destroy(a);
	return 0;
}

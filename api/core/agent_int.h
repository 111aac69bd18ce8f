/*
 * api/core/agent_int.h - what agent.c (connection) and agent_proc.c (processes) share
 */
#pragma once

#include "api/core/agent.h"
#include "base/frame.h"
#include "base/json.h"

enum stream_state { STREAM_NONE, STREAM_OPEN, STREAM_DONE };

/* A stream that the guest writes. */
struct out_stream {
	enum stream_state state;
	uint64_t id;
	uint64_t window;  /* bytes the guest may still send */
	uint64_t granted; /* given back by the caller, not yet told */
};

enum proc_state { PROC_SPAWNING, PROC_RUNNING, PROC_EXITED };

struct agent_proc {
	struct agent *agent;
	struct agent_proc *next, **link;
	const struct agent_proc_ops *ops;
	void *ctx;
	enum proc_state state;
	uint64_t spawn_id, wait_id; /* of the calls */
	uint64_t pid;
	struct out_stream out[AGENT_STREAMS];
	enum stream_state in_state;
	uint64_t in_id;
	uint64_t in_credit;
	bool in_starved; /* the caller saw no room */
};

enum agent_state { AGENT_NEW, AGENT_HELLO, AGENT_READY, AGENT_BROKEN };

struct agent {
	const struct agent_ops *ops;
	void *ctx;
	enum agent_state state;
	struct frame_reader reader;
	struct buf out;
	bool out_failed; /* out overflowed or memory ran out: the connection can't go on */
	uint64_t next_call, next_stream;
	uint64_t hello_sent_ns;
	struct agent_proc *procs;
	unsigned nprocs;
};

/* The ids that streams of the agent come from. */
#define AGENT_ID_BASE  UINT64_C(1)
#define AGENT_ID_COUNT (UINT64_C(1) << 52)

/* A request or notification under construction. */
struct agent_msg {
	struct json_out json;
	cJSON *params;
};

/* agent_msg_init() - @id: of a request, or 0 for a notification (calls count from 1) */
void agent_msg_init(struct agent_msg *m, const char *method, uint64_t id);
/* agent_msg_send() - Queue and free it. 0, -ENOBUFS (longer than a frame, or no room), -ENOMEM. */
int agent_msg_send(struct agent *a, struct agent_msg *m) must_check;
/* agent_send_or_fail() - The same; a failure breaks the connection at the next input. */
void agent_send_or_fail(struct agent *a, struct agent_msg *m);
/* agent_wrote() - Call after bytes were added to out. @before: its length until then. */
void agent_wrote(struct agent *a, size_t before);

/* Events for processes; 0, or -EPROTO with a message. A proc may be gone afterwards. */
int agent_proc_reply(struct agent *a, uint64_t id, const cJSON *msg, struct error *e) must_check;
int agent_proc_notify(
	struct agent *a, const char *method, const cJSON *params, struct error *e) must_check;
int agent_proc_data(
	struct agent *a, uint64_t stream, const void *data, size_t len, struct error *e) must_check;

/* agent_reply_result() - The `ok` of a reply, or NULL and the reason in @f. */
const cJSON *agent_reply_result(const cJSON *msg, struct agent_failure *f);

/*
 * tests/lib/agent_peer.h - a host for the real agent: runs it in a child process over a socketpair
 *
 * Calls wait for their answer; what else comes meanwhile is kept per stream. A peer fails the test
 * (exit 1) when the agent breaks the protocol: frames, credit, the order of a stream's life.
 */
#pragma once

#include <cjson/cJSON.h>
#include <sys/types.h>

#include "base/frame.h"
#include "guest-init/agent.h"

#define PEER_ID_BASE  1000000
#define PEER_ID_COUNT 100000
#define PEER_STREAMS  4096
#define PEER_KEEP     65536 /* bytes of a stream's beginning that are kept */

/* One stream that the agent writes. */
struct peer_stream {
	uint64_t id;
	bool started, ended, failed, cancelled;
	uint64_t bytes, hash; /* FNV-1a of all */
	uint64_t window;      /* what the agent may still send */
	uint64_t ungranted;
	bool stopped; /* credit is not given back */
	char *text;   /* the first PEER_KEEP bytes */
};

struct peer {
	int fd;
	pid_t pid;
	bool binary, bytewise, sending;
	struct frame_reader in;
	uint64_t next_id;
	cJSON *answer; /* of the call that is waited for */
	uint64_t answer_to;
	cJSON *notes;          /* array: cancels and credit, in order */
	uint64_t input_credit; /* sum granted by the agent */
	struct peer_stream streams[PEER_STREAMS];
	unsigned nstreams;
	bool closed; /* the agent ended the connection */
	unsigned resets;
	uint8_t nonce[GP_RESET_NONCE];
};

/*
 * peer_start() - Fork an agent. @flags: enum guest_conn_flags; @cgroup: as in struct guest_config.
 */
void peer_start(struct peer *p, unsigned flags, const char *cgroup);
/* peer_stop() - Close, and wait for the agent's end, which must be a clean one. */
void peer_stop(struct peer *p);
/* peer_kill() - The end of an agent that would go on serving. */
void peer_kill(struct peer *p);
void peer_hello(struct peer *p, bool binary);

/* peer_pump() - Take what comes within @ms; false: nothing did. */
bool peer_pump(struct peer *p, int ms);
/* peer_call() - @params: JSON text. The answer's `ok` or `error`, borrowed until the next call. */
cJSON *peer_call(struct peer *p, const char *method, const char *fmt, ...) printf_like(3, 4);
/* peer_send_call() - Without waiting; its id. peer_wait_answer(): the whole answer, borrowed. */
uint64_t peer_send_call(struct peer *p, const char *method, const char *fmt, ...) printf_like(3, 4);
cJSON *peer_wait_answer(struct peer *p, uint64_t id);
void peer_note(struct peer *p, const char *method, const char *fmt, ...) printf_like(3, 4);
void peer_json(struct peer *p, const char *text);
void peer_raw(struct peer *p, const void *data, size_t len);
/* peer_data() - Stream data in the form of this connection. */
void peer_data(struct peer *p, uint64_t stream, const void *data, size_t len);

struct peer_proc {
	uint64_t pid;
	struct peer_stream *out, *err; /* NULL: none */
};
/* peer_spawn() - @params: members of spawn without the braces; must succeed. */
struct peer_proc peer_spawn(struct peer *p, const char *fmt, ...) printf_like(2, 3);
/* peer_spawn_error() - Must fail; the error's code. */
const char *peer_spawn_error(struct peer *p, const char *fmt, ...) printf_like(2, 3);
struct peer_stream *peer_stream(struct peer *p, uint64_t id);
/* peer_until_end() - Until the stream ended. */
void peer_until_end(struct peer *p, struct peer_stream *s);
/* peer_exit() - processWait: the code, and the signal's name in @signal (16 bytes) if not NULL. */
int peer_exit(struct peer *p, uint64_t pid, char *signal);
/* peer_run() - Spawn sh -c, wait for all: the exit code; the output is in ret->out->text. */
int peer_run(struct peer *p, const char *script, struct peer_proc *ret);

uint64_t peer_hash(uint64_t h, const void *data, size_t len);
#define PEER_HASH UINT64_C(0xcbf29ce484222325)
/* peer_forget() - All streams but the first @keep: their ids will be used again. */
void peer_forget(struct peer *p, unsigned keep);
/* peer_rss_kib() - Resident memory of the agent; 0 under ASan, where freed memory stays. */
long peer_rss_kib(const struct peer *p);

/*
 * api/core/agent.h - client of the agent in a guest: the protocol of base/guest_proto.h without the socket
 *
 * What:    bytes in, events and bytes out. Several processes at once over one connection. The same code speaks
 *          to the agent of a sandbox (vsock) and to that of the emulated host (a Unix socket).
 * Trust:   every byte that comes in is the guest's. Lengths, ids, credit and JSON are checked; a violation
 *          breaks the connection (agent_input() returns -EPROTO), never the program. What is stored per
 *          process has a fixed size; stream data is handed on at once and never stored here.
 * Threads: one; callbacks run from inside agent_input().
 */
#pragma once

#include "base/buf.h"
#include "base/error.h"

#define AGENT_PROCS_MAX 4096
#define AGENT_OUT_MAX   (4 * MIB) /* unsent bytes; ordinary callers stay under AGENT_OUT_FULL */
#define AGENT_OUT_FULL  (512 * KIB)
#define AGENT_IN_MAX    (64 * KIB)

struct agent;
struct agent_proc;

/* The guest's CLOCK_MONOTONIC at init's first instruction, when the agent was ready, at the answer. */
struct agent_hello {
	uint64_t version;
	uint64_t init_ns, ready_ns, now_ns;
	uint64_t sent_ns, received_ns; /* this side's CLOCK_MONOTONIC around the exchange */
};

struct agent_ops {
	/* hello was answered: agent_spawn() may be called */
	void (*ready)(struct agent *a, void *ctx, const struct agent_hello *h);
	/* agent_out() was empty and no longer is */
	void (*flush)(struct agent *a, void *ctx);
};

enum agent_stream { AGENT_STDOUT, AGENT_STDERR, AGENT_STREAMS };

enum agent_oom { AGENT_OOM_NO, AGENT_OOM_PERHAPS, AGENT_OOM_YES };

struct agent_exit {
	unsigned code;   /* 0..255; 128 + n after signal n */
	char signal[16]; /* "SIGKILL", or "" */
	enum agent_oom oom;
};

/* Why a process could not be started. @code is an errno's name ("ENOENT"), or "". */
struct agent_failure {
	char code[24];
	char message[240]; /* control characters escaped */
};

/*
 * Events of a process. Per stream: any number of data, then one end. After started: one exited.
 * After failed nothing else comes.
 */
struct agent_proc_ops {
	void (*started)(struct agent_proc *p, void *ctx, uint64_t pid);
	void (*failed)(struct agent_proc *p, void *ctx, const struct agent_failure *f);
	/* Copy or use @data at once; give its length back with agent_proc_grant() when it is dealt with. */
	void (*data)(
		struct agent_proc *p, void *ctx, enum agent_stream s, const void *data, size_t len);
	void (*end)(struct agent_proc *p, void *ctx, enum agent_stream s);
	void (*exited)(struct agent_proc *p, void *ctx, const struct agent_exit *x);
	/* agent_proc_stdin_room() said 0 and no longer does */
	void (*stdin_room)(struct agent_proc *p, void *ctx);
	/* the process takes no more input: agent_proc_stdin() refuses from now on */
	void (*stdin_closed)(struct agent_proc *p, void *ctx);
};

struct agent_spawn {
	const char *command;
	const char *const *args; /* without the command */
	size_t nargs;
	const char *const *env; /* "NAME=VALUE", over the sandbox's own environment */
	size_t nenv;
	bool clear_env;
	const char *cwd, *user, *group; /* NULL: the agent's default */
	bool stdin_piped;               /* else /dev/null */
	bool stdout_null, stderr_null;
	bool pty; /* then only AGENT_STDOUT carries data */
	unsigned rows, cols;
};

/**
 * agent_create() - A client that has not said hello yet
 * @ops: borrowed
 */
int agent_create(struct agent **ret, const struct agent_ops *ops, void *ctx) must_check;
/* agent_destroy() - Not from inside a callback. Its processes go with it. */
void agent_destroy(struct agent *a);

/* agent_hello() - Open the conversation; ops->ready() answers. Once. */
int agent_hello(struct agent *a) must_check;

/**
 * agent_input() - What the transport received
 * @len: <= AGENT_IN_MAX
 * Return: 0, or -EPROTO: the guest broke the protocol, @e says how; the connection must be closed.
 */
int agent_input(struct agent *a, const void *data, size_t len, struct error *e) must_check;

/* agent_out() - Bytes for the transport: send from the front, then buf_consume() and agent_out_drained(). */
struct buf *agent_out(struct agent *a);

/**
 * agent_spawn() - Start a process; its events go to @ops
 * @ops: borrowed
 * @ret: valid until agent_proc_free()
 *
 * Errors: -ENOBUFS (command line longer than a frame, too many processes), -ENOMEM, -ENOTCONN before ready.
 */
int agent_spawn(struct agent *a, const struct agent_spawn *s, const struct agent_proc_ops *ops,
	void *ctx, struct agent_proc **ret, struct error *e) must_check;

/* agent_proc_free() - No more events; its streams are cancelled. The process itself goes on. NULL is legal. */
void agent_proc_free(struct agent_proc *p);

/*
 * agent_proc_stdin_room() - Bytes that may be sent now: the guest's credit, 0 while agent_out() is full. After a 0
 * stdin_room() will be called.
 */
size_t agent_proc_stdin_room(struct agent_proc *p);
/* agent_proc_stdin() - Send input, @len <= room. 0; -EPIPE: closed. */
int agent_proc_stdin(struct agent_proc *p, const void *data, size_t len) must_check;
/* agent_proc_stdin_end() - End of input. */
void agent_proc_stdin_end(struct agent_proc *p);

/* agent_proc_grant() - @len bytes of a stream's data were dealt with; the guest may send as many more. */
void agent_proc_grant(struct agent_proc *p, enum agent_stream s, size_t len);
/* agent_proc_cancel() - Nobody reads this stream any more: the process gets SIGPIPE. No more data, no end. */
void agent_proc_cancel(struct agent_proc *p, enum agent_stream s);

/* agent_proc_kill() - @sig: a Linux signal number. @group: the whole process group. */
void agent_proc_kill(struct agent_proc *p, int sig, bool group);
void agent_proc_resize(struct agent_proc *p, unsigned rows, unsigned cols);

/* agent_set_time() - Step the guest's clock to the host's CLOCK_REALTIME. */
void agent_set_time(struct agent *a, uint64_t unix_ns);

/* agent_out_drained() - The transport made room: calls stdin_room() where input had to wait. */
void agent_out_drained(struct agent *a);

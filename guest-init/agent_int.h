/*
 * guest-init/agent_int.h - what the files of the agent share
 *
 * agent.c   the loop: sources that are ready, children that ended, deadlines
 * conn.c    a connection: frames in, a bounded queue out, sessions
 * rpc.c     messages: the envelope, hello, the table of methods
 * rpc_proc.c  the methods about processes
 * stream.c  what a process writes and reads
 * proc.c    processes from their start to the last question about them
 *
 * Ready:    descriptors are watched edge-triggered, once. A source keeps in `ready` what the kernel
 *           said and drops it on EAGAIN; one that may not act now (no credit, no room) just
 *           returns, and whoever lifts the reason queues it again. So nothing is polled in vain and
 *           interest is never changed.
 * Lifetime: a connection that failed is only marked; agent.c takes it apart when the source that
 *           ran has returned. Everything else belongs to a connection and goes with it.
 */
#pragma once

#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/types.h>

#include "base/frame.h"
#include "guest-init/agent.h"
#include "guest-init/cgroup.h"
#include "guest-init/errs.h"
#include "guest-init/jread.h"
#include "guest-init/jwrite.h"
#include "guest-init/list.h"
#include "guest-init/spawn.h"

#define OUT_MAX  (8 * MIB)   /* a connection's queue; more is a peer that doesn't read: it ends */
#define OUT_STOP (1 * MIB)   /* no request is read while more is queued */
#define OUT_FULL (256 * KIB) /* no process is read while more is queued */
#define HOLD_MS  250         /* without binary, output waits this long for processWait */
#define CHUNK    GP_DATA_MAX /* most bytes that one read takes from a process */

struct guest_agent;

struct source {
	int fd;
	uint32_t ready; /* EPOLL*: what the kernel reported and was not yet used up */
	void (*run)(struct source *s);
	struct list node; /* in the agent's queue */
};

/* What reaches outside the agent; fuzzers put something harmless here. */
struct guest_sys {
	int (*spawn)(struct spawn *s, pid_t *ret);
	int (*kill)(pid_t pid, int sig);
	int (*set_time)(uint64_t unix_ns);
};

struct guest_agent {
	struct guest_config config;
	struct guest_sys sys;
	int epoll, null;
	int pts;              /* the folder /dev/pts; -1: no terminals */
	struct rlimit nofile; /* of processes */
	uint64_t ready_ns;
	size_t stdin_max; /* GUEST_STDIN_MAX, less where memory is small */

	struct source children; /* signalfd */
	struct source listener;
	struct list queue; /* sources to run */
	struct list conns; /* struct conn.node */
	struct list dirty; /* struct conn.dirty: something to send */
	struct list ended; /* struct conn.ended */
	struct list held;  /* struct proc.held, by deadline */
	struct hash procs, outputs, inputs;
	struct cgroup_root cgroups;
	int vmstat;         /* /proc/vmstat, or -1 */
	uint64_t oom_kills; /* seen there so far */
	unsigned nconns, nprocs, nstreams;
	uint64_t log_window; /* seconds; and lines in it */
	unsigned log_lines;
	bool stop;
	struct jread *json;
	uint8_t scratch[CHUNK];
};

struct conn {
	struct guest_agent *agent;
	struct source src;
	struct list node, dirty, ended;
	unsigned flags;
	bool connecting;
	bool stopped; /* not read because the queue is over OUT_STOP */
	bool lost;    /* a lasting transport out of step: looks for a GP_RESET */
	uint8_t seen[GP_HEADER + GP_RESET_NONCE]; /* then: the last bytes */

	struct frame_reader in;
	struct buf out;

	/* the session: begins with hello, ends with the connection or a GP_RESET */
	bool hello, binary;
	uint64_t id_base, id_count, id_next;
	struct list procs, exited; /* struct proc.node */
	struct list outputs, inputs;
	struct list no_room; /* struct output.room: wait until the queue is under OUT_FULL */
	unsigned nexited, nunclaimed;
	size_t stdin_bytes; /* held in all inputs */
	struct cgroup_conn cgroup;
};

/* A stream that the agent writes: stdout, stderr or a terminal's output. */
struct output {
	struct conn *conn;
	struct proc *proc; /* NULL: forgotten */
	struct source src;
	struct hash_node hash;
	struct list node, room;
	uint64_t id;
	uint64_t credit; /* bytes that the host takes */
	bool started;    /* $sandbox.stream.start was sent */
	bool pty;
};

/* A stream that the host writes: stdin of a process, or not claimed yet. */
struct input {
	struct conn *conn;
	struct proc *proc; /* NULL: not claimed, or forgotten */
	struct source src; /* fd -1 until claimed */
	struct hash_node hash;
	struct list node;
	uint64_t id;
	struct buf data;   /* not yet written to the process */
	uint64_t credit;   /* bytes that the host may still send */
	uint64_t consumed; /* written to the process, credit not yet given back */
	bool claimed, ended, pty;
	char last; /* byte written */
};

struct proc {
	struct conn *conn;
	struct hash_node hash;
	struct list node, held;
	uint64_t held_until_ms;
	bool holding; /* output waits for processWait */
	pid_t pid;
	uint64_t group; /* cgroup number, or 0 */
	struct output *out[2];
	struct input *in;
	int pty; /* master, or -1 */
	bool exited;
	const char *oom; /* NULL, or how sure it is that it was killed for want of memory */
	int status;
	unsigned nwaits;
	uint64_t waits[GUEST_WAITS_MAX]; /* ids of requests */
};

/* ---- agent.c ---- */
void agent_log(struct guest_agent *a, const char *fmt, ...) printf_like(2, 3);
/*
 * source_add() - Watch s->fd, which is non-blocking, for @events. 0 or -errno; s->run is set by the
 * caller.
 */
int source_add(struct guest_agent *a, struct source *s, int fd, uint32_t events) must_check;
void source_init(struct source *s, void (*run)(struct source *s));
/* source_queue() - Run it in this turn of the loop or the next. */
void source_queue(struct guest_agent *a, struct source *s);
/* source_close() - Forget and close the descriptor; nothing if there is none. */
void source_close(struct guest_agent *a, struct source *s);
/* agent_turn() - One turn of the loop; waits for events, @most_ms at most (-1: no limit). */
int agent_turn(struct guest_agent *a, int most_ms) must_check;
uint64_t agent_now_ns(void);
int fd_nonblock(int fd) must_check;

/* ---- conn.c ---- */
int conn_create(struct guest_agent *a, int fd, unsigned flags, bool connecting) must_check;
/* conn_input() - The bytes of a transport; conn_run() reads them from its descriptor. */
void conn_input(struct conn *c, const uint8_t *data, size_t len);
/* conn_fail() - Something can't go on; @why goes to the log, NULL: an ordinary end. */
void conn_fail(struct conn *c, const char *why);
bool conn_failed(const struct conn *c);
/*
 * conn_end() - Take a failed one apart, or only its session if it is lasting. From the loop only.
 */
void conn_end(struct conn *c);
void conn_destroy(struct conn *c);
void conn_flush(struct conn *c);
/* conn_wrote() - Something was put into c->out. */
void conn_wrote(struct conn *c);
/*
 * A message: conn_begin(), write it, conn_send(), which ends the connection if there was no room.
 */
void conn_begin(struct conn *c, struct jwrite *w);
void conn_send(struct conn *c, struct jwrite *w);

/* ---- rpc.c ---- */
void rpc_message(struct conn *c, const uint8_t *text, size_t len);
/* An answer's result: begin, write the value, end. */
void rpc_ok_begin(struct conn *c, struct jwrite *w, uint64_t id);
void rpc_ok_end(struct conn *c, struct jwrite *w);
void rpc_ok_null(struct conn *c, uint64_t id);
void rpc_error(
	struct conn *c, uint64_t id, const char *class_name, const char *code, const char *message);
void rpc_errno(struct conn *c, uint64_t id, int err, const char *what);
/* rpc_invalid() - A parameter of the wrong type: @path, @expected as zod says, @value what came. */
void rpc_invalid(struct conn *c, uint64_t id, const char *path, const char *expected, int value);

struct rpc_call {
	struct conn *c;
	struct jread *j;
	int params;
	uint64_t id;
};
/* rpc_proc.c */
void rpc_spawn(const struct rpc_call *r);
void rpc_skerry_spawn(const struct rpc_call *r);
void rpc_wait(const struct rpc_call *r);
void rpc_kill(const struct rpc_call *r);
void rpc_resize(const struct rpc_call *r);

/* ---- stream.c ---- */
/* output_create() - @fd: owned in every case. 0 or -errno. */
int output_create(struct conn *c, int fd, bool pty, struct output **ret) must_check;
struct output *output_find(struct conn *c, uint64_t id);
/* output_release() - The process is no longer held: send the start and what there is. */
void output_release(struct output *o);
void output_credit(struct output *o, uint64_t bytes);
/* output_free() - The host hears nothing more of it. */
void output_free(struct output *o);

/* input_start() - The host announced a stream. */
void input_start(struct conn *c, uint64_t id);
struct input *input_find(struct conn *c, uint64_t id);
/* input_claim() - It is for @fd now, owned in every case. 0 or -errno: cancelled. */
int input_claim(struct conn *c, uint64_t id, int fd, bool pty, struct input **ret) must_check;
void input_data(struct input *i, const uint8_t *data, size_t len);
void input_end(struct input *i);
/* input_cancel() - Tell the host that nobody reads it, and free it. */
void input_cancel(struct input *i, int err, const char *what);
void input_free(struct input *i);

/* ---- proc.c ---- */
/* What a request asks for; the strings live as long as the call. */
struct proc_request {
	struct spawn spawn;
	bool has_stdin, pty;
	uint64_t stdin_id;
	bool null_out[2];
	unsigned rows, cols;
};

struct proc_failure {
	int err;
	enum spawn_stage stage;
};

int proc_start(struct conn *c, struct proc_request *q, struct proc **ret,
	struct proc_failure *f) must_check;
/* proc_started() - The answer has been sent: streams may begin. */
void proc_started(struct proc *p);
struct proc *proc_find(struct conn *c, uint64_t pid);
/* proc_wait() - Answer request @id when it has exited. -EBUSY: too many ask. */
int proc_wait(struct proc *p, uint64_t id) must_check;
/* proc_kill() - @group: also what it started. 0, -ESRCH, -errno. */
int proc_kill(struct proc *p, int sig, bool group) must_check;
int proc_resize(struct proc *p, unsigned rows, unsigned cols) must_check;
/* proc_hangup() - Nobody reads its terminal any more. */
void proc_hangup(struct proc *p);
/* proc_stdin_over() - Its input ended: the time that output is held begins. */
void proc_stdin_over(struct proc *p);
/* proc_release() - Output is held no longer. */
void proc_release(struct proc *p);
/* proc_exited() - A child was reaped. */
void proc_exited(struct guest_agent *a, pid_t pid, int status);
/* proc_free() - Forget it; running streams go on by themselves. */
void proc_free(struct proc *p);
/* proc_kill_all() - End all of a connection's. */
void proc_kill_all(struct conn *c);

/* ---- signals.c ---- */
/* signals_number() - "SIGTERM" to 15; 0: unknown. */
int signals_number(const char *name);
/* signals_name() - 15 to "SIGTERM", 40 to "SIGRTMIN+6" (the kernel's numbering, as sh has it). */
const char *signals_name(int sig, char buf[16]);

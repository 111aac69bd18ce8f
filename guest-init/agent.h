/*
 * guest-init/agent.h - the agent: serves processes to the host, as base/guest_proto.h says
 *
 * What:    one epoll loop, any number of connections up to GUEST_CONNS_MAX, each with its own
 *          processes and streams. It is part of PID 1, and compiles for the host too, where tests
 *          run it as an ordinary process over a socketpair.
 * Trust:   the host is trusted to run commands, not to be well-formed: every frame is bounded and
 *          checked, and what breaks the protocol ends that connection alone. Processes are hostile.
 * Blocks:  never, except in the exec of a process (spawn.c says why and for how long).
 */
#pragma once

#include <stdint.h>

#include "base/util.h"

#define GUEST_CONNS_MAX   64
#define GUEST_PROCS_MAX   4096  /* running at once, all connections */
#define GUEST_EXITED_MAX  1024  /* exit statuses that a connection keeps; the oldest goes first */
#define GUEST_WAITS_MAX   16    /* processWait calls pending for one process */
#define GUEST_STREAMS_MAX 16384 /* both directions, all connections */
#define GUEST_UNCLAIMED   256   /* streams of a connection that no request has claimed yet */
#define GUEST_STDIN_MAX   (64 * MIB) /* bytes of a connection's streams waiting for their readers */

struct guest_agent;

struct guest_config {
	uint64_t init_ns;         /* CLOCK_MONOTONIC at the first instruction */
	const char *default_user; /* of processes, if it exists; else root. NULL: the agent's own */
	const char *cgroup;       /* a cgroup v2 folder of its own to make groups in; NULL: none */
	bool reap_all;            /* PID 1: collect every child, also those it did not start */
	bool power;               /* PID 1: SIGRTMIN+4 powers off, SIGRTMIN+5 restarts */
	int log_fd;               /* messages, rate-limited, one line a write; -1: none */
};

/**
 * guest_agent_create() - Make an agent without connections
 *
 * Blocks all signals for the calling thread (it must be the only one) and opens what it needs from
 * /dev, /dev/pts and the cgroup folder, so that later unmounts do no harm. Return: 0 or -errno.
 */
int guest_agent_create(struct guest_agent **ret, const struct guest_config *c) must_check;
/* guest_agent_destroy() - Ends all connections and kills what belongs to them. NULL is legal. */
void guest_agent_destroy(struct guest_agent *a);

enum guest_conn_flags {
	/*
	 * A virtio-serial port: never closed. The end of file (the host side closed) and a broken
	 * protocol end what belongs to the session and no more; the next GP_RESET begins another.
	 */
	GUEST_CONN_LASTING = 1,
	/* A connection whose end also ends guest_agent_run(), with 0. For tests. */
	GUEST_CONN_LAST = 2,
};

/**
 * guest_agent_add_conn() - Serve the host on @fd, a stream socket or character device
 * The agent owns @fd in every case, and makes it non-blocking and close-on-exec.
 * Return: 0, -EMFILE (GUEST_CONNS_MAX), -errno.
 */
int guest_agent_add_conn(struct guest_agent *a, int fd, unsigned flags) must_check;

/* guest_agent_connect() - Call the host (CID 2) on @port; served once it accepts. */
int guest_agent_connect(struct guest_agent *a, unsigned port) must_check;
/* guest_agent_listen() - Serve whoever connects to vsock @port from CID 2; others are closed. */
int guest_agent_listen(struct guest_agent *a, unsigned port) must_check;

/* Another descriptor to watch from the agent's loop, e.g. a control port of the emulated host. */
typedef void guest_watch_fn(void *ctx, int fd);
/**
 * guest_agent_watch() - Call @fn whenever @fd has become readable or hung up
 * Edge-triggered: @fn reads until EAGAIN. @fd stays the caller's; there is no way to stop watching.
 */
int guest_agent_watch(struct guest_agent *a, int fd, guest_watch_fn *fn, void *ctx) must_check;

/* guest_agent_run() - Serve. Returns only for GUEST_CONN_LAST, or with -errno if epoll fails. */
int guest_agent_run(struct guest_agent *a) must_check;

/*
 * api/core/attach.h - one process of a guest with descriptors of this machine as its stdin, stdout and stderr
 *
 * What:    starts a process through an agent client and copies its streams, byte-exact, stdout and stderr
 *          apart, with back pressure both ways: nothing is read from stdin that the guest has not granted
 *          credit for, and credit for output is granted once it was written. A reader of our output that went
 *          away is one for the process: its stream is cancelled, so that it gets SIGPIPE.
 * Memory:  GP_CREDIT_INITIAL a stream.
 * Threads: loop thread only.
 */
#pragma once

#include "api/core/agent.h"
#include "base/loop.h"

struct attach;

enum attach_end {
	ATTACH_EXITED, /* exit is set; all output was written */
	ATTACH_FAILED, /* failure is set: it never started */
	ATTACH_ERROR,  /* error is set: reading stdin or writing output failed on this side */
};

struct attach_result {
	enum attach_end end;
	struct agent_exit exit;
	struct agent_failure failure;
	struct error error;
};

struct attach_config {
	struct loop *loop;
	struct agent *agent;       /* ready */
	struct agent_spawn *spawn; /* borrowed for the call; stdin_piped is set from fd */
	int fd[3];                 /* borrowed; fd[0] -1: no input */
	/* Once; attach_free() may be called from inside. */
	void (*done)(void *ctx, const struct attach_result *r);
	/* Called as the process starts and with its first byte of output; may be NULL. */
	void (*started)(void *ctx);
	void (*first_output)(void *ctx);
	void *ctx;
};

int attach_create(struct attach **ret, const struct attach_config *c, struct error *e) must_check;
/* attach_signal() - Pass a signal to the process group. Before the process runs it is kept until then. */
void attach_signal(struct attach *a, int sig);
void attach_free(struct attach *a);

/* attach_wants_stdin() - Whether @fd is a pipe, a socket or a file, which are forwarded without being asked. */
bool attach_wants_stdin(int fd);

/*
 * api/core/sandbox.h - life of one sandbox: inputs, vmm process, boot, agent, end
 *
 * What:    opens what the machine needs (the vmm opens nothing itself), writes the configuration, spawns the vmm
 *          role, lets the guest's agent connect, and says in one message why it ended. No file or socket with a
 *          name is made: what the process held goes with it.
 * States:  see sandbox.c
 * Threads: loop thread only; sandbox_create() in the main thread (base/process.h says why).
 */
#pragma once

#include "api/core/agent.h"
#include "api/core/trace.h"
#include "base/confine.h"
#include "base/loop.h"

struct sandbox;

#define SANDBOX_CPUS_MAX   32
#define SANDBOX_MEMORY_MIN (32 * MIB)
#define SANDBOX_MEMORY_MAX (64 * GIB)

enum sandbox_why {
	SANDBOX_START_FAILED, /* the vmm could not build the machine */
	SANDBOX_BOOT_TIMEOUT,
	SANDBOX_PANIC,
	SANDBOX_OUT_OF_MEMORY,
	SANDBOX_POWERED_OFF,
	SANDBOX_REBOOTED,
	SANDBOX_CRASHED,    /* triple fault, KVM error */
	SANDBOX_VMM_DIED,   /* killed, or a bug of ours */
	SANDBOX_AGENT_LOST, /* the machine runs, but its agent is gone or broke the protocol */
	SANDBOX_STOPPED,    /* sandbox_stop() */
};

struct sandbox_ops {
	/* The agent answered: processes can be started. */
	void (*ready)(void *ctx, struct agent *a);
	/* Once; nothing of it is left then. @e says what happened, for a person. */
	void (*ended)(void *ctx, enum sandbox_why why, const struct error *e);
};

struct sandbox_config {
	struct loop *loop;
	const char *name;   /* for messages and ps(1) */
	const char *kernel; /* name or file; NULL: the default */
	const char *image;
	unsigned cpus;
	uint64_t memory;
	uint64_t boot_timeout_ns;
	enum confine_level best, least;
	struct trace *trace;
	bool phases; /* have the vmm report its phases */
	const struct sandbox_ops *ops;
	void *ctx;
};

/**
 * sandbox_create() - Start a sandbox; ops->ready or ops->ended follows
 * @c: strings and ops are borrowed
 *
 * Errors name the file, value or machine setting and what to do; nothing was started then.
 */
int sandbox_create(
	struct sandbox **ret, const struct sandbox_config *c, struct error *e) must_check;

/* sandbox_stop() - Kill it; ops->ended(SANDBOX_STOPPED) follows from the loop, unless another end came first. */
void sandbox_stop(struct sandbox *s);

/*
 * sandbox_destroy() - Kill what runs and free. Not from inside ops. Operations under way finish in the loop, which
 * must turn until then or be destroyed. NULL is legal.
 */
void sandbox_destroy(struct sandbox *s);

/* sandbox_level() - How far the vmm process is confined. */
enum confine_level sandbox_level(const struct sandbox *s);

/* sandbox_print_console() - The console's last lines, escaped; nothing if it was silent. */
void sandbox_print_console(const struct sandbox *s, FILE *f);

/* sandbox_oom_message() - "guest ran out of memory (2 GiB); try --memory 4g" */
void sandbox_oom_message(struct error *e, uint64_t memory);

/*
 * base/process.h - start a role: this same program, executed anew with nothing but what it is given
 *
 * What:    clone(2) into new namespaces, then exec of the running binary by a descriptor opened at
 *          start, so that an upgraded or deleted file does no harm. The role gets an empty
 *          environment, exactly the descriptors listed, default signal dispositions, an empty
 *          signal mask, its own session (Ctrl-C at the terminal reaches the supervisor only), umask
 *          077, no core dumps, a raised oom_score_adj, and a PID namespace whose PID 1 it is: its
 *          death ends whatever it might have started.
 * Trust:   nothing of the supervisor's memory survives the exec.
 * Levels:  the best one that the kernel allows is taken (base/confine.h); the role learns it from
 *          argv[2].
 * Threads: with die_with_parent a role is killed when the *thread* that spawned it ends
 *          (PR_SET_PDEATHSIG): spawn from a thread that lives as long as the process.
 * Spec:    clone(2), user_namespaces(7), pid_namespaces(7), pidfd_open(2)
 */
#pragma once

#include <sys/types.h>

#include "base/confine.h"
#include "base/error.h"

#define PROCESS_FDS_MAX 64

struct process {
	pid_t pid;
	int pidfd;                /* readable (poll) once the process ended; -1 if there is none */
	enum confine_level level; /* the level its namespaces allow */
};

struct process_spec {
	const char *argv0; /* role: "skerry-vmm" */
	const char *name;  /* argv[1]: the object it serves, for ps(1); no secret */
	const int *fds;    /* fds[i] becomes descriptor i; -1: /dev/null. Borrowed. */
	unsigned nfds;     /* 3..PROCESS_FDS_MAX */
	enum confine_level
		best; /* usually CONFINE_FULL; CONFINE_NONE: no namespaces, for debugging only */
	enum confine_level least; /* fail rather than go below this */
	bool die_with_parent;     /* SIGKILL when the spawning thread ends */
};

/**
 * process_init() - Open the running binary, once, early in main()
 * Return: 0 or -errno set in @e.
 */
int process_init(struct error *e) must_check;

/**
 * process_spawn() - Start a role; returns once its exec succeeded
 *
 * argv is {argv0, name, confinement}; the role hands the third to confine_enter(). Errors name the
 * call that failed, and for a level below @least why the kernel refuses a better one and how to
 * allow it.
 */
int process_spawn(struct process *ret, const struct process_spec *spec, struct error *e) must_check;

/**
 * process_best_level() - The best level this user has on this machine, found by trying
 * @why: set if the level is below CONFINE_FULL: what forbids more and how to allow it; may be NULL
 */
enum confine_level process_best_level(struct error *why);

/* process_kill() - Signal by pidfd. As PID 1 of its namespace a role heeds only SIGKILL. */
int process_kill(const struct process *p, int sig);

/**
 * process_reap() - Collect the exit status
 * @block: wait for the end
 * @ret_status: as of waitpid(2): WIFEXITED() etc.
 *
 * Return: 1 reaped (pidfd is closed, set to -1), 0 still running, -errno.
 */
int process_reap(struct process *p, bool block, int *ret_status) must_check;

/* process_end() - SIGKILL and reap, whatever its state; NULL and an ended one are legal. */
void process_end(struct process *p);

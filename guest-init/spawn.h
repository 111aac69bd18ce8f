/*
 * guest-init/spawn.h - start a program
 *
 * What:    clone3() with shared memory, as vfork(2): nothing of the agent is copied, and the
 *          program's cgroup is entered at birth, without the grace period that a migration waits
 *          for. The child uses a stack of its own, makes plain system calls only and reports
 *          failures through the shared struct.
 * Blocks:  the agent is suspended until the child's exec() or exit. That is as long as the kernel
 *          needs to look the program up and read its first page; a file system that hangs there
 *          hangs the agent too. Root in the guest can build one, as it can stop PID 1 with
 *          ptrace(2): it harms its own sandbox.
 * Spec:    clone(2), credentials(7), setsid(2)
 */
#pragma once

#include <sys/resource.h>
#include <sys/types.h>

#include "base/util.h"

enum spawn_stage { SPAWN_OK, SPAWN_CLONE, SPAWN_SETUP, SPAWN_CWD, SPAWN_EXEC };

struct spawn {
	char **argv; /* NULL-terminated; argv[-1] must exist, it is written to */
	char **envp;
	const char *path;  /* where to look for a command without a slash: PATH of the program */
	const char *cwd;   /* as the user that it runs as */
	bool cwd_optional; /* if it can't be entered, "/" */
	bool set_ids;
	uid_t uid;
	gid_t gid;
	const gid_t *groups;
	size_t ngroups;
	int fd[3];            /* any descriptors > 2 */
	bool tty;             /* fd[0] becomes the controlling terminal */
	int cgroup_fd;        /* a cgroup v2 folder, or -1 */
	struct rlimit nofile; /* RLIMIT_NOFILE */

	/* set on failure */
	enum spawn_stage stage;
	int err;
};

/**
 * spawn_run() - Start it in a session of its own; returns once its exec() succeeded
 *
 * All signals must be blocked; the program starts with none blocked. Not reentrant.
 * Return: 0 with the pid, a child of the caller's; or -errno, s->stage says of what.
 */
int spawn_run(struct spawn *s, pid_t *ret) must_check;

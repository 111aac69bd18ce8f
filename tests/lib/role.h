/*
 * tests/lib/role.h - roles for tests of base/process and base/confine: the test's own program,
 * dispatched on argv[0]
 *
 * A role reports through its control channel, FD_CTL; what goes wrong in it ends it with a status
 * of its own.
 */
#pragma once

#include <grp.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include "base/confine.h"
#include "base/ctl.h"
#include "base/fdpass.h"
#include "base/process.h"
#include "tests/lib/test.h"

#define NOBODY 65534
#define FD_CTL 3

/* A sanitizer leaves signals alone here: roles look at them and die of them. */
const char *__asan_default_options(void);
const char *__asan_default_options(void)
{
	return "handle_segv=0:handle_sigbus=0:handle_sigfpe=0:handle_sigill=0";
}

/* ---- in a role ---- */

static inline void role_die(const char *what, const struct error *e)
{
	fprintf(stderr, "role: %s: %s\n", what, e ? e->msg : strerror(errno));
	_exit(3);
}

static inline void enter(char **argv)
{
	enum confine_level level;
	struct error e = { 0 };

	if (confine_enter(argv[2], &level, &e))
		role_die("confine_enter", &e);
}

static inline void lock(enum confine_thread kind)
{
	struct error e = { 0 };

	if (confine_lock(kind, &e))
		role_die("confine_lock", &e);
}

static inline void reply(uint32_t what, int result)
{
	struct ctl_probe_result r = { .what = what, .result = result };

	if (ctl_send(FD_CTL, CTL_PROBE_RESULT, &r, sizeof(r), NULL, 0))
		_exit(4);
}

/* ---- in the parent ---- */

static inline struct process spawn(
	const char *role, const char *arg, enum confine_level level, int *ctl)
{
	int sock[2], fds[] = { -1, -1, 2, -1 };
	struct process p = { .pidfd = -1 };
	struct process_spec spec = {
		.argv0 = role,
		.name = arg,
		.fds = fds,
		.nfds = ARRAY_SIZE(fds),
		.best = level,
		.die_with_parent = true,
	};
	struct error e = { 0 };

	REQUIRE(!fdpass_pair(sock, false));
	fds[FD_CTL] = sock[1];
	if (process_spawn(&p, &spec, &e)) {
		fprintf(stderr, "%s\n", e.msg);
		exit(1);
	}
	close(sock[1]);
	*ctl = sock[0];
	return p;
}

static inline int wait_for(struct process *p)
{
	int status = 0;

	CHECK_EQ(process_reap(p, true, &status), 1);
	return status;
}

/* Runs @tests in a process of a plain user. */
static inline void as_nobody(void (*tests)(void))
{
	pid_t pid = fork();
	int status;

	if (pid) {
		CHECK(waitpid(pid, &status, 0) == pid && status == 0);
		return;
	}
	test_failures = 0;
	REQUIRE(!setgroups(0, NULL) && !setresgid(NOBODY, NOBODY, NOBODY) &&
		!setresuid(NOBODY, NOBODY, NOBODY));
	REQUIRE(!prctl(PR_SET_DUMPABLE, 1)); /* as after a log-in, but not after setresuid() */
	tests();
	exit(test_failures != 0);
}

/* What every test of confinement needs first. */
static inline void require_full_level(void)
{
	struct error e = { 0 };

	if (process_init(&e)) {
		fprintf(stderr, "%s\n", e.msg);
		exit(1);
	}
	if (process_best_level(&e) != CONFINE_FULL) {
		fprintf(stderr, "%s\n", e.msg);
		SKIP("this machine doesn't allow user namespaces");
	}
}

/*
 * api/store/job.h - run another program for setup, and be sure that it is gone afterwards
 *
 * What:    a keeper process starts the program, reaps what it leaves behind and ends with it. When this process is
 *          interrupted or dies, the keeper kills everything below it. With own_root the keeper is PID 1 of
 *          namespaces of its own, in which it is root: mounts and processes vanish with it, and an ordinary user
 *          can make files that belong to others, through the subordinate ids of /etc/subuid.
 * Threads: single-threaded callers only (it forks).
 * Spec:    user_namespaces(7), pid_namespaces(7), subuid(5), PR_SET_CHILD_SUBREAPER in prctl(2)
 */
#pragma once

#include <sys/types.h>

#include "base/error.h"

#define JOB_LINE_MAX 1024

/* What every job of one command shares. */
struct job_host {
	int signal_fd; /* SIGINT, SIGTERM, SIGHUP, which are blocked */
	int caught;    /* the signal that asked to stop, or 0 */
};

int job_host_init(struct job_host *ret, struct error *e) must_check;
/* job_stopped() - Has the user asked to stop? Long work of our own asks now and then. */
bool job_stopped(struct job_host *h);
/* job_sleep() - Wait; less if the user asks to stop. */
void job_sleep(struct job_host *h, unsigned ms);

struct job {
	const char *const
		*argv; /* argv[0] is looked up in PATH and the sbin folders; NULL-terminated */
	const char *package; /* Debian package that has it, for the message */
	const char *tmpdir;  /* TMPDIR for it, or NULL */
	bool own_root;
	/* Each line it prints, without newline; and again without one, every JOB_TICK_MS. */
	void (*line)(void *ctx, const char *line);
	void *ctx;
};

#define JOB_TICK_MS 500

/**
 * job_run() - Run it to its end
 *
 * Standard input is /dev/null; standard output and error both go to job->line.
 *
 * Return: its exit status, 0 to 255 (128 + n for signal n); -EINTR: the user asked to stop; -errno: it could not be
 * started, with a message that has the remedy. Nothing of it runs any more in any case.
 */
int job_run(struct job_host *h, const struct job *job, struct error *e) must_check;

/* The caller's subordinate ids, the first range of /etc/subuid and /etc/subgid. */
struct job_range {
	uint32_t first, count;
};

/* job_find_range() - In the text of such a file; @name or @id owns it. False: none. */
bool job_find_range(const char *text, const char *name, uint32_t id, struct job_range *ret);

/* job_map_ids() - Give the user namespace of @pid ids: 0 is the caller, 1 and up are subordinate (newuidmap(1)). */
int job_map_ids(pid_t pid, struct error *e) must_check;

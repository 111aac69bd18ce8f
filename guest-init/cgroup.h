/*
 * guest-init/cgroup.h - which processes belong together: a cgroup per connection, one per program
 * in it
 *
 * What:    ROOT/skerry.C/P. The end of a connection kills all of skerry.C at once, whatever its
 *          processes did to hide (double forks, sessions of their own); the kernel counts there
 *          which were killed for memory.
 * Without: if there is no cgroup v2, or the guest's root made it read-only, programs run without a
 *          group; then only process groups can be killed (proc.c) and what left them lives on.
 * Files:   folders are reached through descriptors opened at start: unmounts don't matter. Removal
 *          is tried when processes are reaped, since a folder is busy until its last process is
 *          gone.
 */
#pragma once

#include "base/util.h"

struct cgroup_root {
	int fd; /* -1: none */
	uint64_t next_conn;
	uint64_t dying[64]; /* connections that have ended, whose folders remain; 0: none */
};

struct cgroup_conn {
	int fd; /* -1: none */
	uint64_t serial, next_prog;
	uint64_t lingering
		[64]; /* programs that have ended while others in their folder go on; 0: none */
};

/* cgroup_open() - @path: a cgroup v2 folder whose subtree may be used, or NULL. */
void cgroup_open(struct cgroup_root *r, const char *path);
void cgroup_close(struct cgroup_root *r);

void cgroup_conn_create(struct cgroup_root *r, struct cgroup_conn *c);
/* cgroup_conn_end() - SIGKILL to everything in it; the folder goes when they are gone. */
void cgroup_conn_end(struct cgroup_root *r, struct cgroup_conn *c);

/*
 * cgroup_prog_create() - A folder for one program: descriptor for clone3() and its number; -1, 0:
 * none.
 */
int cgroup_prog_create(struct cgroup_conn *c, uint64_t *ret_prog);
/* cgroup_prog_oom() - Whether the kernel killed something in it for want of memory. */
bool cgroup_prog_oom(const struct cgroup_conn *c, uint64_t prog);
/* cgroup_prog_kill() - SIGKILL to everything in it; false: there is no such folder. */
bool cgroup_prog_kill(const struct cgroup_conn *c, uint64_t prog);
/* cgroup_prog_end() - The program has ended; the folder goes when it is empty. */
void cgroup_prog_end(struct cgroup_conn *c, uint64_t prog);

/* cgroup_sweep(), cgroup_conn_sweep() - Processes were reaped: try to remove folders again. */
void cgroup_sweep(struct cgroup_root *r);
void cgroup_conn_sweep(struct cgroup_conn *c);

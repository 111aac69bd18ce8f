/*
 * base/confine_int.h - between process.c and the files of confine_*.c
 */
#pragma once

#include <sys/types.h>

#include "base/confine.h"

#define CONFINE_ARG_MAX 64

/* argv[2] of a role, decoded: "--confine=LEVEL[:UID:GID][,die]" */
struct confine_arg {
	enum confine_level level;
	bool set_ids; /* the role itself changes to uid and gid, once it needs root no more */
	uid_t uid;
	gid_t gid;
	bool die_with_parent;
};

void confine_arg_format(char ret[CONFINE_ARG_MAX], const struct confine_arg *a);
int confine_arg_parse(struct confine_arg *ret, const char *text) must_check;

/* confine_caps.c */

/* confine_caps_have() - Are all of @n capabilities (CAP_*) in the effective set? */
bool confine_caps_have(const int *caps, size_t n);
/* confine_ids_set() - All ids of this single-threaded process; no other groups. 0 or -errno. */
int confine_ids_set(uid_t uid, gid_t gid) must_check;
/* confine_privileges_drop() - The ids of @a, if any; no capability for good; no_new_privs. */
int confine_privileges_drop(const struct confine_arg *a, struct error *e) must_check;

/* confine_userns.c */

/* confine_ns_flags() - CLONE_NEW* of a level */
uint64_t confine_ns_flags(enum confine_level level);
/* confine_ids_pick() - Ids that no other sandbox and no user has while @pid lives. */
int confine_ids_pick(pid_t pid, uid_t *ret_uid, gid_t *ret_gid) must_check;
/**
 * confine_map_ids() - Give the user namespace of @pid its one user and group, 0 inside
 * @uid: outside; the caller's own, or any other with CAP_SETUID and CAP_SETGID here
 */
int confine_map_ids(pid_t pid, uid_t uid, gid_t gid) must_check;
/* confine_ns_why() - Fill @e with what refused namespaces with @err, and how to allow them. */
void confine_ns_why(int err, struct error *e);

/* confine_root.c */

/* confine_root_private() - This mount namespace tells others nothing. A policy may refuse it. */
int confine_root_private(void);
/* confine_root_empty() - Root and working directory become an empty read-only file system. */
int confine_root_empty(struct error *e) must_check;

/* confine_landlock.c */

/* confine_landlock() - Forbid all that this kernel's Landlock knows; @ret_abi 0: it has none. */
int confine_landlock(int *ret_abi, struct error *e) must_check;

/* confine_seccomp.c, confine_gen.c */

#define CONFINE_FILTER_MAX 256                  /* instructions; the longest has about 90 */
#define CONFINE_SELF       UINT32_C(0x5e1f1d00) /* stands for the id of the running process */

int confine_seccomp(enum confine_thread kind, struct error *e) must_check;

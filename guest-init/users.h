/*
 * guest-init/users.h - /etc/passwd and /etc/group, read anew each time
 *
 * Trust:   the files are the guest's: read without blocking, only if regular, up to USERS_FILE_MAX
 *          bytes.
 * Why:     the C library's functions may talk to name service daemons, which PID 1 must not wait
 *          for.
 */
#pragma once

#include <sys/types.h>

#include "base/util.h"

#define USERS_FILE_MAX (1u << 20)
#define USERS_GROUPS   64 /* supplementary groups of a user; more are left out */

struct user {
	char name[128]; /* "" for a number without an entry */
	uid_t uid;
	gid_t gid;
	char home[1024];
	char shell[256];
};

/**
 * users_find() - By name, or by number if @text is one
 * A number without an entry is legal: group 0, home "/".
 * Return: 0; -ENOENT: no such user; -errno: the file can't be read.
 */
int users_find(const char *text, struct user *ret) must_check;
/* users_group() - The same for a group. */
int users_group(const char *text, gid_t *ret) must_check;
/* users_groups() - Groups of a user, the primary one first; returns how many, >= 1. */
int users_groups(const struct user *u, gid_t ret[USERS_GROUPS]);

/* The same over a file's text, for tests. */
int users_parse_passwd(const char *file, size_t len, const char *text, struct user *ret) must_check;
int users_parse_group(const char *file, size_t len, const char *text, gid_t *ret) must_check;
int users_parse_groups(const char *file, size_t len, const struct user *u, gid_t ret[USERS_GROUPS]);

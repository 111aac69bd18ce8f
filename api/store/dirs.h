/*
 * api/store/dirs.h - where skerry keeps its files
 *
 *            set in the environment      root              anyone else
 *   state    $XDG_STATE_HOME/skerry      /var/lib/skerry   ~/.local/state/skerry
 *   cache    $XDG_CACHE_HOME/skerry      /var/cache/skerry ~/.cache/skerry
 *   runtime  $XDG_RUNTIME_DIR/skerry     /run/skerry       /tmp/skerry-UID
 *
 * Trust:   the runtime folder may lie in a place where others can create files: it must be ours, nobody else may
 *          enter it, and it is no symbolic link. An $XDG_RUNTIME_DIR that is not ours (su keeps it) counts as
 *          unset, like a relative path.
 * Spec:    XDG Base Directory Specification 0.8
 */
#pragma once

#include "base/error.h"

#define DIRS_PATH_MAX 4096

enum dirs_kind { DIRS_STATE, DIRS_CACHE, DIRS_RUNTIME };

/* "state folder", ... for messages */
const char *dirs_kind_name(enum dirs_kind kind);

/* dirs_path() - The absolute path, whether or not it exists. Errors: HOME is needed and not set, too long. */
int dirs_path(enum dirs_kind kind, char *ret, size_t size, struct error *e) must_check;

/**
 * dirs_open() - Open the folder
 * @create: make it (mode 0700) and the folders above it if they are absent
 *
 * Return: descriptor (O_CLOEXEC, for *at() calls) or -errno; -ENOENT without @create if it is absent. The message
 * names the folder and what to do.
 */
int dirs_open(enum dirs_kind kind, bool create, struct error *e) must_check;

/* dirs_open_sub() - The same for a folder inside @dir, for which @path is used in messages. */
int dirs_open_sub(
	int dir, const char *path, const char *name, bool create, struct error *e) must_check;

/**
 * dirs_fail() - Fill @e for a file or folder of ours that could not be made or written
 * @what: "state folder"
 * @err: positive errno
 *
 * Full disk, quota, permission, read-only file system: the message has the remedy. Returns -@err.
 */
int dirs_fail(struct error *e, int err, const char *what, const char *path);

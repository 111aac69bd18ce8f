/*
 * base/file.h - files as the state folder needs them: whole reads with a limit, atomic replacement, safe paths
 */
#pragma once

#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/types.h>

#include "base/error.h"

/**
 * file_read_fd() - Read a descriptor to its end
 * @max: most bytes; more is -EFBIG
 * @ret: allocated, a NUL byte after the last; the caller frees it
 */
int file_read_fd(int fd, size_t max, char **ret, size_t *ret_len) must_check;

/* file_read() - The same by path, relative to @dirfd (or AT_FDCWD); the message names the path. */
int file_read(int dirfd, const char *path, size_t max, char **ret, size_t *ret_len,
	struct error *e) must_check;

/**
 * file_replace() - Write a file so that a reader, also after a power failure, sees the old or the new content
 *
 * A temporary file beside it, fsync, rename, fsync of the folder. The temporary is removed on failure.
 */
int file_replace(int dirfd, const char *path, const void *data, size_t len, mode_t mode,
	struct error *e) must_check;

/* file_write_all() - Write @len bytes to a blocking descriptor, however many calls it takes. */
int file_write_all(int fd, const void *data, size_t len) must_check;

/**
 * file_open_in() - openat2(2): open @path without leaving @dirfd
 * @resolve: RESOLVE_* in addition to RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS
 *
 * Return: descriptor (O_CLOEXEC) or -errno; -EXDEV if the path leads out.
 */
int file_open_in(int dirfd, const char *path, int flags, mode_t mode, uint64_t resolve) must_check;

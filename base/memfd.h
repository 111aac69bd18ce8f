/*
 * base/memfd.h - bytes that nobody can change any more, behind a descriptor
 *
 * What:    how a role gets its configuration: the supervisor writes a memfd and seals it against
 *          writing, growing, shrinking and further seals; the role checks the seals before it
 *          trusts the content.
 * Spec:    memfd_create(2), fcntl(2) F_ADD_SEALS
 */
#pragma once

#include "base/error.h"

/* memfd_sealed() - A sealed memfd, the caller's, with a copy of @len > 0 bytes. fd or -errno. */
int memfd_sealed(const char *name, const void *data, size_t len) must_check;

/**
 * memfd_read() - Read a sealed memfd of exactly @len bytes into @ret
 *
 * The file offset is not used, so several processes may share the descriptor.
 *
 * Return: 0; -EPERM: a seal is missing; -EMSGSIZE: another size than @len; -EINVAL: not a memfd;
 * -errno.
 */
int memfd_read(int fd, void *ret, size_t len) must_check;

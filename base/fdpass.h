/*
 * base/fdpass.h - descriptors over a Unix socket (SCM_RIGHTS)
 *
 * What:    one datagram or record with up to FDPASS_MAX descriptors, all or nothing.
 * Trust:   the peer chooses data, length and number of descriptors; what exceeds the caller's
 *          bounds is refused as a whole and every descriptor that came along is closed.
 * Spec:    unix(7), cmsg(3), recvmsg(2)
 */
#pragma once

#include "base/error.h"

#define FDPASS_MAX 16

/* fdpass_pair() - Connected SOCK_SEQPACKET pair, O_CLOEXEC. 0 or -errno. */
int fdpass_pair(int ret[2], bool nonblock) must_check;

/**
 * fdpass_send() - Send one record
 * @fds: @nfds <= FDPASS_MAX descriptors, which stay the caller's
 *
 * Without descriptors the call is sendto(2) without an address, which a confined process may make;
 * with descriptors it is sendmsg(2), which it may not.
 *
 * Return: 0; -EAGAIN; -EPIPE without a signal; -errno. A record is sent whole or not at all.
 */
int fdpass_send(int sock, const void *data, size_t len, const int *fds, unsigned nfds) must_check;

/**
 * fdpass_recv() - Receive one record
 * @len: size of @data
 * @fds: @max entries (<= FDPASS_MAX); received descriptors are the caller's, O_CLOEXEC; unused ones
 * are -1
 * @ret_nfds: how many came
 *
 * Return: bytes received (0: end of file; an empty record is not told from it), -EMSGSIZE: longer
 * than @len or more than @max descriptors (all closed), -EAGAIN, -errno.
 */
ssize_t fdpass_recv(
	int sock, void *data, size_t len, int *fds, unsigned max, unsigned *ret_nfds) must_check;

/*
 * api/core/vmm_log.h - what a vmm process has to say, passed on to standard error
 *
 * What:    a pipe stands between the process and our standard error, which may be the user's terminal: one that was
 *          taken over could read what is typed there, and write what drives it.
 * Trust:   the process may be the guest's by now. Lines are escaped, cut at VMM_LOG_LINE, and no more than
 *          VMM_LOG_BURST bytes at once and VMM_LOG_BYTES_PER_S later on are shown; the rest is counted.
 * Threads: loop thread only.
 */
#pragma once

#include "base/error.h"
#include "base/loop.h"

#define VMM_LOG_LINE        2304 /* longer than any of base/log.h */
#define VMM_LOG_BURST       (64 * KIB)
#define VMM_LOG_BYTES_PER_S (4 * KIB)

struct vmm_log;

/* vmm_log_create() - @ret_fd: the write end, non-blocking, for the process; the caller closes it. */
int vmm_log_create(struct vmm_log **ret, struct loop *l, int *ret_fd, struct error *e) must_check;
/* vmm_log_finish() - The process has ended: show what is left in the pipe. NULL is legal. */
void vmm_log_finish(struct vmm_log *g);
/* vmm_log_free() - NULL is legal. Its memory goes once the loop has turned. */
void vmm_log_free(struct vmm_log *g);

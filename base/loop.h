/*
 * base/loop.h - one thread, one io_uring: operations, timers, deferred work
 *
 * What:    everything that waits in a skerry process waits in one ring. Callers own the memory of each
 *          operation, timer and task (embed them); nothing is allocated per operation.
 * Files:   an operation names a *slot* of the ring's registered-file table, never a descriptor, so that a
 *          confined process can forbid everything else (see loop_confine()).
 * Lock:    loop_set_lock() names a mutex held while callbacks run and released while waiting.
 * Threads: operations, loop_add_fd() and loop_remove_fd() are for the thread that called loop_start() only. Another
 *          thread that holds the lock may use loop_defer(), loop_undefer() and the timers (the loop is woken);
 *          loop_wake() and loop_stop() may be called from anywhere.
 * Spec:    io_uring_enter(2), io_uring_register(2).
 */
#pragma once

#include <pthread.h>
#include <sys/uio.h>

#include "base/error.h"

struct loop;
struct loop_op;
struct loop_timer;
struct loop_task;

/* @res: result as of the system call, negative errno on failure. The op may be reused from inside. */
typedef void loop_op_fn(struct loop_op *op, int res);
typedef void loop_timer_fn(struct loop_timer *t);
typedef void loop_task_fn(struct loop_task *t);

/* Zero-initialise, then set @done. Must stay in place while busy; *not* stack memory. */
struct loop_op {
	loop_op_fn *done;
	bool busy; /* submitted, @done not yet called */
};

struct loop_timer {
	loop_timer_fn *fire;
	uint64_t deadline_ns; /* CLOCK_MONOTONIC */
	size_t heap_pos;      /* 1-based; 0 = not armed */
};

/* Work for the next turn of the loop, e.g. a virtqueue whose budget ran out. */
struct loop_task {
	loop_task_fn *run;
	struct loop_task *next;
	bool queued;
};

#define LOOP_FILES_MAX 4096 /* default size of the registered-file table */

/**
 * loop_create() - Make a ring, not yet enabled for submission until loop_start()
 * @entries: submission queue entries, a power of two; more are flushed to the kernel when full
 *
 * Errors name what forbids io_uring (sysctl kernel.io_uring_disabled, a container's seccomp, memlock).
 */
int loop_create(struct loop **ret, unsigned entries, struct error *e) must_check;
void loop_destroy(struct loop *l);

/**
 * loop_start() - Enable the ring
 * @confine: first restrict it for good: only the operations below, registered files only
 *           (IORING_REGISTER_RESTRICTIONS); no OPENAT, SOCKET, CONNECT, SENDMSG, ... can ever be run
 */
int loop_start(struct loop *l, bool confine, struct error *e) must_check;

/* loop_run() - Serve until loop_stop(). Returns 0, or -errno if the ring broke. */
int loop_run(struct loop *l) must_check;
void loop_stop(struct loop *l);
/* loop_wake() - From any thread: make loop_run() turn once (tasks and timers are looked at again). */
void loop_wake(struct loop *l);
void loop_set_lock(struct loop *l, pthread_mutex_t *m);

/* loop_now_ns() - CLOCK_MONOTONIC, nanoseconds. */
uint64_t loop_now_ns(void);

/**
 * loop_add_fd() - Register a descriptor
 * The caller keeps owning @fd and may close it at once: the table holds the file open.
 * Return: slot >= 0, or -errno (-ENFILE: table full).
 */
int loop_add_fd(struct loop *l, int fd) must_check;
/* loop_remove_fd() - Forget a slot; operations on it must have been cancelled or completed. */
void loop_remove_fd(struct loop *l, int slot);

/*
 * Operations. Each asserts !op->busy, and completes exactly once through op->done from loop_run().
 * Buffers and iovecs must stay valid until then. @off: file offset, or LOOP_OFF_NONE for streams.
 */
#define LOOP_OFF_NONE UINT64_MAX
void loop_read(struct loop *l, struct loop_op *op, int slot, void *buf, size_t len, uint64_t off);
void loop_write(
	struct loop *l, struct loop_op *op, int slot, const void *buf, size_t len, uint64_t off);
void loop_readv(struct loop *l, struct loop_op *op, int slot, const struct iovec *iov, unsigned n,
	uint64_t off);
void loop_writev(struct loop *l, struct loop_op *op, int slot, const struct iovec *iov, unsigned n,
	uint64_t off);
/* fdatasync(2) */
void loop_fdatasync(struct loop *l, struct loop_op *op, int slot);
/* fallocate(2); @mode FALLOC_FL_* */
void loop_fallocate(
	struct loop *l, struct loop_op *op, int slot, int mode, uint64_t off, uint64_t len);
/* One-shot poll(2); res is the revents mask. */
void loop_poll(struct loop *l, struct loop_op *op, int slot, uint32_t events);
/* Ask for the end of a busy op; it still completes (-ECANCELED, or its result if that came first). */
void loop_cancel(struct loop *l, struct loop_op *op);

void loop_timer_set(struct loop *l, struct loop_timer *t, uint64_t deadline_ns);
void loop_timer_clear(struct loop *l, struct loop_timer *t);
void loop_defer(struct loop *l, struct loop_task *t);
void loop_undefer(struct loop *l, struct loop_task *t);

/* loop_raw() - Queue an operation just as @sqe says. For probes of the restrictions (base/confine.h) only. */
struct io_uring_sqe;
void loop_raw(struct loop *l, struct loop_op *op, const struct io_uring_sqe *sqe);

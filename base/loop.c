#include "base/loop.h"

#include <assert.h>
#include <errno.h>
#include <liburing.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <time.h>

#define CQE_BATCH 64

struct loop {
	struct io_uring ring;
	unsigned nfiles;
	unsigned nfree;
	int *free_slots; /* stack of nfree slots */

	struct loop_timer **heap; /* 1-based binary heap by deadline */
	size_t nheap, heap_cap;
	struct loop_task *first, **last;

	pthread_mutex_t *lock;
	pthread_t owner; /* valid once started */
	bool started;
	atomic_bool stop;

	int wake_fd, wake_slot;
	uint64_t wake_value;
	struct loop_op wake_op;
};

uint64_t loop_now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * NSEC_PER_SEC + (uint64_t)ts.tv_nsec;
}

/* ---- ring ---- */

static int ring_error(int err, struct error *e)
{
	if (err == ENOSYS)
		return error_set(e, err, "io_uring: this kernel lacks it; use Linux 6.1 or later");
	if (err == EPERM || err == EACCES)
		return error_set(e, err,
			"io_uring: not permitted; set sysctl kernel.io_uring_disabled=0, and in a container "
			"use a seccomp profile that allows io_uring_setup");
	if (err == ENOMEM)
		return error_set(e, err,
			"io_uring: out of memory; raise the locked-memory limit (ulimit -l)");
	return error_set(e, err, "io_uring: %s", strerror(err));
}

static int ring_init(struct io_uring *ring, unsigned entries)
{
	/* Newest first: each set is refused with EINVAL by kernels that don't know it (6.1, 5.19, 5.10). */
	static const unsigned flag_sets[] = {
		IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN,
		IORING_SETUP_COOP_TASKRUN,
		0,
	};
	int r = -EINVAL;

	for (size_t i = 0; i < ARRAY_SIZE(flag_sets) && r == -EINVAL; i++) {
		struct io_uring_params p = {
			.flags = flag_sets[i] | IORING_SETUP_R_DISABLED | IORING_SETUP_CLAMP,
		};
		r = io_uring_queue_init_params(entries, ring, &p);
	}
	return r;
}

static int files_init(struct loop *l)
{
	struct rlimit lim;
	int r;

	l->nfiles = LOOP_FILES_MAX;
	if (!getrlimit(RLIMIT_NOFILE, &lim) && lim.rlim_cur < l->nfiles)
		l->nfiles = (unsigned)lim.rlim_cur;
	l->free_slots = calloc(l->nfiles, sizeof(*l->free_slots));
	if (!l->free_slots)
		return -ENOMEM;
	for (unsigned i = 0; i < l->nfiles; i++)
		l->free_slots[i] = -1;
	r = io_uring_register_files_sparse(&l->ring, l->nfiles);
	if (r == -EINVAL) /* before 5.19 */
		r = io_uring_register_files(&l->ring, l->free_slots, l->nfiles);
	if (r)
		return r;
	for (unsigned i = 0; i < l->nfiles; i++)
		l->free_slots[i] = (int)(l->nfiles - 1 - i);
	l->nfree = l->nfiles;
	return 0;
}

int loop_create(struct loop **ret, unsigned entries, struct error *e)
{
	struct loop *l = calloc(1, sizeof(*l));
	int r;

	if (!l)
		return error_set(e, ENOMEM, "event loop: out of memory");
	l->wake_fd = -1;
	l->last = &l->first;
	r = ring_init(&l->ring, entries);
	if (r) {
		free(l);
		return ring_error(-r, e);
	}
	r = files_init(l);
	if (!r) {
		l->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
		r = l->wake_fd < 0 ? -errno : loop_add_fd(l, l->wake_fd);
	}
	if (r < 0) {
		loop_destroy(l);
		return ring_error(-r, e);
	}
	l->wake_slot = r;
	*ret = l;
	return 0;
}

void loop_destroy(struct loop *l)
{
	if (!l)
		return;
	io_uring_queue_exit(&l->ring);
	close_fd(&l->wake_fd);
	free(l->free_slots);
	free(l->heap);
	free(l);
}

/* The whole of what a confined process may ever ask of its ring. */
static int ring_restrict(struct io_uring *ring)
{
	static const uint8_t ops[] = {
		IORING_OP_READ,
		IORING_OP_WRITE,
		IORING_OP_READV,
		IORING_OP_WRITEV,
		IORING_OP_FSYNC,
		IORING_OP_FALLOCATE,
		IORING_OP_POLL_ADD,
		IORING_OP_ASYNC_CANCEL,
	};
	struct io_uring_restriction res[ARRAY_SIZE(ops) + 5] = { 0 };
	unsigned n = 0;

	for (size_t i = 0; i < ARRAY_SIZE(ops); i++)
		res[n++] = (struct io_uring_restriction){
			.opcode = IORING_RESTRICTION_SQE_OP,
			.sqe_op = ops[i],
		};
	res[n++] = (struct io_uring_restriction){
		.opcode = IORING_RESTRICTION_REGISTER_OP,
		.register_op = IORING_REGISTER_FILES_UPDATE,
	};
	res[n++] = (struct io_uring_restriction){
		.opcode = IORING_RESTRICTION_REGISTER_OP,
		.register_op = IORING_REGISTER_ENABLE_RINGS,
	};
	res[n++] = (struct io_uring_restriction){
		.opcode = IORING_RESTRICTION_SQE_FLAGS_ALLOWED,
		.sqe_flags = IOSQE_FIXED_FILE,
	};
	res[n++] = (struct io_uring_restriction){
		.opcode = IORING_RESTRICTION_SQE_FLAGS_REQUIRED,
		.sqe_flags = IOSQE_FIXED_FILE,
	};
	return io_uring_register_restrictions(ring, res, n);
}

static void wake_arm(struct loop *l);

static void wake_done(struct loop_op *op, int res)
{
	struct loop *l = container_of(op, struct loop, wake_op);

	if (res != -ECANCELED)
		wake_arm(l);
}

static void wake_arm(struct loop *l)
{
	l->wake_op.done = wake_done;
	loop_read(l, &l->wake_op, l->wake_slot, &l->wake_value, sizeof(l->wake_value), LOOP_OFF_NONE);
}

int loop_start(struct loop *l, bool confine, struct error *e)
{
	int r = confine ? ring_restrict(&l->ring) : 0;

	if (r)
		return error_set(e, -r, "io_uring: the ring can't be restricted: %s", strerror(-r));
	r = io_uring_enable_rings(&l->ring);
	if (r)
		return ring_error(-r, e);
	l->owner = pthread_self();
	l->started = true;
	wake_arm(l);
	return 0;
}

static bool on_loop_thread(const struct loop *l)
{
	return !l->started || pthread_equal(l->owner, pthread_self());
}

void loop_wake(struct loop *l)
{
	uint64_t one = 1;

	if (write(l->wake_fd, &one, sizeof(one)) < 0)
		assert(errno == EAGAIN); /* the counter is full: it will wake all the same */
}

void loop_stop(struct loop *l)
{
	atomic_store(&l->stop, true);
	loop_wake(l);
}

void loop_set_lock(struct loop *l, pthread_mutex_t *m)
{
	l->lock = m;
}

/* ---- descriptors ---- */

int loop_add_fd(struct loop *l, int fd)
{
	int slot, r;

	assert(on_loop_thread(l));
	if (!l->nfree)
		return -ENFILE;
	slot = l->free_slots[l->nfree - 1];
	r = io_uring_register_files_update(&l->ring, (unsigned)slot, &fd, 1);
	if (r < 0)
		return r;
	l->nfree--;
	return slot;
}

void loop_remove_fd(struct loop *l, int slot)
{
	int none = -1, r;

	assert(on_loop_thread(l));
	r = io_uring_register_files_update(&l->ring, (unsigned)slot, &none, 1);
	assert(r == 1);
	l->free_slots[l->nfree++] = slot;
}

/* ---- operations ---- */

static struct io_uring_sqe *sqe_get(struct loop *l)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(&l->ring);

	assert(on_loop_thread(l));
	while (!sqe) { /* full: hand over what is queued */
		int r = io_uring_submit(&l->ring);

		assert(r >= 0 || r == -EBUSY || r == -EAGAIN || r == -EINTR);
		sqe = io_uring_get_sqe(&l->ring);
	}
	return sqe;
}

static void op_queue(struct loop_op *op, struct io_uring_sqe *sqe)
{
	assert(!op->busy);
	op->busy = true;
	sqe->flags |= IOSQE_FIXED_FILE;
	io_uring_sqe_set_data(sqe, op);
}

void loop_read(struct loop *l, struct loop_op *op, int slot, void *buf, size_t len, uint64_t off)
{
	struct io_uring_sqe *sqe = sqe_get(l);

	io_uring_prep_read(sqe, slot, buf, (unsigned)MIN(len, (size_t)INT32_MAX), off);
	op_queue(op, sqe);
}

void loop_write(
	struct loop *l, struct loop_op *op, int slot, const void *buf, size_t len, uint64_t off)
{
	struct io_uring_sqe *sqe = sqe_get(l);

	io_uring_prep_write(sqe, slot, buf, (unsigned)MIN(len, (size_t)INT32_MAX), off);
	op_queue(op, sqe);
}

void loop_readv(struct loop *l, struct loop_op *op, int slot, const struct iovec *iov, unsigned n,
	uint64_t off)
{
	struct io_uring_sqe *sqe = sqe_get(l);

	io_uring_prep_readv(sqe, slot, iov, n, off);
	op_queue(op, sqe);
}

void loop_writev(struct loop *l, struct loop_op *op, int slot, const struct iovec *iov, unsigned n,
	uint64_t off)
{
	struct io_uring_sqe *sqe = sqe_get(l);

	io_uring_prep_writev(sqe, slot, iov, n, off);
	op_queue(op, sqe);
}

void loop_fdatasync(struct loop *l, struct loop_op *op, int slot)
{
	struct io_uring_sqe *sqe = sqe_get(l);

	io_uring_prep_fsync(sqe, slot, IORING_FSYNC_DATASYNC);
	op_queue(op, sqe);
}

void loop_fallocate(
	struct loop *l, struct loop_op *op, int slot, int mode, uint64_t off, uint64_t len)
{
	struct io_uring_sqe *sqe = sqe_get(l);

	io_uring_prep_fallocate(sqe, slot, mode, (off_t)off, (off_t)len);
	op_queue(op, sqe);
}

void loop_poll(struct loop *l, struct loop_op *op, int slot, uint32_t events)
{
	struct io_uring_sqe *sqe = sqe_get(l);

	io_uring_prep_poll_add(sqe, slot, events);
	op_queue(op, sqe);
}

void loop_cancel(struct loop *l, struct loop_op *op)
{
	struct io_uring_sqe *sqe;

	if (!op->busy)
		return;
	sqe = sqe_get(l);
	io_uring_prep_cancel(sqe, op, 0);
	sqe->flags |= IOSQE_FIXED_FILE;
	io_uring_sqe_set_data(sqe, NULL); /* its own completion says nothing that op's doesn't */
}

void loop_raw(struct loop *l, struct loop_op *op, const struct io_uring_sqe *tmpl)
{
	struct io_uring_sqe *sqe = sqe_get(l);

	assert(!op->busy);
	*sqe = *tmpl;
	op->busy = true;
	io_uring_sqe_set_data(sqe, op);
}

/* ---- timers: a binary heap ---- */

static void heap_put(struct loop *l, size_t i, struct loop_timer *t)
{
	l->heap[i] = t;
	t->heap_pos = i;
}

static void heap_up(struct loop *l, size_t i, struct loop_timer *t)
{
	for (; i > 1 && l->heap[i / 2]->deadline_ns > t->deadline_ns; i /= 2)
		heap_put(l, i, l->heap[i / 2]);
	heap_put(l, i, t);
}

static void heap_down(struct loop *l, size_t i, struct loop_timer *t)
{
	for (size_t c; (c = 2 * i) <= l->nheap; i = c) {
		if (c < l->nheap && l->heap[c + 1]->deadline_ns < l->heap[c]->deadline_ns)
			c++;
		if (l->heap[c]->deadline_ns >= t->deadline_ns)
			break;
		heap_put(l, i, l->heap[c]);
	}
	heap_put(l, i, t);
}

void loop_timer_clear(struct loop *l, struct loop_timer *t)
{
	size_t i = t->heap_pos;
	struct loop_timer *moved;

	if (!i)
		return;
	t->heap_pos = 0;
	moved = l->heap[l->nheap--];
	if (moved == t)
		return;
	if (i > 1 && l->heap[i / 2]->deadline_ns > moved->deadline_ns)
		heap_up(l, i, moved);
	else
		heap_down(l, i, moved);
}

void loop_timer_set(struct loop *l, struct loop_timer *t, uint64_t deadline_ns)
{
	loop_timer_clear(l, t);
	t->deadline_ns = deadline_ns;
	if (l->nheap + 1 >= l->heap_cap) {
		size_t cap = l->heap_cap ? l->heap_cap * 2 : 16;
		void *p = realloc(l->heap, cap * sizeof(*l->heap));

		if (!p)
			abort(); /* a lost timer would be a hang: out of memory ends the process */
		l->heap = p;
		l->heap_cap = cap;
	}
	heap_up(l, ++l->nheap, t);
	if (!on_loop_thread(l))
		loop_wake(l);
}

static void timers_fire(struct loop *l)
{
	uint64_t now = l->nheap ? loop_now_ns() : 0;

	while (l->nheap && l->heap[1]->deadline_ns <= now) {
		struct loop_timer *t = l->heap[1];

		loop_timer_clear(l, t);
		t->fire(t);
	}
}

/* ---- deferred tasks ---- */

void loop_defer(struct loop *l, struct loop_task *t)
{
	if (t->queued)
		return;
	t->queued = true;
	t->next = NULL;
	*l->last = t;
	l->last = &t->next;
	if (!on_loop_thread(l))
		loop_wake(l);
}

void loop_undefer(struct loop *l, struct loop_task *t)
{
	if (!t->queued)
		return;
	for (struct loop_task **p = &l->first; *p; p = &(*p)->next) {
		if (*p != t)
			continue;
		*p = t->next;
		if (l->last == &t->next)
			l->last = p;
		break;
	}
	t->queued = false;
}

/* Runs what is queued now; what a task queues again waits for the next turn. */
static void tasks_run(struct loop *l)
{
	struct loop_task end = { .queued = true };

	if (!l->first)
		return;
	*l->last = &end;
	l->last = &end.next;
	while (l->first != &end) {
		struct loop_task *t = l->first;

		l->first = t->next;
		t->queued = false;
		t->run(t);
	}
	l->first = end.next;
	if (!l->first)
		l->last = &l->first;
}

/* ---- the loop ---- */

static int wait_completions(struct loop *l)
{
	struct io_uring_cqe *cqe;
	struct __kernel_timespec ts = { 0 }, *timeout = NULL;
	int r;

	if (l->first || l->nheap) {
		uint64_t now = loop_now_ns(), due = l->nheap ? l->heap[1]->deadline_ns : now;
		uint64_t left = l->first || due <= now ? 0 : due - now;

		ts.tv_sec = (long long)(left / NSEC_PER_SEC);
		ts.tv_nsec = (long long)(left % NSEC_PER_SEC);
		timeout = &ts;
	}
	if (l->lock)
		pthread_mutex_unlock(l->lock);
	r = io_uring_submit_and_wait_timeout(&l->ring, &cqe, 1, timeout, NULL);
	if (l->lock)
		pthread_mutex_lock(l->lock);
	if (r < 0 && r != -ETIME && r != -EINTR && r != -EBUSY && r != -EAGAIN)
		return r;
	return 0;
}

static void completions_run(struct loop *l)
{
	struct io_uring_cqe *cqes[CQE_BATCH];
	unsigned n;

	while ((n = io_uring_peek_batch_cqe(&l->ring, cqes, CQE_BATCH))) {
		for (unsigned i = 0; i < n; i++) {
			struct loop_op *op = io_uring_cqe_get_data(cqes[i]);
			int res = cqes[i]->res;

			io_uring_cqe_seen(&l->ring, cqes[i]);
			if (!op)
				continue;
			op->busy = false;
			op->done(op, res);
		}
		if (n < CQE_BATCH)
			break;
	}
}

int loop_run(struct loop *l)
{
	int r = 0;

	assert(l->started && on_loop_thread(l));
	if (l->lock)
		pthread_mutex_lock(l->lock);
	while (!atomic_load(&l->stop)) {
		tasks_run(l);
		timers_fire(l);
		if (atomic_load(&l->stop))
			break;
		r = wait_completions(l);
		if (r < 0)
			break;
		completions_run(l);
	}
	atomic_store(&l->stop, false);
	if (l->lock)
		pthread_mutex_unlock(l->lock);
	return r;
}

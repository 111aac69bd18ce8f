/* base/loop: operations, order of timers, deferred tasks, wake from another thread, and the restrictions. */
#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>

#include "base/loop.h"
#include "tests/lib/test.h"

static struct loop *loop;
static int last_res, ndone;

static void op_done(struct loop_op *op, int res)
{
	(void)op;
	last_res = res;
	ndone++;
	loop_stop(loop);
}

static void run_once(void)
{
	CHECK_EQ(loop_run(loop), 0);
}

static void stream_and_cancel(void)
{
	struct loop_op op = { .done = op_done };
	int sv[2], slot;
	char buf[8] = "";

	REQUIRE(!socketpair(AF_UNIX, SOCK_STREAM, 0, sv));
	slot = loop_add_fd(loop, sv[0]);
	REQUIRE(slot >= 0);
	close(sv[0]); /* the table keeps it open */
	REQUIRE(write(sv[1], "hello", 5) == 5);
	loop_read(loop, &op, slot, buf, sizeof(buf), LOOP_OFF_NONE);
	run_once();
	CHECK_EQ(last_res, 5);
	CHECK(!memcmp(buf, "hello", 5));

	loop_poll(loop, &op, slot, POLLIN);
	loop_cancel(loop, &op);
	run_once();
	CHECK_EQ(last_res, -ECANCELED);
	CHECK(!op.busy);

	loop_write(loop, &op, slot, "abc", 3, LOOP_OFF_NONE);
	run_once();
	CHECK_EQ(last_res, 3);
	CHECK_EQ(read(sv[1], buf, sizeof(buf)), 3);
	loop_remove_fd(loop, slot);
	CHECK_EQ(read(sv[1], buf, sizeof(buf)), 0); /* the last reference is gone */
	close(sv[1]);
}

static void file_ops(void)
{
	char path[] = "/tmp/test-loop-XXXXXX", a[4] = "", b[4] = "";
	int fd = mkstemp(path), slot = loop_add_fd(loop, fd);
	struct loop_op op = { .done = op_done };
	struct iovec iov[2] = { { a, 4 }, { b, 4 } };

	REQUIRE(fd >= 0 && slot >= 0);
	unlink(path);
	loop_write(loop, &op, slot, "12345678", 8, 4096);
	run_once();
	loop_fdatasync(loop, &op, slot);
	run_once();
	CHECK_EQ(last_res, 0);
	loop_readv(loop, &op, slot, iov, 2, 4096);
	run_once();
	CHECK_EQ(last_res, 8);
	CHECK(!memcmp(a, "1234", 4) && !memcmp(b, "5678", 4));
	loop_fallocate(loop, &op, slot, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 4096, 8);
	run_once();
	loop_read(loop, &op, slot, a, 4, 4096);
	run_once();
	CHECK_EQ(a[0], 0);
	loop_remove_fd(loop, slot);
	close(fd);
}

#define NTIMERS 100
static struct loop_timer timers[NTIMERS];
static uint64_t last_deadline;
static int nfired;

static void timer_fired(struct loop_timer *t)
{
	CHECK(t->deadline_ns >= last_deadline);
	CHECK(loop_now_ns() >= t->deadline_ns);
	last_deadline = t->deadline_ns;
	if (++nfired == NTIMERS / 2)
		loop_stop(loop);
}

static void timer_order(void)
{
	uint64_t now = loop_now_ns();

	srand(1);
	for (int i = 0; i < NTIMERS; i++) {
		timers[i].fire = timer_fired;
		loop_timer_set(loop, &timers[i], now + (uint64_t)(rand() % 20000) * 1000);
	}
	for (int i = 0; i < NTIMERS; i += 2)
		loop_timer_clear(loop, &timers[i]);
	run_once();
	CHECK_EQ(nfired, NTIMERS / 2);
}

static int nrun;
static void task_again(struct loop_task *t)
{
	if (++nrun < 5)
		loop_defer(loop, t);
	else
		loop_stop(loop);
}
static void task_never(struct loop_task *t)
{
	(void)t;
	CHECK(!"an undeferred task ran");
}

static void tasks(void)
{
	struct loop_task a = { .run = task_again }, b = { .run = task_never }, c = { .run = task_never };

	loop_defer(loop, &b);
	loop_defer(loop, &a);
	loop_defer(loop, &c);
	loop_undefer(loop, &b);
	loop_undefer(loop, &c);
	run_once();
	CHECK_EQ(nrun, 5);
}

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static struct loop_task posted;
static void posted_run(struct loop_task *t)
{
	(void)t;
	loop_stop(loop);
}
static void *poster(void *arg)
{
	usleep(20000);
	pthread_mutex_lock(&mutex);
	loop_defer(loop, &posted);
	pthread_mutex_unlock(&mutex);
	return arg;
}

static void other_thread(void)
{
	pthread_t t;

	posted.run = posted_run;
	loop_set_lock(loop, &mutex);
	pthread_create(&t, NULL, poster, NULL);
	run_once();
	pthread_join(t, NULL);
	loop_set_lock(loop, NULL);
}

#define MANY 3000
static int many_done;
static void many_cb(struct loop_op *op, int res)
{
	(void)op;
	CHECK_EQ(res, 1);
	if (++many_done == MANY)
		loop_stop(loop);
}

/* More operations than the submission queue holds. */
static void overflow(void)
{
	static struct loop_op ops[MANY];
	static char bytes[MANY];
	int fd = open("/dev/zero", O_RDONLY), slot = loop_add_fd(loop, fd);

	REQUIRE(slot >= 0);
	for (int i = 0; i < MANY; i++) {
		ops[i].done = many_cb;
		bytes[i] = 1;
		loop_read(loop, &ops[i], slot, &bytes[i], 1, LOOP_OFF_NONE);
	}
	run_once();
	CHECK_EQ(many_done, MANY);
	CHECK_EQ(bytes[MANY - 1], 0);
	loop_remove_fd(loop, slot);
	close(fd);
}

int main(void)
{
	for (int confine = 0; confine < 2; confine++) {
		struct error e;

		REQUIRE(!loop_create(&loop, 64, &e));
		REQUIRE(!loop_start(loop, confine, &e));
		nfired = nrun = many_done = 0;
		last_deadline = 0;
		memset(timers, 0, sizeof(timers));
		stream_and_cancel();
		file_ops();
		timer_order();
		tasks();
		other_thread();
		overflow();
		loop_destroy(loop);
	}
	TEST_END();
}

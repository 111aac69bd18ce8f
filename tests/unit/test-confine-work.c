/*
 * base/confine: what a vmm does still works behind the walls: ring, control channel, threads,
 * memory, kicks.
 */
#include <fcntl.h>
#include <linux/kvm.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include "base/loop.h"
#include "tests/lib/role.h"

static struct loop *role_loop;
static int ring_result;

static void ring_done(struct loop_op *op unused_arg, int res)
{
	ring_result = res;
	loop_stop(role_loop);
}

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t cond = PTHREAD_COND_INITIALIZER;
static int locked_threads, go;
static atomic_int stop, ended;

static void kick(int sig unused_arg)
{
}

/* Locks itself, waits for the release, uses the heap, is kicked out of a sleep. */
static void *vcpu_thread(void *arg)
{
	struct timespec long_time = { .tv_sec = 60 };
	int event = *(int *)arg;
	uint64_t one = 1;
	void *p;

	lock(CONFINE_VMM_VCPU);
	pthread_mutex_lock(&mutex);
	locked_threads++;
	pthread_cond_broadcast(&cond);
	while (!go)
		pthread_cond_wait(&cond, &mutex);
	pthread_mutex_unlock(&mutex);
	for (size_t size = 16; size < 64 * MIB; size *= 4) {
		p = malloc(size);
		if (!p)
			_exit(6);
		memset(p, 1, MIN(size, MIB));
		free(p);
	}
	if (ioctl(event, KVM_RUN, 0) != -1 || errno != ENOTTY) /* allowed, but this is no vCPU */
		_exit(7);
	if (write(event, &one, sizeof(one)) != sizeof(one))
		_exit(8);
	while (!stop)
		nanosleep(&long_time, NULL);
	ended++;
	return NULL;
}

static void event_done(struct loop_op *op, int res)
{
	(void)op;
	if (res != 8)
		_exit(9);
	loop_stop(role_loop);
}

/* Receives a descriptor and writes to it through the ring. */
static void use_received_fd(void)
{
	static struct loop_op op = { .done = ring_done };
	int fds[CTL_FDS_MAX], slot;
	struct ctl_msg m;

	if (ctl_recv(FD_CTL, &m, fds) != 1 || m.type != CTL_VSOCK_CONNECT)
		_exit(10);
	slot = loop_add_fd(role_loop, fds[0]);
	close(fds[0]);
	if (slot < 0)
		_exit(11);
	loop_write(role_loop, &op, slot, "through the ring", 16, LOOP_OFF_NONE);
	if (loop_run(role_loop) || ring_result != 16)
		_exit(12);
	loop_remove_fd(role_loop, slot);
}

static void use_memory(void)
{
	char *p = mmap(NULL, 8 * MIB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	unsigned char random[16];

	if (p == MAP_FAILED || mprotect(p, 4096, PROT_READ) || madvise(p, 8 * MIB, MADV_DONTNEED) ||
		munmap(p, 8 * MIB))
		_exit(13);
	if (syscall(SYS_getrandom, random, sizeof(random), 0) != sizeof(random))
		_exit(14);
}

static void role_work(char **argv)
{
	static struct loop_op op = { .done = event_done };
	struct sigaction sa = { .sa_handler = kick };
	struct error e = { 0 };
	pthread_t threads[3];
	uint64_t value;
	int event;

	enter(argv);
	event = eventfd(0, EFD_CLOEXEC);
	sigaction(SIGUSR1, &sa, NULL);
	if (loop_create(&role_loop, 8, &e))
		role_die("loop_create", &e);
	for (size_t i = 0; i < ARRAY_SIZE(threads); i++)
		if (pthread_create(&threads[i], NULL, vcpu_thread, &event))
			role_die("pthread_create", NULL);
	pthread_mutex_lock(&mutex);
	while (locked_threads < (int)ARRAY_SIZE(threads))
		pthread_cond_wait(&cond, &mutex);
	if (loop_start(role_loop, true, &e))
		role_die("loop_start", &e);
	lock(CONFINE_VMM_LOOP);
	go = 1;
	pthread_cond_broadcast(&cond);
	pthread_mutex_unlock(&mutex);

	loop_read(role_loop, &op, loop_add_fd(role_loop, event), &value, sizeof(value),
		LOOP_OFF_NONE);
	if (loop_run(role_loop))
		_exit(15);
	use_received_fd();
	use_memory();
	stop = 1;
	while (ended < (int)ARRAY_SIZE(threads)) /* out of their sleep */
		for (size_t i = 0; i < ARRAY_SIZE(threads); i++) {
			pthread_kill(threads[i], SIGUSR1);
			sched_yield();
		}
	for (size_t i = 0; i < ARRAY_SIZE(threads); i++)
		pthread_join(threads[i], NULL);
	loop_destroy(role_loop);
	reply(7, 0);
	_exit(0);
}

static void work(enum confine_level level)
{
	struct ctl_vsock v = { .port = 1 };
	int ctl, fds[CTL_FDS_MAX], data[2];
	struct process p = spawn("role-work", "x", level, &ctl);
	struct ctl_msg m;
	char buf[32];

	REQUIRE(!pipe2(data, O_CLOEXEC));
	CHECK_EQ(ctl_send(ctl, CTL_VSOCK_CONNECT, &v, sizeof(v), &data[1], 1), 0);
	close(data[1]);
	CHECK_EQ(ctl_recv(ctl, &m, fds), 1);
	CHECK_EQ(m.u.probe_result.what, 7);
	CHECK_EQ(wait_for(&p), 0);
	CHECK_EQ(read(data[0], buf, sizeof(buf)), 16);
	CHECK_EQ(read(data[0], buf, sizeof(buf)), 0);
	close(data[0]);
	close(ctl);
}

static void user_levels(void)
{
	work(CONFINE_NONE);
	work(CONFINE_BASIC);
	work(CONFINE_FULL);
}

int main(int argc unused_arg, char **argv)
{
	if (!strcmp(argv[0], "role-work"))
		role_work(argv);
	require_full_level();
	user_levels();
	if (getuid() == 0) {
		work(CONFINE_ROOT);
		as_nobody(user_levels);
	}
	TEST_END();
}

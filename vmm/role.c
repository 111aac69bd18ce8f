/*
 * vmm/role.c - the vmm process from its first instruction to its last
 *
 * Order:   privileges and file system go first (confine_enter). Then everything is built from the
 *          descriptors that the supervisor passed: machine, memory, devices; kernel into memory.
 *          Then vCPU threads are created and lock themselves, the ring is restricted, this thread
 *          locks itself. Only then does a guest instruction run. After that nothing can be opened,
 *          connected or created.
 * Threads: this one runs the loop: devices, control channel. vCPU threads run the guest and
 *          registers. One more creates the KVM machine while this one reads the kernel, because
 *          KVM_CREATE_VM mostly waits.
 * End:     vm_stop() from anywhere wakes the loop; CTL_EXIT says why; the process exits.
 */
#include "vmm/role.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include "base/confine.h"
#include "base/ctl.h"
#include "base/log.h"
#include "base/loop.h"
#include "vmm/arch.h"
#include "vmm/config.h"
#include "vmm/dev_balloon.h"
#include "vmm/dev_blk.h"
#include "vmm/dev_rng.h"
#include "vmm/dev_vsock.h"
#include "vmm/power.h"
#include "vmm/role_ctl.h"
#include "vmm/uart.h"
#include "vmm/virtio_mmio.h"

#define RING_ENTRIES   256
#define DRAIN_LIMIT_NS (2 * NSEC_PER_SEC) /* for operations under way when the machine ends */
#define DRAIN_STEP_NS  (1 * NSEC_PER_MSEC)

struct role {
	struct vmm_config cfg;
	enum confine_level level;
	struct loop *loop;
	struct gmem *mem;
	struct vm *vm;
	struct uart *uart;
	struct virtio_dev *dev[VM_VIRTIO_SLOTS];
	unsigned nslots, nattached; /* slots: vsock, rng, balloon if any, disks */
	struct virtio_dev *vsock, *balloon;
	struct arch_entry entry;

	struct role_ctl ctl;
	int event_slot;
	struct loop_op event_op, probe_op;
	uint64_t event_value;
	uint32_t probe_what;
	bool loop_started, first_run_told;
	struct loop_timer drain_timer;
	uint64_t drain_until_ns;
};

/* ---- to the supervisor ---- */

static void tell_phase(struct role *r, enum ctl_phase_id id, uint64_t mono_ns)
{
	struct ctl_phase p = { .id = id, .mono_ns = mono_ns };

	if (r->cfg.flags & VMM_TRACE)
		role_ctl_send(&r->ctl, CTL_PHASE, &p, sizeof(p));
}

static void tell_exit(struct role *r, enum vm_exit why, const char *detail)
{
	struct ctl_exit x = { .why = why };

	snprintf(x.detail, sizeof(x.detail), "%s", detail);
	role_ctl_send(&r->ctl, CTL_EXIT, &x, sizeof(x));
}

/* ---- from the supervisor ---- */

static void probe_done(struct loop_op *op, int res)
{
	struct role *r = container_of(op, struct role, probe_op);
	struct ctl_probe_result result = { .what = r->probe_what, .result = MIN(res, 0) };

	if (res != -ECANCELED)
		role_ctl_send(&r->ctl, CTL_PROBE_RESULT, &result, sizeof(result));
}

static void probe(struct role *r, uint32_t what)
{
	if (r->probe_op.busy)
		return; /* the answer to the first one is under way; the supervisor waits for it */
	r->probe_what = what;
	if (what < CONFINE_PROBE_RING_FIRST)
		probe_done(&r->probe_op, confine_probe_run((enum confine_probe)what));
	else if (what < CONFINE_PROBE_COUNT)
		confine_probe_ring(r->loop, &r->probe_op, (enum confine_probe)what);
	else
		probe_done(&r->probe_op, -EINVAL);
}

/*
 * Hands a stream socket to the device; what it doesn't take is closed, which is how the other end
 * learns.
 */
static void give_stream(struct role *r, const struct ctl_msg *m, int *fd)
{
	uint32_t port = m->u.vsock.port;
	int err = m->type == CTL_VSOCK_CONNECT ? dev_vsock_host_connect(r->vsock, port, *fd)
					       : dev_vsock_host_accept(r->vsock, port, *fd);

	if (err)
		log_error("vsock: port %u: %s", port, strerror(-err));
	else
		*fd = -1;
}

static void supervisor_says(struct role_ctl *c, const struct ctl_msg *m, int fds[CTL_FDS_MAX])
{
	struct role *r = container_of(c, struct role, ctl);

	switch (m->type) {
	case CTL_VSOCK_CONNECT:
	case CTL_VSOCK_ACCEPT:
		give_stream(r, m, &fds[0]);
		break;
	case CTL_BALLOON:
		if (r->balloon)
			dev_balloon_set_target(r->balloon, m->u.balloon.target_bytes);
		break;
	case CTL_QUIT:
		vm_stop(r->vm, VM_EXIT_STOPPED, "");
		break;
	case CTL_PROBE:
		probe(r, m->u.probe.what);
		break;
	default:
		log_error("control channel: message %u is not for this process", m->type);
	}
}

/* Whoever asked for it, or can still adopt it, keeps the machine alive. */
static void supervisor_lost(struct role_ctl *c, const char *fault)
{
	struct role *r = container_of(c, struct role, ctl);

	if ((r->cfg.flags & VMM_DIE_WITH_PARENT) || (fault[0] && c->listen_fd < 0))
		vm_stop(r->vm, VM_EXIT_STOPPED, fault);
	else if (fault[0])
		log_error("%s", fault);
}

static void event_ready(struct loop_op *op, int res)
{
	struct role *r = container_of(op, struct role, event_op);

	if (res == -ECANCELED)
		return;
	if (!r->first_run_told && vm_first_run_ns(r->vm)) {
		r->first_run_told = true;
		tell_phase(r, PHASE_FIRST_KVM_RUN, vm_first_run_ns(r->vm));
	}
	if (vm_exit_reason(r->vm, NULL, 0) != VM_EXIT_NONE) {
		loop_stop(r->loop);
		return;
	}
	loop_read(
		r->loop, op, r->event_slot, &r->event_value, sizeof(r->event_value), LOOP_OFF_NONE);
}

/* ---- building ---- */

struct create_job {
	struct role *role;
	struct error error;
	int result;
};

static void *create_machine(void *arg)
{
	struct create_job *job = arg;
	struct role *r = job->role;

	job->result = vm_create(&r->vm, r->cfg.kvm_fd, r->cfg.cpus, r->mem, &job->error);
	return NULL;
}

/* The KVM machine on another thread, the kernel and tables into memory on this one. */
static int build_machine(struct role *r, struct error *e)
{
	struct create_job job = { .role = r };
	struct arch_boot boot = {
		.kernel_fd = r->cfg.kernel_fd,
		.initrd_fd = r->cfg.initrd_fd,
		.ninitrds = r->cfg.ninitrds,
		.cmdline = r->cfg.cmdline,
		.cpus = r->cfg.cpus,
		.nslots = r->nslots,
	};
	pthread_t thread;
	int err = gmem_create(&r->mem, r->cfg.memory, e);

	if (err)
		return err;
	err = pthread_create(&thread, NULL, create_machine, &job);
	if (err)
		return error_set(e, err, "thread: %s", strerror(err));
	err = arch_load(r->mem, &boot, &r->entry, e);
	pthread_join(thread, NULL);
	if (job.result) {
		if (e)
			*e = job.error;
		return job.result;
	}
	return err ? err : arch_boot_vcpu(vm_vcpu_fd(r->vm, 0), &r->entry, e);
}

/* Takes over a device that was just created, unless it wasn't. */
static int add_device(struct role *r, int created, struct virtio_dev *d, struct error *e)
{
	unsigned slot = r->nattached;

	if (created)
		return created;
	r->dev[slot] = d;
	r->nattached++;
	return virtio_mmio_attach(r->vm, slot, d, e);
}

static int add_devices(struct role *r, struct error *e)
{
	struct virtio_dev *d = NULL;
	int err = dev_vsock_create(&r->vsock, r->loop, r->mem, r->cfg.guest_cid, e);

	err = add_device(r, err, r->vsock, e);
	if (err)
		return err;
	err = dev_rng_create(&d, r->loop, r->mem, e);
	err = add_device(r, err, d, e);
	if (!err && r->cfg.flags & VMM_BALLOON) {
		err = dev_balloon_create(&r->balloon, r->loop, r->mem, e);
		err = add_device(r, err, r->balloon, e);
	}
	for (uint32_t i = 0; i < r->cfg.ndisks && !err; i++) {
		err = dev_blk_create(&d, r->loop, r->mem, &r->cfg.disk[i], e);
		err = add_device(r, err, d, e);
		close_fd(&r->cfg.disk[i].fd);
	}
	return err;
}

static int add_console(struct role *r, struct error *e)
{
	int irq = vm_irqfd(r->vm, VM_GSI_UART, e);
	int err = irq < 0 ? irq : uart_create(&r->uart, r->loop, r->cfg.console_fd, irq, e);

	if (err) {
		close_fd(&irq);
		return err;
	}
	return uart_attach(r->uart, vm_bus(r->vm), e);
}

static int add_to_loop(struct role *r, struct error *e)
{
	r->event_slot = loop_add_fd(r->loop, vm_event_fd(r->vm));
	if (r->event_slot < 0)
		return error_set(e, -r->event_slot, "event loop: %s", strerror(-r->event_slot));
	r->event_op.done = event_ready;
	r->probe_op.done = probe_done;
	loop_read(r->loop, &r->event_op, r->event_slot, &r->event_value, sizeof(r->event_value),
		LOOP_OFF_NONE);
	loop_set_lock(r->loop, bus_lock(vm_bus(r->vm)));
	return role_ctl_start(&r->ctl, r->loop, r->cfg.listen_fd, e);
}

/* The files that only building needed. */
static void close_inputs(struct role *r)
{
	int config = ROLE_FD_CONFIG;

	close_fd(&config);
	close_fd(&r->cfg.kvm_fd);
	close_fd(&r->cfg.kernel_fd);
	for (uint32_t i = 0; i < r->cfg.ninitrds; i++)
		close_fd(&r->cfg.initrd_fd[i]);
}

static int build(struct role *r, struct error *e)
{
	int err = loop_create(&r->loop, RING_ENTRIES, e);

	r->nslots = 2 + !!(r->cfg.flags & VMM_BALLOON) + r->cfg.ndisks;
	if (!err)
		err = build_machine(r, e);
	if (!err)
		err = add_console(r, e);
	if (!err)
		err = power_attach(r->vm, e);
	if (!err)
		err = add_devices(r, e);
	if (!err)
		err = add_to_loop(r, e);
	close_inputs(r);
	return err;
}

/* ---- confinement ---- */

static int enter_vcpu(struct error *e)
{
	return confine_lock(CONFINE_VMM_VCPU, e);
}

static int lock_down(struct role *r, struct error *e)
{
	int err = vm_start(r->vm, enter_vcpu, e);

	if (!err)
		err = loop_start(r->loop, r->level != CONFINE_NONE, e);
	r->loop_started = !err;
	return err ? err : confine_lock(CONFINE_VMM_LOOP, e);
}

static int check_level(const struct role *r, struct error *e)
{
	if (r->level != CONFINE_NONE)
		return 0;
	if (!(r->cfg.flags & VMM_NO_CONFINE))
		return error_set(e, EPERM, "the vmm process was started without confinement");
	log_warn(
		"this sandbox is NOT CONFINED (--no-confine): a guest that breaks out of its machine has all "
		"your rights");
	return 0;
}

/* ---- the end ---- */

static bool devices_busy(const struct role *r)
{
	for (unsigned i = 0; i < r->nattached; i++)
		if (virtio_busy(r->dev[i]))
			return true;
	return role_ctl_busy(&r->ctl) || r->event_op.busy || r->probe_op.busy;
}

static void drain_step(struct loop_timer *t)
{
	struct role *r = container_of(t, struct role, drain_timer);

	if (devices_busy(r) && loop_now_ns() < r->drain_until_ns)
		loop_timer_set(r->loop, t, loop_now_ns() + DRAIN_STEP_NS);
	else
		loop_stop(r->loop);
}

/*
 * Lets operations under way finish, so that their memory can go. False: some disk or so never
 * answered.
 */
static bool drain(struct role *r)
{
	for (unsigned i = 0; i < r->nattached; i++)
		virtio_stop(r->dev[i]);
	role_ctl_stop(&r->ctl);
	loop_cancel(r->loop, &r->event_op);
	loop_cancel(r->loop, &r->probe_op);
	r->drain_timer.fire = drain_step;
	r->drain_until_ns = loop_now_ns() + DRAIN_LIMIT_NS;
	loop_timer_set(r->loop, &r->drain_timer, loop_now_ns());
	return !loop_run(r->loop) && !devices_busy(r);
}

static void destroy(struct role *r)
{
	for (unsigned i = 0; i < r->nattached; i++)
		virtio_destroy(r->dev[i]);
	uart_destroy(r->uart);
	vm_destroy(r->vm);
	loop_destroy(r->loop);
	gmem_destroy(r->mem);
}

static int run(struct role *r)
{
	char detail[sizeof(((struct ctl_exit *)0)->detail)];
	enum vm_exit why;
	int err;

	vm_release(r->vm);
	err = loop_run(r->loop);
	if (err) {
		snprintf(detail, sizeof(detail), "event loop: %s", strerror(-err));
		vm_stop(r->vm, VM_EXIT_CRASH, detail);
	}
	vm_join(r->vm);
	uart_flush(r->uart);
	why = vm_exit_reason(r->vm, detail, sizeof(detail));
	tell_exit(r, why, detail);
	role_ctl_hang_up(&r->ctl);
	if (!err && drain(r))
		destroy(r);
	return 0;
}

/* A start that failed half-way: what waits in the loop must end there. */
static void abandon(struct role *r)
{
	if (r->loop && !r->loop_started)
		r->loop_started = !loop_start(r->loop, true, NULL);
	if (!r->loop || (r->loop_started && drain(r)))
		destroy(r);
}

/* ---- main ---- */

static void raise_file_limit(void)
{
	struct rlimit lim;

	if (!getrlimit(RLIMIT_NOFILE, &lim) && lim.rlim_cur < lim.rlim_max) {
		lim.rlim_cur = lim.rlim_max;
		(void)setrlimit(
			RLIMIT_NOFILE, &lim); /* then fewer connections are possible at once */
	}
}

static int start(struct role *r, const char *confine_arg, uint64_t exec_ns, struct error *e)
{
	int err;

	r->ctl.message = supervisor_says;
	r->ctl.lost = supervisor_lost;
	role_ctl_init(&r->ctl, ROLE_FD_CTL);
	err = confine_enter(confine_arg, &r->level, e);
	if (!err)
		err = vmm_config_read(ROLE_FD_CONFIG, &r->cfg, e);
	if (!err)
		err = check_level(r, e);
	if (err)
		return err;
	tell_phase(r, PHASE_EXEC, exec_ns);
	err = build(r, e);
	if (err)
		return err;
	tell_phase(r, PHASE_KVM_READY, loop_now_ns());
	err = lock_down(r, e);
	if (!err)
		tell_phase(r, PHASE_CONFINED, loop_now_ns());
	return err;
}

/* To the supervisor, who shows it; where there is none, to the log. */
static void report_failure(struct role *r, const struct error *e)
{
	struct ctl_exit x = { .why = VM_EXIT_NONE };

	snprintf(x.detail, sizeof(x.detail), "%s", e->msg);
	if (r->ctl.fd < 0 || ctl_send(r->ctl.fd, CTL_EXIT, &x, sizeof(x), NULL, 0))
		log_error("%s", e->msg);
	else
		role_ctl_hang_up(&r->ctl);
}

int vmm_main(int argc, char **argv)
{
	uint64_t exec_ns = loop_now_ns();
	struct role *r = calloc(1, sizeof(*r));
	struct error e = { 0 };
	char prefix[96];
	int status;

	snprintf(prefix, sizeof(prefix), "skerry: sandbox '%s'", argc > 1 ? argv[1] : "");
	log_init(prefix, LOG_INFO);
	signal(SIGPIPE, SIG_IGN);
	raise_file_limit();
	if (!r) {
		log_error("out of memory");
		return 1;
	}
	if (!start(r, argc > 2 ? argv[2] : NULL, exec_ns, &e)) {
		status = run(r);
	} else {
		report_failure(r, &e);
		abandon(r);
		status = 1;
	}
	free(r);
	return status;
}

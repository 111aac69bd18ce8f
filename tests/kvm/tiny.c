#include "tests/kvm/tiny.h"

#include <fcntl.h>

#include "tests/lib/elf_image.h"
#include "vmm/power.h"

static int open_kvm(void)
{
	int fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);

	if (fd < 0 && (errno == ENOENT || errno == ENODEV || errno == ENXIO))
		SKIP("no /dev/kvm");
	REQUIRE(fd >= 0);
	return fd;
}

#define MUST(call)                                                                                 \
	do {                                                                                       \
		struct error e = { 0 };                                                            \
		if ((call) < 0) {                                                                  \
			fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, e.msg);                 \
			exit(1);                                                                   \
		}                                                                                  \
	} while (0)

void tiny_create(struct tiny *t, unsigned cpus)
{
	int kvm = open_kvm(), irq;

	memset(t, 0, sizeof(*t));
	MUST(loop_create(&t->loop, 32, &e));
	MUST(gmem_create(&t->mem, GMEM_MIN, &e));
	MUST(vm_create(&t->vm, kvm, cpus, t->mem, &e));
	close(kvm);
	REQUIRE(!pipe2(t->console, O_CLOEXEC | O_NONBLOCK));
	MUST(irq = vm_irqfd(t->vm, VM_GSI_UART, &e));
	MUST(uart_create(&t->uart, t->loop, t->console[1], irq, &e));
	MUST(uart_attach(t->uart, vm_bus(t->vm), &e));
	MUST(power_attach(t->vm, &e));
	loop_set_lock(t->loop, bus_lock(vm_bus(t->vm)));
	t->event_slot = loop_add_fd(t->loop, vm_event_fd(t->vm));
	REQUIRE(t->event_slot >= 0);
}

void tiny_load(struct tiny *t, const uint8_t *code, const uint8_t *end, enum tiny_boot boot)
{
	struct elf_image *img = malloc(sizeof(*img));
	struct arch_entry entry;
	struct arch_boot b = { .cmdline = "tiny", .cpus = 1 };

	REQUIRE(img);
	elf_image_fill(img, TINY_GPA, code, (size_t)(end - code), boot == TINY_PVH);
	b.kernel_fd = elf_image_memfd(img, sizeof(*img));
	MUST(arch_load(t->mem, &b, &entry, &e));
	CHECK_EQ(entry.kind, boot == TINY_PVH ? ARCH_ENTRY_PVH : ARCH_ENTRY_LINUX64);
	MUST(arch_boot_vcpu(vm_vcpu_fd(t->vm, 0), &entry, &e));
	close(b.kernel_fd);
	free(img);
}

static void event_arm(struct tiny *t)
{
	loop_read(t->loop, &t->event_op, t->event_slot, &t->event_value, 8, LOOP_OFF_NONE);
}

static void event_done(struct loop_op *op, int res)
{
	struct tiny *t = container_of(op, struct tiny, event_op);

	CHECK_EQ(res, 8);
	if (vm_exit_reason(t->vm, NULL, 0) != VM_EXIT_NONE)
		loop_stop(t->loop);
	else
		event_arm(t);
}

static void deadline_fire(struct loop_timer *timer)
{
	struct tiny *t = container_of(timer, struct tiny, deadline);

	t->timed_out = true;
	vm_stop(t->vm, VM_EXIT_STOPPED, "deadline");
}

enum vm_exit tiny_run(struct tiny *t, unsigned seconds)
{
	ssize_t n;

	MUST(loop_start(t->loop, false, &e));
	t->event_op.done = event_done;
	event_arm(t);
	if (t->started)
		t->started(t->started_ctx);
	t->deadline.fire = deadline_fire;
	loop_timer_set(t->loop, &t->deadline, loop_now_ns() + seconds * NSEC_PER_SEC);
	MUST(vm_start(t->vm, NULL, &e));
	CHECK_EQ(vm_first_run_ns(t->vm), 0);
	vm_release(t->vm);
	CHECK_EQ(loop_run(t->loop), 0);
	vm_join(t->vm);
	CHECK(vm_first_run_ns(t->vm) > 0 && vm_first_run_ns(t->vm) <= loop_now_ns());
	uart_flush(t->uart);
	n = read(t->console[0], t->out, sizeof(t->out) - 1);
	t->out_len = n > 0 ? (size_t)n : 0;
	t->out[t->out_len] = 0;
	return vm_exit_reason(t->vm, t->detail, sizeof(t->detail));
}

void tiny_destroy(struct tiny *t)
{
	loop_timer_clear(t->loop, &t->deadline);
	uart_destroy(t->uart);
	loop_destroy(t->loop);
	vm_destroy(t->vm);
	gmem_destroy(t->mem);
	close(t->console[0]);
	close(t->console[1]);
}

/*
 * A guest of a few instructions per exit that the VMM handles: console, MMIO, interrupts, ways to
 * end.
 */
#include <pthread.h>

#include "tests/kvm/tiny.h"

/* ---- entry and console ---- */

TINY_GUEST(hello64, 64,
	"lea 1f(%rip), %rsi\n mov $5, %ecx\n mov $0x3f8, %edx\n cld\n rep outsb\n jmp 2f\n"
	"1: .ascii \"hello\"\n2:\n" TINY_POWEROFF);

TINY_GUEST(hello32, 32,
	"cmpl $0x336ec578, (%ebx)\n jne 3f\n"                    /* start info */
	"mov 24(%ebx), %esi\n mov $4, %ecx\n mov $0x3f8, %edx\n" /* its command line: "tiny" */
	"cld\n rep outsb\n"
	"3:\n" TINY_POWEROFF);

/* The zero page that rsi names: print its command line. */
TINY_GUEST(zeropage, 64,
	"cmpl $0x53726448, 0x202(%rsi)\n jne 3f\n"
	"mov 0x228(%rsi), %esi\n mov $4, %ecx\n mov $0x3f8, %edx\n cld\n rep outsb\n"
	"3:\n" TINY_POWEROFF);

static void run_and_expect(const uint8_t *code, const uint8_t *end, enum tiny_boot boot,
	enum vm_exit why, const char *out)
{
	struct tiny t;
	enum vm_exit got;

	tiny_create(&t, 1);
	tiny_load(&t, code, end, boot);
	got = tiny_run(&t, 20);
	if (got != why)
		fprintf(stderr, "exit %d, detail: %s\n", got, t.detail);
	CHECK_EQ(got, why);
	CHECK_STR(t.out, out);
	tiny_destroy(&t);
}

static void entries(void)
{
	run_and_expect(hello64, hello64_end, TINY_LINUX64, VM_EXIT_POWEROFF, "hello");
	run_and_expect(zeropage, zeropage_end, TINY_LINUX64, VM_EXIT_POWEROFF, "tiny");
	run_and_expect(hello32, hello32_end, TINY_PVH, VM_EXIT_POWEROFF, "tiny");
}

/* ---- ways to end ---- */

/* SLP_EN with another sleep type, and S5 without SLP_EN, change nothing. */
TINY_GUEST(sleep_other, 64,
	"mov $0x600, %edx\n mov $0x24, %al\n outb %al, %dx\n mov $0x14, %al\n outb %al, %dx\n"
	"mov $'n', %al\n" TINY_PUTC TINY_POWEROFF);
TINY_GUEST(reset_register, 64, "mov $0x602, %edx\n mov $0x42, %al\n outb %al, %dx\n1: jmp 1b\n");
TINY_GUEST(reset_keyboard, 64, "mov $0xfe, %al\n outb %al, $0x64\n1: jmp 1b\n");
TINY_GUEST(triple_fault, 64, "push $0\n push $0\n lidt (%rsp)\n ud2\n");
TINY_GUEST(triple_fault32, 32, "ud2\n");
/* Fetch from an address where there is no memory. */
TINY_GUEST(lost, 64, "mov $0xd0000000, %eax\n jmp *%rax\n");
TINY_GUEST(spin, 64, "1: jmp 1b\n");
TINY_GUEST(halt, 64, "1: hlt\n jmp 1b\n");

static void ends(void)
{
	run_and_expect(sleep_other, sleep_other_end, TINY_LINUX64, VM_EXIT_POWEROFF, "n");
	run_and_expect(reset_register, reset_register_end, TINY_LINUX64, VM_EXIT_RESET, "");
	run_and_expect(reset_keyboard, reset_keyboard_end, TINY_LINUX64, VM_EXIT_RESET, "");
	run_and_expect(triple_fault, triple_fault_end, TINY_LINUX64, VM_EXIT_TRIPLE_FAULT, "");
	run_and_expect(triple_fault32, triple_fault32_end, TINY_PVH, VM_EXIT_TRIPLE_FAULT, "");
}

static void crash(void)
{
	struct tiny t;

	tiny_create(&t, 1);
	tiny_load(&t, lost, lost_end, TINY_LINUX64);
	CHECK_EQ(tiny_run(&t, 20), VM_EXIT_CRASH);
	CHECK(strstr(t.detail, "vCPU 0 at rip 0xd0000000: KVM can't emulate the instruction"));
	tiny_destroy(&t);
}

struct stopper {
	struct vm *vm;
	pthread_t thread;
};

static void *stopper_main(void *arg)
{
	struct stopper *s = arg;

	while (!vm_first_run_ns(s->vm))
		usleep(1000);
	usleep(20000);
	vm_stop(s->vm, VM_EXIT_STOPPED, "asked");
	vm_stop(s->vm, VM_EXIT_CRASH, "too late: the first reason wins");
	return NULL;
}

/*
 * From another thread: a guest that spins, that sleeps, and vCPUs that never got their start-up
 * IPI.
 */
static void stops(void)
{
	for (unsigned i = 0; i < 4; i++) {
		struct stopper s;
		struct tiny t;

		tiny_create(&t, i & 1 ? 3 : 1);
		if (i & 2)
			tiny_load(&t, spin, spin_end, TINY_LINUX64);
		else
			tiny_load(&t, halt, halt_end, TINY_LINUX64);
		s.vm = t.vm;
		REQUIRE(!pthread_create(&s.thread, NULL, stopper_main, &s));
		CHECK_EQ(tiny_run(&t, 20), VM_EXIT_STOPPED);
		CHECK(!t.timed_out);
		CHECK_STR(t.detail, "asked");
		pthread_join(s.thread, NULL);
		tiny_destroy(&t);
	}
}

/*
 * A machine that is never released, and one whose threads can't be confined, run no guest
 * instruction.
 */
static int refuse(struct error *e)
{
	return error_set(e, EPERM, "no confinement for you");
}

static void not_released(void)
{
	struct error e = { 0 };
	struct tiny t;

	tiny_create(&t, 2);
	tiny_load(&t, hello64, hello64_end, TINY_LINUX64);
	CHECK_EQ(vm_start(t.vm, NULL, &e), 0);
	vm_stop(t.vm, VM_EXIT_STOPPED, "");
	vm_join(t.vm);
	CHECK_EQ(vm_first_run_ns(t.vm), 0);
	tiny_destroy(&t);

	tiny_create(&t, 2);
	tiny_load(&t, hello64, hello64_end, TINY_LINUX64);
	CHECK_EQ(vm_start(t.vm, refuse, &e), -EPERM);
	CHECK_STR(e.msg, "no confinement for you");
	vm_release(t.vm);
	CHECK_EQ(vm_first_run_ns(t.vm), 0);
	tiny_destroy(&t);
}

/* ---- MMIO and ports ---- */

struct scratch {
	uint32_t value;
	unsigned reads, writes;
};

static void scratch_read(void *ctx, uint64_t off, void *data, unsigned len)
{
	struct scratch *s = ctx;
	uint64_t v = s->value + off;

	s->reads++;
	memcpy(data, &v, len);
}

static void scratch_write(void *ctx, uint64_t off, const void *data, unsigned len)
{
	struct scratch *s = ctx;

	s->writes++;
	CHECK_EQ(off, 8);
	memcpy(&s->value, data, MIN(len, 4u));
}

static const struct bus_ops scratch_ops = { .read = scratch_read, .write = scratch_write };

/*
 * Doubles what it reads at +4, writes it to +8; then checks that an absent device and port read as
 * ones.
 */
TINY_GUEST(mmio, 64,
	"mov $0xd0000000, %ebx\n mov 4(%rbx), %eax\n add %eax, %eax\n mov %eax, 8(%rbx)\n"
	"mov $0xd0100000, %ebx\n mov (%rbx), %eax\n cmp $0xffffffff, %eax\n jne 2f\n"
	"mov $0x1f0, %edx\n inw %dx, %ax\n cmp $0xffff, %ax\n jne 2f\n"
	"inb $0x71, %al\n test %al, %al\n jne 2f\n"
	"mov $'y', %al\n" TINY_PUTC "2:\n" TINY_POWEROFF);

static void memory_mapped(void)
{
	struct scratch s = { .value = 1000 };
	struct tiny t;

	tiny_create(&t, 1);
	CHECK_EQ(bus_add(vm_bus(t.vm), BUS_MMIO, 0xd0000000, 0x1000, &scratch_ops, &s), 0);
	tiny_load(&t, mmio, mmio_end, TINY_LINUX64);
	CHECK_EQ(tiny_run(&t, 20), VM_EXIT_POWEROFF);
	CHECK_EQ(s.value, 2008);
	CHECK(s.reads == 1 && s.writes == 1);
	CHECK_STR(t.out, "y");
	tiny_destroy(&t);
}

int main(void)
{
	entries();
	ends();
	crash();
	stops();
	not_released();
	memory_mapped();
	TEST_END();
}

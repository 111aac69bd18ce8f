/*
 * Interrupts by irqfd, kicks by ioeventfd, the silent 8259, the UART's transmit interrupt, start-up
 * IPIs, CPUID.
 */
#include "tests/kvm/tiny.h"

/*
 * A stack, an IDT at 0x30000 whose vector 0x30 is label "isr", and an enabled local APIC at %rdi.
 */
#define SETUP                                                                                      \
	"mov $0x80000, %esp\n mov $0x30000, %ebx\n lea isr_\\@(%rip), %rax\n"                      \
	"mov %ax, 0x300(%rbx)\n movw $0x10, 0x302(%rbx)\n movw $0x8e00, 0x304(%rbx)\n"             \
	"shr $16, %rax\n mov %ax, 0x306(%rbx)\n shr $16, %rax\n mov %eax, 0x308(%rbx)\n"           \
	"movw $0xfff, 0x1000(%rbx)\n mov %rbx, 0x1002(%rbx)\n lidt 0x1000(%rbx)\n"                 \
	"mov $0xfee00000, %edi\n movl $0x1ff, 0xf0(%rdi)\n movl $0, 0x80(%rdi)\n"
/* I/O APIC pin -> vector 0x30 on CPU 0, edge */
#define ROUTE(pin)                                                                                 \
	"mov $0xfec00000, %esi\n movl $(0x10 + 2 * " #pin "), (%rsi)\n movl $0x30, 0x10(%rsi)\n"   \
	"movl $(0x11 + 2 * " #pin "), (%rsi)\n movl $0, 0x10(%rsi)\n"
#define EOI "movl $0, 0xb0(%rdi)\n"
/* The assembler's \@ is only unique inside a macro: each guest is one. */
#define UNIQUE(text) ".macro guest_body\n" text ".endm\nguest_body\n.purgem guest_body\n"

#define BELL 0xd0000050 /* where virtio-mmio has its QueueNotify */

struct bell {
	struct tiny *t;
	int bell_fd, irq_fd, slot;
	struct loop_op op;
	struct loop_timer later;
	uint64_t value;
	unsigned rung;
	void (*answer)(struct bell *b);
};

static void bell_arm(struct bell *b)
{
	loop_read(b->t->loop, &b->op, b->slot, &b->value, 8, LOOP_OFF_NONE);
}

static void bell_done(struct loop_op *op, int res)
{
	struct bell *b = container_of(op, struct bell, op);

	CHECK_EQ(res, 8);
	b->rung++;
	b->answer(b);
	bell_arm(b);
}

static void raise_irq(struct bell *b)
{
	uint64_t one = 1;

	CHECK_EQ(write(b->irq_fd, &one, 8), 8);
}

static void bell_create(struct bell *b, struct tiny *t, void (*answer)(struct bell *b))
{
	struct error e = { 0 };

	memset(b, 0, sizeof(*b));
	b->t = t;
	b->answer = answer;
	b->op.done = bell_done;
	b->irq_fd = vm_irqfd(t->vm, VM_GSI_FIRST, &e);
	b->bell_fd = vm_ioeventfd(t->vm, BELL, 3, &e);
	REQUIRE(b->irq_fd >= 0 && b->bell_fd >= 0);
	b->slot = loop_add_fd(t->loop, b->bell_fd);
	REQUIRE(b->slot >= 0);
}

static void bell_destroy(struct bell *b)
{
	close(b->irq_fd);
	close(b->bell_fd);
}

static void bell_started(void *ctx)
{
	bell_arm(ctx);
}

static void bell_run(struct bell *b, const uint8_t *code, const uint8_t *end, const char *out)
{
	tiny_load(b->t, code, end, TINY_LINUX64);
	b->t->started = bell_started;
	b->t->started_ctx = b;
	CHECK_EQ(tiny_run(b->t, 20), VM_EXIT_POWEROFF);
	CHECK_STR(b->t->out, out);
}

/*
 * Rings with the wrong value (nobody hears), then with the right one; each interrupt prints and
 * rings again.
 */
TINY_GUEST(irq, 64,
	UNIQUE(SETUP ROUTE(5) "mov $0xd0000050, %ebp\n xor %r8d, %r8d\n sti\n"
			      "movl $2, (%rbp)\n movl $3, (%rbp)\n"
			      "1: hlt\n cmp $5, %r8d\n jb 1b\n" TINY_POWEROFF
			      "isr_\\@: push %rax\n push %rdx\n mov $'I', %al\n" TINY_PUTC
			      "pop %rdx\n pop %rax\n"
			      "inc %r8d\n" EOI "movl $3, (%rbp)\n iretq\n"));

static void interrupts(void)
{
	struct tiny t;
	struct bell b;

	tiny_create(&t, 1);
	bell_create(&b, &t, raise_irq);
	bell_run(&b, irq, irq_end, "IIIII");
	CHECK(b.rung >= 5 && b.rung <= 6);
	bell_destroy(&b);
	tiny_destroy(&t);
}

/*
 * Interrupts enabled, LINT0 as after reset (ExtINT), I/O APIC pin masked: a device line must reach
 * no CPU.
 */
TINY_GUEST(quiet, 64,
	UNIQUE(SETUP "movl $0x700, 0x350(%rdi)\n mov $0xd0000050, %ebp\n sti\n movl $3, (%rbp)\n"
		     "1: pause\n cmpb $1, 0x32000\n jne 1b\n"
		     "mov $'q', %al\n" TINY_PUTC TINY_POWEROFF
		     "isr_\\@: mov $'X', %al\n" TINY_PUTC TINY_POWEROFF));

static void let_go(struct loop_timer *timer)
{
	struct bell *b = container_of(timer, struct bell, later);

	*(volatile uint8_t *)gmem_map(b->t->mem, 0x32000, 1) = 1;
}

static void raise_and_wait(struct bell *b)
{
	raise_irq(b);
	b->later.fire = let_go;
	loop_timer_set(b->t->loop, &b->later, loop_now_ns() + 50 * NSEC_PER_MSEC);
}

static void silent_8259(void)
{
	struct tiny t;
	struct bell b;

	tiny_create(&t, 1);
	bell_create(&b, &t, raise_and_wait);
	bell_run(&b, quiet, quiet_end, "q");
	bell_destroy(&b);
	tiny_destroy(&t);
}

/* Sends "abcdefgh" from the transmit interrupt only, one byte for each. */
TINY_GUEST(uart_irq, 64,
	UNIQUE(SETUP ROUTE(
		4) "xor %r8d, %r8d\n sti\n mov $0x3f9, %edx\n mov $2, %al\n outb %al, %dx\n"
		   "1: hlt\n cmp $8, %r8d\n jb 1b\n" TINY_POWEROFF
		   "isr_\\@: push %rax\n push %rdx\n mov $0x3fa, %edx\n inb %dx, %al\n"
		   "and $0xf, %al\n cmp $2, %al\n jne 2f\n"
		   "cmp $8, %r8d\n jae 2f\n mov $'a', %al\n add %r8b, %al\n inc %r8d\n" TINY_PUTC
		   "2: pop %rdx\n pop %rax\n" EOI "iretq\n"));

static void uart_interrupt(void)
{
	struct tiny t;

	tiny_create(&t, 1);
	tiny_load(&t, uart_irq, uart_irq_end, TINY_LINUX64);
	CHECK_EQ(tiny_run(&t, 20), VM_EXIT_POWEROFF);
	CHECK_STR(t.out, "abcdefgh");
	tiny_destroy(&t);
}

/*
 * Start-up IPI to all others; real-mode code at 0x8000 counts in [0x6000] and notes the APIC id
 * that CPUID leaf 1 says at [0x6100 + id], as the boot CPU does.
 */
TINY_GUEST(sipi, 64,
	"mov $0xfee00000, %edi\n movl $0x1ff, 0xf0(%rdi)\n"
	"lea 3f(%rip), %rsi\n mov $0x8000, %edi\n mov $(4f - 3f), %ecx\n cld\n rep movsb\n"
	"mov $1, %eax\n cpuid\n shr $24, %ebx\n movb $1, 0x6100(%rbx)\n"
	"mov $0xfee00000, %edi\n movl $0xc4500, 0x300(%rdi)\n"
	"mov $10000, %ecx\n 1: pause\n loop 1b\n movl $0xc4608, 0x300(%rdi)\n"
	"2: pause\n cmpb $3, 0x6000\n jne 2b\n mov $'B', %al\n" TINY_PUTC TINY_POWEROFF ".code16\n"
	"3: xor %ax, %ax\n mov %ax, %ds\n mov $1, %eax\n cpuid\n shr $24, %ebx\n"
	"movb $1, 0x6100(%bx)\n lock incb 0x6000\n 5: hlt\n jmp 5b\n"
	"4: .code64\n");

static void processors(void)
{
	const uint8_t *ids;
	struct tiny t;

	tiny_create(&t, 4);
	tiny_load(&t, sipi, sipi_end, TINY_LINUX64);
	CHECK_EQ(tiny_run(&t, 30), VM_EXIT_POWEROFF);
	CHECK_STR(t.out, "B");
	ids = gmem_map(t.mem, 0x6100, 256);
	REQUIRE(ids);
	for (unsigned i = 0; i < 256; i++)
		CHECK_EQ(ids[i], i < 4);
	tiny_destroy(&t);
}

/* The other CPU, in real mode, jumps where a BIOS would be. */
TINY_GUEST(bios, 64,
	"lea 3f(%rip), %rsi\n mov $0x8000, %edi\n mov $(4f - 3f), %ecx\n cld\n rep movsb\n"
	"mov $0xfee00000, %edi\n movl $0x1ff, 0xf0(%rdi)\n movl $0xc4500, 0x300(%rdi)\n"
	"mov $10000, %ecx\n 1: pause\n loop 1b\n movl $0xc4608, 0x300(%rdi)\n"
	"2: pause\n jmp 2b\n"
	".code16\n 3: ljmp $0xf000, $0xfff0\n 4: .code64\n");

static void reset_entry(void)
{
	struct tiny t;

	tiny_create(&t, 2);
	tiny_load(&t, bios, bios_end, TINY_LINUX64);
	CHECK_EQ(tiny_run(&t, 30), VM_EXIT_RESET);
	CHECK_STR(t.detail, "reset register");
	tiny_destroy(&t);
}

int main(void)
{
	interrupts();
	silent_8259();
	uart_interrupt();
	processors();
	reset_entry();
	TEST_END();
}

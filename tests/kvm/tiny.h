/*
 * tests/kvm/tiny.h - a machine for guests of a few instructions
 *
 * A guest is assembler in the test's own source (TINY_GUEST), loaded as an ELF kernel at TINY_GPA
 * through the real loader and run on the real vCPU threads, bus, UART, power registers and loop.
 */
#pragma once

#include "base/loop.h"
#include "tests/lib/test.h"
#include "vmm/arch.h"
#include "vmm/uart.h"
#include "vmm/vm.h"

#define TINY_GPA UINT64_C(0x100000)

/* Bytes of code between the labels NAME and NAME_end; position-independent. */
#define TINY_GUEST(name, bits, text)                                                               \
	__asm__(".pushsection .rodata\n.code" #bits "\n" #name ":\n" text "\n" #name               \
		"_end:\n.byte 0\n.code64\n.popsection\n");                                         \
	extern const uint8_t name[], name##_end[]

/* print the byte in %al */
#define TINY_PUTC     "movw $0x3f8, %dx\noutb %al, %dx\n"
#define TINY_POWEROFF "movw $0x600, %dx\nmovb $0x34, %al\noutb %al, %dx\n1: hlt\njmp 1b\n"

struct tiny {
	struct gmem *mem;
	struct vm *vm;
	struct loop *loop;
	struct uart *uart;
	int console[2];
	char out[4096]; /* what the guest printed */
	size_t out_len;
	char detail[256];
	struct loop_op event_op;
	struct loop_timer deadline;
	int event_slot;
	uint64_t event_value;
	bool timed_out;
	void (*started)(void *ctx); /* called once the loop takes operations; may be NULL */
	void *started_ctx;
};

enum tiny_boot { TINY_LINUX64, TINY_PVH };

/* Skips the test where /dev/kvm is missing. */
void tiny_create(struct tiny *t, unsigned cpus);
void tiny_load(struct tiny *t, const uint8_t *code, const uint8_t *end, enum tiny_boot boot);
/* Runs until the machine stops, at most @seconds; t->timed_out says so. */
enum vm_exit tiny_run(struct tiny *t, unsigned seconds);
void tiny_destroy(struct tiny *t);

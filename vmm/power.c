#include "vmm/power.h"

#include <string.h>

#define SLP_EN         (1 << 5)
#define SLP_TYP(value) ((value) >> 2 & 7)

#define PORT_KBD_CMD 0x64
#define PORT_CMOS    0x70

static void read_zero(void *ctx unused_arg, uint64_t off unused_arg, void *data, unsigned len)
{
	memset(data, 0, len);
}

static void write_nothing(void *ctx unused_arg, uint64_t off unused_arg,
	const void *data unused_arg, unsigned len unused_arg)
{
}

static void power_write(void *ctx, uint64_t off, const void *data, unsigned len)
{
	const uint8_t *byte = data;

	for (unsigned i = 0; i < len; i++) {
		uint64_t port = POWER_PORT + off + i;

		if (port == POWER_SLEEP_CTL && byte[i] & SLP_EN &&
			SLP_TYP(byte[i]) == POWER_S5_TYPE)
			vm_stop(ctx, VM_EXIT_POWEROFF, "");
		else if (port == POWER_RESET && byte[i] == POWER_RESET_VALUE)
			vm_stop(ctx, VM_EXIT_RESET, "reset register");
	}
}

/*
 * Commands 0xf0..0xff pulse the output lines whose bits are zero; bit 0 is the processor's reset.
 */
static void keyboard_write(
	void *ctx, uint64_t off unused_arg, const void *data, unsigned len unused_arg)
{
	uint8_t cmd = *(const uint8_t *)data;

	if ((cmd & 0xf1) == 0xf0)
		vm_stop(ctx, VM_EXIT_RESET, "keyboard controller");
}

static const struct bus_ops power_ops = {
	.read = read_zero, .write = power_write, .lockfree = true
};
static const struct bus_ops keyboard_ops = {
	.read = read_zero, .write = keyboard_write, .lockfree = true
};
/* An absent CMOS would read as ones: an update that never ends. */
static const struct bus_ops cmos_ops = {
	.read = read_zero, .write = write_nothing, .lockfree = true
};

int power_attach(struct vm *vm, struct error *e)
{
	struct bus *b = vm_bus(vm);
	int r = bus_add(b, BUS_PIO, POWER_PORT, POWER_PORTS, &power_ops, vm);

	if (!r)
		r = bus_add(b, BUS_PIO, PORT_KBD_CMD, 1, &keyboard_ops, vm);
	if (!r)
		r = bus_add(b, BUS_PIO, PORT_CMOS, 2, &cmos_ops, vm);
	return r ? error_set(e, -r, "power registers: %s", strerror(-r)) : 0;
}

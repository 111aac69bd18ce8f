/*
 * vmm/power.h - how a guest ends its machine
 *
 * What:    the sleep and reset registers of hardware-reduced ACPI, and what older reboot paths of a
 *          guest try: the keyboard controller's reset line. CMOS reads as zero.
 * Spec:    ACPI 6.5, 4.8.3.6 (reset register), 4.8.3.7 (sleep control and status)
 */
#pragma once

#include "vmm/vm.h"

#define POWER_PORT         0x600
#define POWER_PORTS        3
#define POWER_SLEEP_CTL    (POWER_PORT + 0)
#define POWER_SLEEP_STATUS (POWER_PORT + 1)
#define POWER_RESET        (POWER_PORT + 2)
#define POWER_RESET_VALUE  0x42
#define POWER_S5_TYPE      5 /* SLP_TYP of S5, as \_S5 says */

int power_attach(struct vm *vm, struct error *e) must_check;

/*
 * vmm/x86/acpi.h - hardware-reduced ACPI tables: processors, interrupts, power, devices
 *
 * What:    RSDP -> XSDT -> FADT -> DSDT, MADT. No FACS, no PM timer, no legacy hardware. The DSDT
 *          names the UART (PNP0501), each virtio-mmio window in use (LNRO0005) and \_S5.
 * Spec:    ACPI 6.5, 5.2.5 (RSDP), 5.2.8 (XSDT), 5.2.9 (FADT), 5.2.12 (MADT), 3.11.1
 *          (hardware-reduced)
 */
#pragma once

#include "base/error.h"

struct acpi_config {
	unsigned cpus;   /* 1..VM_CPUS_MAX; APIC ids 0..cpus - 1, as CPUID says */
	unsigned nslots; /* 0..VM_VIRTIO_SLOTS */
};

#define ACPI_SIZE_MAX 8192

/**
 * acpi_build() - Write the tables; the RSDP is at the very beginning
 * @gpa: where @buf will be seen by the guest; 16-byte aligned, below 4 GiB
 *
 * Return: bytes used; 0 if @size is too small, which ACPI_SIZE_MAX never is.
 */
size_t acpi_build(void *buf, size_t size, uint64_t gpa, const struct acpi_config *c);

#include "vmm/x86/acpi.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

#include "vmm/power.h"
#include "vmm/uart.h"
#include "vmm/vm.h"
#include "vmm/x86/aml.h"
#include "vmm/x86/layout.h"

#define OEM_ID       "SKERRY"
#define OEM_TABLE_ID "SKERRYVM"
#define CREATOR_ID   "SKRY"

struct rsdp {
	char signature[8];
	uint8_t checksum; /* of the first 20 bytes */
	char oem_id[6];
	uint8_t revision;
	uint32_t rsdt;
	uint32_t length;
	uint64_t xsdt;
	uint8_t extended_checksum; /* of all */
	uint8_t zero[3];
} __attribute__((packed));

struct header {
	char signature[4];
	uint32_t length;
	uint8_t revision;
	uint8_t checksum;
	char oem_id[6];
	char oem_table_id[8];
	uint32_t oem_revision;
	char creator_id[4];
	uint32_t creator_revision;
} __attribute__((packed));

struct address {
	uint8_t space; /* 1: system I/O */
	uint8_t bits;
	uint8_t bit_offset;
	uint8_t access; /* 1: byte */
	uint64_t addr;
} __attribute__((packed));

/* ACPI 6.5, table 5.9; what hardware-reduced machines leave zero isn't named. */
struct fadt {
	struct header head;
	uint32_t facs;
	uint32_t dsdt;
	uint8_t zero1;
	uint8_t pm_profile;
	uint8_t zero2[63];
	uint16_t boot_arch; /* offset 109 */
	uint8_t zero3;
	uint32_t flags;
	struct address reset_reg;
	uint8_t reset_value;
	uint16_t arm_boot_arch;
	uint8_t minor_revision;
	uint64_t x_facs;
	uint64_t x_dsdt;
	uint8_t zero4[96];
	struct address sleep_control; /* offset 244 */
	struct address sleep_status;
	uint64_t hypervisor_id;
} __attribute__((packed));
_Static_assert(sizeof(struct fadt) == 276, "FADT of ACPI 6");
_Static_assert(offsetof(struct fadt, boot_arch) == 109, "ACPI 6.5, table 5.9");
_Static_assert(offsetof(struct fadt, sleep_control) == 244, "ACPI 6.5, table 5.9");

#define FADT_REVISION      6
#define FADT_MINOR         5
#define PROFILE_SERVER     4 /* enterprise server: no sleep button, no battery */
#define BOOT_NO_VGA        (1 << 2)
#define BOOT_NO_ASPM       (1 << 4)
#define BOOT_NO_RTC        (1 << 5)
#define FADT_WBINVD        (1 << 0)
#define FADT_PWR_BUTTON    (1 << 4) /* none of the fixed kind */
#define FADT_SLP_BUTTON    (1 << 5) /* dto. */
#define FADT_RESET_REG_SUP (1 << 10)
#define FADT_HW_REDUCED    (1 << 20)

struct madt_lapic {
	uint8_t type, length; /* 0, 8 */
	uint8_t uid, apic_id;
	uint32_t flags;
} __attribute__((packed));

struct madt_ioapic {
	uint8_t type, length; /* 1, 12 */
	uint8_t id, zero;
	uint32_t addr, gsi_base;
} __attribute__((packed));

#define MADT_REVISION      5
#define MADT_LAPIC_ENABLED 1

/* Tables are laid one after the other, each on a 16-byte boundary. */
struct builder {
	uint8_t *buf;
	size_t len, cap;
	uint64_t gpa;
};

static uint8_t checksum(const void *data, size_t len)
{
	const uint8_t *p = data;
	uint8_t sum = 0;

	for (size_t i = 0; i < len; i++)
		sum = (uint8_t)(sum + p[i]);
	return (uint8_t)-sum;
}

static void *reserve(struct builder *b, size_t len)
{
	size_t start = ALIGN_UP(b->len, 16);

	if (start > b->cap || len > b->cap - start)
		return NULL;
	memset(b->buf + b->len, 0, start + len - b->len);
	b->len = start + len;
	return b->buf + start;
}

static uint64_t gpa_of(const struct builder *b, const void *p)
{
	return b->gpa + (uint64_t)((const uint8_t *)p - b->buf);
}

static void seal(void *table, size_t len, const char *signature, uint8_t revision)
{
	struct header *h = table;

	memcpy(h->signature, signature, sizeof(h->signature));
	h->length = (uint32_t)len;
	h->revision = revision;
	memcpy(h->oem_id, OEM_ID, sizeof(h->oem_id));
	memcpy(h->oem_table_id, OEM_TABLE_ID, sizeof(h->oem_table_id));
	h->oem_revision = 1;
	memcpy(h->creator_id, CREATOR_ID, sizeof(h->creator_id));
	h->creator_revision = 1;
	h->checksum = 0;
	h->checksum = checksum(table, len);
}

/* ---- DSDT ---- */

static void dsdt_uart(struct aml *a)
{
	size_t dev = aml_device(a, "COM1"), crs;

	aml_name_eisaid(a, "_HID", "PNP0501");
	aml_name_int(a, "_UID", 0);
	crs = aml_resources(a);
	aml_res_ports(a, UART_PORT, UART_PORTS);
	aml_res_interrupt(a, VM_GSI_UART);
	aml_resources_end(a, crs);
	aml_end(a, dev);
}

static void dsdt_virtio(struct aml *a, unsigned slot)
{
	char name[5];
	size_t dev, crs;

	snprintf(name, sizeof(name), "VR%02X", slot & 0xff);
	dev = aml_device(a, name);
	aml_name_string(a, "_HID", "LNRO0005");
	aml_name_int(a, "_UID", slot);
	crs = aml_resources(a);
	aml_res_memory(
		a, (uint32_t)(VM_VIRTIO_MMIO_BASE + slot * VM_VIRTIO_MMIO_LEN), VM_VIRTIO_MMIO_LEN);
	aml_res_interrupt(a, VM_GSI_FIRST + slot);
	aml_resources_end(a, crs);
	aml_end(a, dev);
}

static const void *build_dsdt(struct builder *b, const struct acpi_config *c)
{
	static const uint8_t s5[] = { POWER_S5_TYPE, 0, 0, 0 };
	struct header *h = reserve(b, sizeof(*h));
	struct aml a;
	size_t scope;

	if (!h)
		return NULL;
	aml_init(&a, b->buf + b->len, b->cap - b->len);
	aml_name_package(&a, "\\_S5_", s5, sizeof(s5));
	scope = aml_scope(&a, "\\_SB_");
	dsdt_uart(&a);
	for (unsigned slot = 0; slot < c->nslots; slot++)
		dsdt_virtio(&a, slot);
	aml_end(&a, scope);
	if (a.full)
		return NULL;
	b->len += a.len;
	seal(h, sizeof(*h) + a.len, "DSDT", 2);
	return h;
}

/* ---- fixed tables ---- */

static struct address io_byte(uint64_t port)
{
	return (struct address){ .space = 1, .bits = 8, .access = 1, .addr = port };
}

static const void *build_fadt(struct builder *b, uint64_t dsdt)
{
	struct fadt *f = reserve(b, sizeof(*f));

	if (!f)
		return NULL;
	f->dsdt = (uint32_t)dsdt;
	f->x_dsdt = dsdt;
	f->pm_profile = PROFILE_SERVER;
	f->boot_arch = BOOT_NO_VGA | BOOT_NO_ASPM | BOOT_NO_RTC;
	f->flags = FADT_WBINVD | FADT_PWR_BUTTON | FADT_SLP_BUTTON | FADT_RESET_REG_SUP |
		   FADT_HW_REDUCED;
	f->reset_reg = io_byte(POWER_RESET);
	f->reset_value = POWER_RESET_VALUE;
	f->minor_revision = FADT_MINOR;
	f->sleep_control = io_byte(POWER_SLEEP_CTL);
	f->sleep_status = io_byte(POWER_SLEEP_STATUS);
	seal(f, sizeof(*f), "FACP", FADT_REVISION);
	return f;
}

static const void *build_madt(struct builder *b, unsigned cpus)
{
	size_t len = sizeof(struct header) + 8 + cpus * sizeof(struct madt_lapic) +
		     sizeof(struct madt_ioapic);
	uint8_t *t = reserve(b, len), *p = t;
	const uint32_t lapic_addr = (uint32_t)X86_LAPIC;
	struct madt_ioapic ioapic = {
		.type = 1,
		.length = sizeof(ioapic),
		.addr = (uint32_t)X86_IOAPIC,
	};

	if (!t)
		return NULL;
	p += sizeof(struct header);
	memcpy(p, &lapic_addr, sizeof(lapic_addr));
	p += 8; /* flags: 0, no 8259 */
	for (unsigned i = 0; i < cpus; i++, p += sizeof(struct madt_lapic)) {
		struct madt_lapic lapic = {
			.type = 0,
			.length = sizeof(lapic),
			.uid = (uint8_t)i,
			.apic_id = (uint8_t)i,
			.flags = MADT_LAPIC_ENABLED,
		};

		memcpy(p, &lapic, sizeof(lapic));
	}
	memcpy(p, &ioapic, sizeof(ioapic));
	seal(t, len, "APIC", MADT_REVISION);
	return t;
}

static const void *build_xsdt(struct builder *b, const uint64_t *tables, unsigned n)
{
	size_t len = sizeof(struct header) + n * sizeof(*tables);
	uint8_t *t = reserve(b, len);

	if (!t)
		return NULL;
	memcpy(t + sizeof(struct header), tables, n * sizeof(*tables));
	seal(t, len, "XSDT", 1);
	return t;
}

static void fill_rsdp(struct rsdp *r, uint64_t xsdt)
{
	memcpy(r->signature, "RSD PTR ", sizeof(r->signature));
	memcpy(r->oem_id, OEM_ID, sizeof(r->oem_id));
	r->revision = 2;
	r->length = sizeof(*r);
	r->xsdt = xsdt;
	r->checksum = checksum(r, 20);
	r->extended_checksum = checksum(r, sizeof(*r));
}

size_t acpi_build(void *buf, size_t size, uint64_t gpa, const struct acpi_config *c)
{
	struct builder b = { .buf = buf, .cap = size, .gpa = gpa };
	struct rsdp *rsdp;
	const void *dsdt, *fadt, *madt, *xsdt;

	assert(c->cpus && c->cpus <= VM_CPUS_MAX && c->nslots <= VM_VIRTIO_SLOTS && gpa % 16 == 0);
	rsdp = reserve(&b, sizeof(*rsdp));
	dsdt = build_dsdt(&b, c);
	if (!rsdp || !dsdt)
		return 0;
	fadt = build_fadt(&b, gpa_of(&b, dsdt));
	madt = build_madt(&b, c->cpus);
	if (!fadt || !madt)
		return 0;
	xsdt = build_xsdt(&b, (uint64_t[]){ gpa_of(&b, fadt), gpa_of(&b, madt) }, 2);
	if (!xsdt)
		return 0;
	fill_rsdp(rsdp, gpa_of(&b, xsdt));
	return b.len;
}

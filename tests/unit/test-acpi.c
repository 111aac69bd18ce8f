/*
 * vmm/x86/acpi: every table by the specification's offsets, for every machine; and iasl's opinion.
 */
#include "vmm/x86/acpi.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/lib/test.h"
#include "vmm/power.h"
#include "vmm/vm.h"

#define GPA UINT64_C(0xe0000)

static uint8_t tables[ACPI_SIZE_MAX];
static size_t used;

static uint64_t get(const uint8_t *p, size_t off, unsigned bytes)
{
	uint64_t v = 0;

	memcpy(&v, p + off, bytes);
	return v;
}

static const uint8_t *at(uint64_t gpa, size_t len)
{
	REQUIRE(gpa >= GPA && gpa - GPA <= used && len <= used - (gpa - GPA));
	return tables + (gpa - GPA);
}

static unsigned sum(const uint8_t *p, size_t len)
{
	unsigned s = 0;

	while (len--)
		s += *p++;
	return s & 0xff;
}

/* ACPI 6.5, 5.2.6: signature, length, checksum */
static const uint8_t *table(uint64_t gpa, const char *signature, size_t *ret_len)
{
	const uint8_t *t = at(gpa, 36);

	*ret_len = get(t, 4, 4);
	at(gpa, *ret_len);
	CHECK(!memcmp(t, signature, 4));
	CHECK_EQ(sum(t, *ret_len), 0);
	CHECK(!memcmp(t + 10, "SKERRY", 6));
	return t;
}

/* 5.2.5.3, 5.2.8 */
static void find_tables(uint64_t *fadt, uint64_t *madt)
{
	const uint8_t *rsdp = at(GPA, 36), *xsdt;
	size_t len;

	CHECK(!memcmp(rsdp, "RSD PTR ", 8));
	CHECK_EQ(sum(rsdp, 20), 0);
	CHECK_EQ(sum(rsdp, 36), 0);
	CHECK_EQ(rsdp[15], 2);
	CHECK_EQ(get(rsdp, 20, 4), 36);
	xsdt = table(get(rsdp, 24, 8), "XSDT", &len);
	CHECK_EQ(len, 36 + 16);
	*fadt = get(xsdt, 36, 8);
	*madt = get(xsdt, 44, 8);
}

/* 5.2.9 */
static uint64_t check_fadt(uint64_t gpa)
{
	size_t len;
	const uint8_t *f = table(gpa, "FACP", &len);
	uint32_t flags = (uint32_t)get(f, 112, 4);

	CHECK_EQ(len, 276);
	CHECK_EQ(f[8], 6);
	CHECK(flags & 1 << 20);                      /* HW_REDUCED_ACPI */
	CHECK(flags & 1 << 10);                      /* RESET_REG_SUP */
	CHECK((flags & 1 << 4) && (flags & 1 << 5)); /* no fixed buttons */
	CHECK_EQ(get(f, 109, 2),
		1 << 2 | 1 << 4 | 1 << 5);    /* no VGA, ASPM, RTC; no 8042, no legacy devices */
	CHECK_EQ(get(f, 116, 4), 0x01000801); /* reset register: I/O, 8 bits, byte */
	CHECK_EQ(get(f, 120, 8), POWER_RESET);
	CHECK_EQ(f[128], POWER_RESET_VALUE);
	CHECK_EQ(get(f, 244, 4), 0x01000801);
	CHECK_EQ(get(f, 248, 8), POWER_SLEEP_CTL);
	CHECK_EQ(get(f, 256, 4), 0x01000801);
	CHECK_EQ(get(f, 260, 8), POWER_SLEEP_STATUS);
	for (size_t i = 48; i < 109; i++) /* SMI_CMD .. CENTURY: nothing fixed */
		CHECK_EQ(f[i], 0);
	CHECK_EQ(get(f, 40, 4), get(f, 140, 8));
	return get(f, 140, 8);
}

/* 5.2.12 */
static void check_madt(uint64_t gpa, unsigned cpus)
{
	size_t len, off = 44;
	const uint8_t *m = table(gpa, "APIC", &len);
	unsigned lapics = 0, ioapics = 0;

	CHECK_EQ(get(m, 36, 4), 0xfee00000);
	CHECK_EQ(get(m, 40, 4), 0); /* no 8259 */
	while (off < len) {
		const uint8_t *p = m + off;

		REQUIRE(len - off >= 2 && p[1] >= 2 && p[1] <= len - off);
		if (p[0] == 0 && p[1] == 8) {
			CHECK(p[2] == lapics && p[3] == lapics && get(p, 4, 4) == 1);
			lapics++;
		} else if (p[0] == 1 && p[1] == 12) {
			CHECK_EQ(get(p, 4, 4), 0xfec00000);
			CHECK_EQ(get(p, 8, 4), 0);
			ioapics++;
		} else {
			CHECK(!"unknown entry");
		}
		off += p[1];
	}
	CHECK_EQ(lapics, cpus);
	CHECK_EQ(ioapics, 1);
}

/* 20.2.4: PkgLength; returns its value and moves on */
static size_t pkg_length(const uint8_t **p)
{
	unsigned more = **p >> 6;
	size_t len = more ? **p & 0xf : **p & 0x3f;

	for (unsigned i = 1; i <= more; i++)
		len |= (size_t)(*p)[i] << (4 + 8 * (i - 1));
	*p += more + 1;
	return len;
}

static bool has(const uint8_t *p, size_t len, const void *what, size_t n)
{
	return memmem(p, len, what, n) != NULL;
}

/*
 * The scope ends where the table does; devices follow each other to its end, each with its
 * resources.
 */
static void check_dsdt(uint64_t gpa, unsigned nslots)
{
	static const uint8_t s5[] = { 0x08, '\\', '_', 'S', '5', '_', 0x12, 7, 4, 0x0a, 5, 0, 0,
		0 };
	size_t len, n;
	const uint8_t *d = table(gpa, "DSDT", &len), *p = d + 36, *end = d + len, *start;
	unsigned devices = 0;

	CHECK_EQ(d[8], 2); /* integers of 64 bits */
	CHECK(!memcmp(p, s5, sizeof(s5)));
	p += sizeof(s5);
	CHECK_EQ(*p++, 0x10);
	start = p;
	n = pkg_length(&p);
	CHECK(start + n == end);
	CHECK(!memcmp(p, "\\_SB_", 5));
	p += 5;
	while (p < end) {
		uint8_t memory[12] = { 0x86, 9, 0, 1 }, irq[9] = { 0x89, 6, 0, 3, 1 };
		uint32_t base = 0xd0000000 + (devices - 1) * 0x1000, size = 0x1000;
		uint32_t gsi = devices ? 5 + devices - 1 : 4;

		REQUIRE(end - p > 8 && p[0] == 0x5b && p[1] == 0x82);
		p += 2;
		start = p;
		n = pkg_length(&p);
		REQUIRE(n <= (size_t)(end - start));
		memcpy(memory + 4, &base, 4);
		memcpy(memory + 8, &size, 4);
		memcpy(irq + 5, &gsi, 4);
		CHECK(has(start, n, irq, sizeof(irq)));
		CHECK(devices ? has(start, n, "LNRO0005", 9) &&
					has(start, n, memory, sizeof(memory))
			      : has(start, n, "\x0c\x41\xd0\x05\x01", 5)); /* EisaId("PNP0501") */
		devices++;
		p = start + n;
	}
	CHECK(p == end);
	CHECK_EQ(devices, nslots + 1);
}

static void every_machine(void)
{
	for (unsigned cpus = 1; cpus <= VM_CPUS_MAX; cpus++) {
		for (unsigned n = 0; n <= VM_VIRTIO_SLOTS; n++) {
			struct acpi_config c = { .cpus = cpus, .nslots = n };
			uint64_t fadt, madt;

			memset(tables, 0xa5, sizeof(tables));
			used = acpi_build(tables, sizeof(tables), GPA, &c);
			REQUIRE(used);
			find_tables(&fadt, &madt);
			check_dsdt(check_fadt(fadt), n);
			check_madt(madt, cpus);
		}
	}
}

/* In a buffer that is too small nothing is written beyond it, and that is said. */
static void too_small(void)
{
	struct acpi_config c = { .cpus = 3, .nslots = 5 };
	size_t full = acpi_build(tables, sizeof(tables), GPA, &c);

	for (size_t size = 0; size < full; size++) {
		uint8_t *exact = malloc(size ? size : 1); /* the sanitizer watches its end */

		REQUIRE(exact);
		CHECK_EQ(acpi_build(exact, size, GPA, &c), 0);
		free(exact);
	}
	CHECK_EQ(acpi_build(tables, full, GPA, &c), full);
}

/* ---- iasl ---- */

static void write_table(const char *dir, const char *name, uint64_t gpa, const char *signature)
{
	char path[200];
	size_t len;
	const uint8_t *t = table(gpa, signature, &len);
	int fd;

	snprintf(path, sizeof(path), "%s/%s.aml", dir, name);
	fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	REQUIRE(fd >= 0 && write(fd, t, len) == (ssize_t)len);
	close(fd);
}

static bool contains(const char *dir, const char *file, const char *text)
{
	static char buf[65536];
	char path[200];
	ssize_t n;
	int fd;

	snprintf(path, sizeof(path), "%s/%s", dir, file);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	REQUIRE(fd >= 0);
	n = read(fd, buf, sizeof(buf) - 1);
	close(fd);
	REQUIRE(n >= 0);
	buf[n] = 0;
	if (!strstr(buf, text))
		fprintf(stderr, "%s lacks \"%s\":\n%s\n", file, text, buf);
	return strstr(buf, text) != NULL;
}

static int shell(const char *dir, const char *command)
{
	char line[600];

	snprintf(line, sizeof(line), "cd %s && %s", dir, command);
	return system(line);
}

/* The disassembler understands each table, and the compiler takes what it wrote. */
static void iasl(void)
{
	struct acpi_config c = { .cpus = 2, .nslots = 19 };
	char dir[] = "/tmp/skerry-acpi-XXXXXX";
	uint64_t fadt, madt;

	REQUIRE(mkdtemp(dir));
	used = acpi_build(tables, sizeof(tables), GPA, &c);
	find_tables(&fadt, &madt);
	write_table(dir, "fadt", fadt, "FACP");
	write_table(dir, "madt", madt, "APIC");
	write_table(dir, "dsdt", get(at(fadt, 276), 140, 8), "DSDT");
	CHECK_EQ(
		shell(dir,
			"iasl -d dsdt.aml fadt.aml madt.aml >log 2>&1 && ! grep -iE 'error|invalid|warning' log"),
		0);
	CHECK(contains(dir, "dsdt.dsl", "Name (\\_S5, Package (0x04)"));
	CHECK(contains(dir, "dsdt.dsl", "EisaId (\"PNP0501\")"));
	CHECK(contains(dir, "dsdt.dsl", "Device (VR12)"));
	CHECK(contains(dir, "dsdt.dsl", "0xD0012000,"));
	CHECK(contains(
		dir, "dsdt.dsl", "Interrupt (ResourceConsumer, Edge, ActiveHigh, Exclusive, ,, )"));
	CHECK(contains(dir, "fadt.dsl", "Hardware Reduced (V5) : 1"));
	CHECK(contains(dir, "madt.dsl", "I/O Apic"));
	CHECK_EQ(shell(dir, "iasl -p again dsdt.dsl >log 2>&1 && grep -q ' 0 Errors' log"), 0);
	CHECK_EQ(shell(dir, "iasl -p again2 fadt.dsl >log 2>&1 && grep -q ' 0 Errors' log"), 0);
	CHECK_EQ(shell(dir, "iasl -p again3 madt.dsl >log 2>&1 && grep -q ' 0 Errors' log"), 0);
	if (!test_failures)
		CHECK_EQ(shell(dir, "cd .. && rm -r \"$OLDPWD\""), 0);
}

int main(void)
{
	every_machine();
	too_small();
	if (system("command -v iasl >/dev/null")) {
		if (test_failures)
			TEST_END();
		SKIP("no iasl (Debian package acpica-tools)");
	}
	iasl();
	TEST_END();
}

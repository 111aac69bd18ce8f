/* vmm/config: only a sealed, complete and sane configuration gets through. */
#include "vmm/config.h"

#include <fcntl.h>
#include <sys/mman.h>

#include "base/memfd.h"
#include "tests/lib/test.h"

static int file; /* something open at or above ROLE_FD_FIRST */

static struct vmm_config good(void)
{
	struct vmm_config c = {
		.magic = VMM_CONFIG_MAGIC,
		.version = VMM_CONFIG_VERSION,
		.size = sizeof(c),
		.cpus = 2,
		.ndisks = 1,
		.ninitrds = 1,
		.kvm_fd = file,
		.kernel_fd = file,
		.initrd_fd = { file },
		.console_fd = -1,
		.listen_fd = -1,
		.memory = 1 << 30,
		.disk = { { .fd = file, .read_only = 1 } },
		.name = "x",
		.cmdline = "quiet",
	};

	return c;
}

static void check(const struct vmm_config *c, const char *text)
{
	struct error e = { 0 };

	CHECK_EQ(vmm_config_check(c, &e), text ? -EINVAL : 0);
	if (text && !strstr(e.msg, text)) {
		fprintf(stderr, "\"%s\" lacks \"%s\"\n", e.msg, text);
		CHECK(false);
	}
}

#define BAD(field, value, text)                                                                    \
	do {                                                                                       \
		struct vmm_config bad = good();                                                    \
		bad.field = (value);                                                               \
		check(&bad, text);                                                                 \
	} while (0)

static void fields(void)
{
	struct vmm_config c = good();

	check(&c, NULL);
	c.cpus = VM_CPUS_MAX;
	c.flags = VMM_FLAGS_ALL;
	c.console_fd = file;
	c.ndisks = c.ninitrds = 0;
	check(&c, NULL);

	BAD(magic, 0, "another version");
	BAD(version, VMM_CONFIG_VERSION + 1, "another version");
	BAD(size, sizeof(struct vmm_config) - 1, "another version");
	BAD(flags, VMM_FLAGS_ALL + 1, "flags");
	BAD(flags, UINT32_MAX, "flags");
	BAD(cpus, 0, "cpus");
	BAD(cpus, VM_CPUS_MAX + 1, "cpus");
	BAD(ndisks, VMM_DISKS_MAX + 1, "ndisks");
	BAD(ndisks, UINT32_MAX, "ndisks");
	BAD(ninitrds, VMM_INITRDS_MAX + 1, "ninitrds");
	BAD(kvm_fd, -1, "kvm_fd");
	BAD(kvm_fd, ROLE_FD_CTL, "kvm_fd");
	BAD(kvm_fd, 1000000, "kvm_fd");
	BAD(kernel_fd, 2, "kernel_fd");
	BAD(console_fd, -2, "console_fd");
	BAD(console_fd, 3, "console_fd");
	BAD(listen_fd, 3, "listen_fd");
	BAD(initrd_fd[0], -1, "initrd_fd");
	BAD(disk[0].fd, INT32_MIN, "disk fd");
	BAD(disk[0].read_only, 2, "read_only");
	BAD(ndisks, 2, "disk fd"); /* the second one is descriptor 0 */
	c = good();
	memset(c.name, 'x', sizeof(c.name));
	check(&c, "without its end");
	c = good();
	memset(c.cmdline, 'x', sizeof(c.cmdline));
	check(&c, "without its end");
}

static void memfd(void)
{
	struct vmm_config c = good(), got;
	struct error e = { 0 };
	int fd = memfd_sealed("config", &c, sizeof(c));

	REQUIRE(fd >= 0);
	CHECK_EQ(vmm_config_read(fd, &got, &e), 0);
	CHECK(!memcmp(&got, &c, sizeof(c)));
	close(fd);
	fd = memfd_sealed("config", &c, sizeof(c) - 1);
	CHECK_EQ(vmm_config_read(fd, &got, &e), -EMSGSIZE);
	close(fd);
	fd = memfd_create("config", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	REQUIRE(fd >= 0 && write(fd, &c, sizeof(c)) == sizeof(c));
	CHECK_EQ(vmm_config_read(fd, &got, &e), -EPERM);
	CHECK(strstr(e.msg, "not sealed"));
	close(fd);
	CHECK(vmm_config_read(-1, &got, &e) < 0);
	CHECK(vmm_config_read(file, &got, &e) < 0);
}

int main(void)
{
	file = fcntl(0, F_DUPFD_CLOEXEC, ROLE_FD_FIRST + 3);
	REQUIRE(file > ROLE_FD_FIRST);
	fields();
	memfd();
	TEST_END();
}

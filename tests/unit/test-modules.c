/* api/store/modules and cpio: load order, and an archive that cpio(1) reads. */
#include "api/store/cpio.h"
#include "api/store/modules.h"
#include "api/store/object.h"

#include <fcntl.h>
#include <sys/stat.h>

#include "base/file.h"
#include "tests/lib/test.h"

/* As depmod writes them: what must be loaded first stands last. */
static const struct modules_info info = {
	.dep = "kernel/fs/ext4/ext4.ko.xz: kernel/lib/crc16.ko.xz kernel/fs/mbcache.ko.xz kernel/fs/jbd2/jbd2.ko.xz\n"
	       "kernel/lib/crc16.ko.xz:\n"
	       "kernel/fs/mbcache.ko.xz:\n"
	       "kernel/fs/jbd2/jbd2.ko.xz: kernel/lib/jlow.ko.xz\n"
	       "kernel/lib/jlow.ko.xz:\n"
	       "kernel/arch/x86/kvm/kvm.ko: kernel/virt/irqbypass.ko\n"
	       "kernel/virt/irqbypass.ko:\n"
	       "kernel/arch/x86/kvm/kvm-amd.ko: kernel/crypto/ccp.ko kernel/arch/x86/kvm/kvm.ko "
	       "kernel/virt/irqbypass.ko\n"
	       "kernel/crypto/ccp.ko:\n"
	       "kernel/crypto/crc32c_intel.ko:\n"
	       "kernel/crypto/crc32c_generic.ko:\n"
	       "kernel/a.ko: kernel/b.ko\n"
	       "kernel/b.ko: kernel/a.ko\n"
	       "kernel/self.ko:\n"
	       "kernel/broken.ko: kernel/nowhere.ko\n",
	.builtin = "kernel/drivers/virtio/virtio.ko\nkernel/drivers/virtio/virtio-ring.ko\n",
	.softdep = "# comment\n"
		   "softdep ext4 pre: crypto-crc32c absent virtio post: ccp\n"
		   "softdep self pre: self\n"
		   "softdep crc16 irqbypass\n",
	.alias = "# comment\n"
		 "alias crypto-crc32c-x ccp\n"
		 "alias crypto-crc32c crc32c_intel\n"
		 "alias crypto-crc32c crc32c_generic\n"
		 "alias crypto-crc32c irqbypass\n",
};

static struct module_plan plan;

static void check_order(const char *const *want)
{
	size_t n = 0;

	while (want[n])
		n++;
	CHECK_EQ(plan.n, n);
	for (size_t i = 0; i < plan.n && i < n; i++)
		CHECK_STR(plan.step[i].name, want[i]);
}

static void test_order(void)
{
	static const struct module_want want[] = { { .name = "virtio_ring" }, { .name = "ext4" },
		{ .name = "jbd2" } };
	static const char *const order[] = { "crc32c_generic", "jlow", "jbd2", "mbcache", "crc16",
		"ext4", NULL };
	struct error e = { 0 };

	CHECK_EQ(modules_plan(&info, want, ARRAY_SIZE(want), &plan, &e), 0);
	check_order(order);
	CHECK_STR(plan.step[5].path, "kernel/fs/ext4/ext4.ko.xz");
	CHECK(!plan.step[5].options);
}

/* Options hold also for a module that another one pulls in; - and _ are the same. */
static void test_options(void)
{
	static const struct module_want want[] = { { .name = "kvm_amd",
							   .options = "nested=0 avic=0" },
		{ .name = "kvm", .options = "halt_poll_ns=0" } };
	static const char *const order[] = { "irqbypass", "kvm", "ccp", "kvm_amd", NULL };

	CHECK_EQ(modules_plan(&info, want, ARRAY_SIZE(want), &plan, NULL), 0);
	check_order(order);
	CHECK_STR(plan.step[1].options, "halt_poll_ns=0");
	CHECK_STR(plan.step[3].options, "nested=0 avic=0");
	CHECK_STR(plan.step[3].path, "kernel/arch/x86/kvm/kvm-amd.ko");
}

static void test_bad(void)
{
	static const struct module_want absent[] = { { .name = "vsock" } };
	static const struct module_want optional[] = { { .name = "vsock", .optional = true } };
	static const struct module_want circle[] = { { .name = "a" } };
	static const struct module_want self[] = { { .name = "self" } };
	static const struct module_want broken[] = { { .name = "broken" } };
	static const struct modules_info nothing = { "", "", "", "" };
	struct error e = { 0 };

	CHECK_EQ(modules_plan(&info, absent, 1, &plan, &e), -ENOENT);
	CHECK_STR(e.msg, "module 'vsock': neither among the kernel's modules nor built in");
	CHECK_EQ(modules_plan(&info, optional, 1, &plan, &e), 0);
	CHECK_EQ(plan.n, 0);
	CHECK_EQ(modules_plan(&info, circle, 1, &plan, &e), -ELOOP);
	CHECK_EQ(modules_plan(&info, self, 1, &plan, &e), -ELOOP);
	CHECK_EQ(modules_plan(&info, broken, 1, &plan, &e), -ENOENT);
	CHECK_STR(e.msg, "module 'nowhere': modules.dep doesn't know it");
	CHECK_EQ(modules_plan(&nothing, absent, 1, &plan, &e), -ENOENT);
}

static void write_archive(const char *path)
{
	autoclose int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	struct cpio c;

	REQUIRE(fd >= 0);
	cpio_init(&c, fd);
	CHECK_EQ(cpio_folder(&c, "modules", 0755), 0);
	/* each length modulo 4 */
	CHECK_EQ(cpio_file(&c, "modules/a", 0644, "", 0), 0);
	CHECK_EQ(cpio_file(&c, "modules/bb", 0600, "1", 1), 0);
	CHECK_EQ(cpio_file(&c, "modules/ccc", 0644, "12", 2), 0);
	CHECK_EQ(cpio_file(&c, "modules/dddd", 0755, "123", 3), 0);
	CHECK_EQ(cpio_file(&c, "modules/eeeee", 0644, "1\0003\n", 4), 0);
	CHECK_EQ(cpio_end(&c), 0);
}

static void test_cpio(void)
{
	char dir[] = "/tmp/skerry-test-modules.XXXXXX", path[128], command[512];
	struct stat st;

	REQUIRE(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/x.cpio", dir);
	write_archive(path);
	REQUIRE(!stat(path, &st));
	CHECK_EQ(st.st_size % 4, 0);
	if (system("command -v cpio >/dev/null"))
		SKIP("cpio is not installed");
	snprintf(command, sizeof(command),
		"cd %s && cpio -idm --quiet <x.cpio && test \"$(stat -c '%%a %%s %%F' modules modules/* | tr '\\n' "
		"',')\" = \"$(printf '755 %%s directory,644 0 regular empty file,600 1 regular file,644 2 regular "
		"file,755 3 regular file,644 4 regular file,' $(stat -c %%s modules))\" && printf '1\\0003\\n' | cmp - "
		"modules/eeeee",
		dir);
	CHECK_EQ(system(command), 0);
	CHECK_EQ(object_remove_tree(AT_FDCWD, dir), 0);
}

static void test_signature(void)
{
	char m[128] = "code" "SIG" "\0\0\2\0\0\0\0\0" "\0\0\0\3" "~Module signature appended~\n";
	const size_t len = 4 + 3 + 12 + 28;
	uint8_t *u = (uint8_t *)m;

	CHECK_EQ(modules_code_len(u, len), 4);
	CHECK_EQ(modules_code_len(u, len - 1), len - 1); /* no trailer */
	CHECK_EQ(modules_code_len(u + 7, len - 7), len - 7); /* the signature would begin before the file */
	CHECK_EQ(modules_code_len(u + 4, len - 4), 0);
	CHECK_EQ(modules_code_len(u + 20, 28), 28); /* shorter than a trailer */
	CHECK_EQ(modules_code_len(u, 0), 0);
	u[15] = 0xff; /* a length beyond everything */
	CHECK_EQ(modules_code_len(u, len), len);
}

int main(void)
{
	test_signature();
	test_order();
	test_options();
	test_bad();
	test_cpio();
	TEST_END();
}

/* api/store/lookup, kernels and images: what a name means, and what each wrong one says. */
#include "api/store/images.h"
#include "api/store/kernels.h"
#include "api/store/object.h"

#include <fcntl.h>
#include <sys/stat.h>

#include "base/file.h"
#include "tests/lib/test.h"

static char base[] = "/tmp/skerry-test-lookup.XXXXXX";

static const char *in_base(const char *name)
{
	static char path[300];

	snprintf(path, sizeof(path), "%s/%s", base, name);
	return path;
}

static void folder(const char *name)
{
	REQUIRE(!mkdir(in_base(name), 0700));
}

static void put(const char *name, const void *data, size_t len)
{
	REQUIRE(!file_replace(AT_FDCWD, in_base(name), data, len, 0600, NULL));
}

static void bad_kernel(const char *name, const char *want)
{
	struct kernel k = { -1, -1 };
	struct error e = { 0 };

	CHECK(kernel_open(name, &k, &e) < 0);
	CHECK_STR(e.msg, want);
	CHECK(k.vmlinux_fd == -1 && k.modules_fd == -1);
}

static void bad_image(const char *name, const char *want)
{
	struct error e = { 0 };
	int fd = -1;

	CHECK(image_open(name, &fd, &e) < 0);
	CHECK_STR(e.msg, want);
	CHECK_EQ(fd, -1);
}

static void test_not_set_up(void)
{
	bad_kernel(NULL, "kernel 'debian-13': is not set up; run: skerry setup");
	bad_kernel("debian-12",
		"kernel 'debian-12': is not set up; run: skerry setup --kernel debian-12");
	bad_kernel("other",
		"kernel 'other': no such kernel or file; there is none, run: skerry setup");
	bad_image(NULL, "image 'debian-13': is not set up; run: skerry setup");
	CHECK(access(in_base("state"), F_OK)); /* looking makes nothing */
}

static void test_kernels(void)
{
	struct kernel k = { -1, -1 };
	struct error e = { 0 };
	char c = 0;

	folder("state");
	folder("state/skerry");
	put("state/skerry/format.json", "{\"format\": 1}", 13);
	folder("state/skerry/kernels");
	folder("state/skerry/kernels/debian-13");
	folder("state/skerry/kernels/emulated-host");
	folder("state/skerry/kernels/.new-1");
	put("state/skerry/kernels/debian-13/vmlinux", "v", 1);
	bad_kernel(NULL,
		"kernel 'debian-13': modules.cpio: No such file or directory; make it again: skerry setup --force "
		"--kernel debian-13");
	put("state/skerry/kernels/debian-13/modules.cpio", "m", 1);
	REQUIRE(!kernel_open(NULL, &k, &e));
	CHECK(read(k.vmlinux_fd, &c, 1) == 1 && c == 'v');
	CHECK(read(k.modules_fd, &c, 1) == 1 && c == 'm');
	kernel_close(&k);
	bad_kernel("debain-13",
		"kernel 'debain-13': no such kernel or file; did you mean 'debian-13'? there is: debian-13");
	bad_kernel("x", "kernel 'x': no such kernel or file; there is: debian-13");
	bad_kernel("", "kernel '': no such kernel or file; there is: debian-13");
	bad_kernel(".new-1", "kernel '.new-1': no such kernel or file; there is: debian-13");
	bad_kernel("a\nb", "kernel 'a\\nb': no such kernel or file; there is: debian-13");
	bad_kernel("./debian-13", "kernel './debian-13': No such file or directory");
	bad_kernel("/etc/passwd",
		"kernel '/etc/passwd': is no kernel: neither a vmlinux (ELF) nor a bzImage");
}

/* A file in the working folder needs no slash; an object of the same name comes first. */
static void test_working_folder(void)
{
	struct kernel k = { -1, -1 };

	REQUIRE(!chdir(base));
	put("vmlinuz", "no kernel", 9);
	bad_kernel("vmlinuz",
		"kernel 'vmlinuz': is no kernel: 9 bytes, neither the start of a vmlinux (ELF) nor of a bzImage");
	put("debian-13", "no kernel", 9);
	CHECK_EQ(kernel_open("debian-13", &k, NULL), 0);
	kernel_close(&k);
	REQUIRE(!chdir("/"));
}

static void test_newer_state(void)
{
	struct error e = { 0 };
	struct kernel k;

	put("state/skerry/format.json", "{\"format\": 2}", 13);
	CHECK_EQ(kernel_open("debian-13", &k, &e), -EPROTO);
	CHECK(strstr(e.msg, "made by a newer skerry"));
	put("state/skerry/format.json", "{\"format\": 1}", 13);
}

/* 1024 KiB in blocks of 4 KiB */
static void make_ext4(uint8_t *fs, size_t len)
{
	memset(fs, 0, len);
	fs[1024 + 0x04 + 1] = 1; /* 256 blocks */
	fs[1024 + 0x18] = 2;
	memcpy(fs + 1024 + 0x38, "\x53\xef", 2);
}

static void test_images(void)
{
	uint8_t *fs = malloc(MIB);
	struct error e = { 0 };
	int fd = -1;

	REQUIRE(fs);
	folder("state/skerry/images");
	folder("state/skerry/images/debian-13");
	bad_image(NULL, "image 'debian-13': No such file or directory");
	make_ext4(fs, MIB);
	put("state/skerry/images/debian-13/root.ext4", fs, MIB);
	REQUIRE(!image_open(NULL, &fd, &e));
	CHECK_EQ(fcntl(fd, F_GETFL) & O_ACCMODE, O_RDONLY);
	close(fd);
	fd = -1;
	REQUIRE(!chdir(base));
	put("i", fs, MIB - 1);
	bad_image("i",
		"image 'i': is truncated: 1048575 bytes of the 1048576 that its ext4 file system has; fetch or build "
		"it again");
	put("i", fs, 2000);
	bad_image("i", "image 'i': holds no ext4 file system: it has only 2000 bytes");
	put("i", fs, 0);
	bad_image("i", "image 'i': is empty");
	/* 64bit: the upper half of the block count counts */
	fs[1024 + 0x60] = 0x80;
	fs[1024 + 0x150] = 1;
	put("i", fs, MIB);
	CHECK_EQ(image_open("i", &fd, &e), -EINVAL);
	CHECK(strstr(e.msg, "is truncated: 1048576 bytes of the 17592187092992"));
	fs[1024 + 0x18] = 7;
	put("i", fs, MIB);
	bad_image("i", "image 'i': its ext4 file system is damaged; e2fsck may repair it");
	fs[1024 + 0x38] = 0;
	put("i", fs, MIB);
	bad_image("i", "image 'i': holds no ext4 file system");
	bad_image("/", "image '/': is a folder; name a file that holds an ext4 file system");
	bad_image("/dev/null", "image '/dev/null': is no regular file");
	bad_image("debian-31",
		"image 'debian-31': no such image or file; did you mean 'debian-13'? there is: debian-13");
	REQUIRE(!chdir("/"));
	free(fs);
}

int main(void)
{
	REQUIRE(mkdtemp(base));
	REQUIRE(!setenv("XDG_STATE_HOME", in_base("state"), 1));
	test_not_set_up();
	test_kernels();
	test_working_folder();
	test_newer_state();
	test_images();
	CHECK_EQ(object_remove_tree(AT_FDCWD, base), 0);
	TEST_END();
}

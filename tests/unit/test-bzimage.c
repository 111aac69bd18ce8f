/* api/store/bzimage, decompress and vmlinux: every way a kernel may be packed, and every way it may be wrong. */
#include "api/store/bzimage.h"
#include "api/store/hash.h"
#include "api/store/object.h"
#include "api/store/vmlinux.h"

#include <bzlib.h>
#include <elf.h>
#include <fcntl.h>
#include <lz4.h>
#include <lzma.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <zlib.h>
#include <zstd.h>

#include "base/file.h"
#include "tests/lib/test.h"

#define VMLINUX_LEN (3 * MIB + 123)
#define SETUP_SECTS 2
#define PAYLOAD     ((SETUP_SECTS + 1) * 512 + 0x40)

static char base[] = "/tmp/skerry-test-bzimage.XXXXXX";
static uint8_t vmlinux[VMLINUX_LEN];

struct bytes {
	uint8_t *data;
	size_t len;
};

/* A vmlinux with one segment; the rest is neither all alike nor random. */
static void make_vmlinux(void)
{
	Elf64_Ehdr eh = { .e_type = ET_EXEC,
		.e_machine = EM_X86_64,
		.e_version = 1,
		.e_phnum = 1,
		.e_phoff = sizeof(eh),
		.e_phentsize = sizeof(Elf64_Phdr) };
	Elf64_Phdr ph = { .p_type = PT_LOAD, .p_offset = 4096, .p_filesz = VMLINUX_LEN - 4096 };

	memcpy(eh.e_ident, ELFMAG, SELFMAG);
	eh.e_ident[EI_CLASS] = ELFCLASS64;
	eh.e_ident[EI_DATA] = ELFDATA2LSB;
	for (size_t i = 0; i < sizeof(vmlinux); i++)
		vmlinux[i] = (uint8_t)(i * i >> 7);
	memcpy(vmlinux, &eh, sizeof(eh));
	memcpy(vmlinux + sizeof(eh), &ph, sizeof(ph));
}

static uint8_t *space(size_t n)
{
	uint8_t *p = calloc(1, n);

	REQUIRE(p);
	return p;
}

static struct bytes pack_gzip(void)
{
	struct bytes b = { space(VMLINUX_LEN), 0 };
	z_stream z = { .next_in = vmlinux,
		.avail_in = VMLINUX_LEN,
		.next_out = b.data,
		.avail_out = VMLINUX_LEN };

	REQUIRE(deflateInit2(&z, 9, Z_DEFLATED, 31, 8, Z_DEFAULT_STRATEGY) == Z_OK);
	REQUIRE(deflate(&z, Z_FINISH) == Z_STREAM_END);
	b.len = z.total_out;
	deflateEnd(&z);
	return b;
}

static struct bytes pack_bzip2(void)
{
	struct bytes b = { space(VMLINUX_LEN * 2), VMLINUX_LEN * 2 };
	unsigned len = (unsigned)b.len;

	REQUIRE(BZ2_bzBuffToBuffCompress(
			(char *)b.data, &len, (char *)vmlinux, VMLINUX_LEN, 1, 0, 0) == BZ_OK);
	b.len = len;
	return b;
}

static struct bytes pack_lzma(lzma_ret (*init)(lzma_stream *, const lzma_options_lzma *))
{
	struct bytes b = { space(VMLINUX_LEN * 2), 0 };
	lzma_stream s = LZMA_STREAM_INIT;
	lzma_options_lzma o;

	REQUIRE(!lzma_lzma_preset(&o, 1));
	REQUIRE((init ? init(&s, &o) : lzma_easy_encoder(&s, 1, LZMA_CHECK_CRC32)) == LZMA_OK);
	s.next_in = vmlinux;
	s.avail_in = VMLINUX_LEN;
	s.next_out = b.data;
	s.avail_out = VMLINUX_LEN * 2;
	REQUIRE(lzma_code(&s, LZMA_FINISH) == LZMA_STREAM_END);
	b.len = s.total_out;
	lzma_end(&s);
	return b;
}

static struct bytes pack_zstd(void)
{
	struct bytes b = { space(VMLINUX_LEN * 2), 0 };

	b.len = ZSTD_compress(b.data, VMLINUX_LEN * 2, vmlinux, VMLINUX_LEN, 3);
	REQUIRE(!ZSTD_isError(b.len));
	return b;
}

/* Two blocks: the format allows 8 MiB each, and less. */
static struct bytes pack_lz4(void)
{
	struct bytes b = { space(VMLINUX_LEN * 2), 4 };
	const size_t cuts[] = { 0, 2 * MIB, VMLINUX_LEN };

	memcpy(b.data, "\x02\x21\x4c\x18", 4);
	for (int i = 0; i < 2; i++) {
		int n = LZ4_compress_default((char *)vmlinux + cuts[i], (char *)b.data + b.len + 4,
			(int)(cuts[i + 1] - cuts[i]), (int)(VMLINUX_LEN * 2 - b.len - 4));

		REQUIRE(n > 0);
		memcpy(b.data + b.len, &(uint32_t){ (uint32_t)n }, 4);
		b.len += 4 + (size_t)n;
	}
	return b;
}

static struct bytes pack(enum decompress_kind kind)
{
	struct bytes b = { space(VMLINUX_LEN), VMLINUX_LEN };

	switch (kind) {
	case DECOMPRESS_GZIP:
		free(b.data);
		return pack_gzip();
	case DECOMPRESS_BZIP2:
		free(b.data);
		return pack_bzip2();
	case DECOMPRESS_LZMA:
		free(b.data);
		return pack_lzma(lzma_alone_encoder);
	case DECOMPRESS_XZ:
		free(b.data);
		return pack_lzma(NULL);
	case DECOMPRESS_ZSTD:
		free(b.data);
		return pack_zstd();
	case DECOMPRESS_LZ4:
		free(b.data);
		return pack_lz4();
	case DECOMPRESS_LZO:
		memcpy(b.data, "\x89LZO\0\r\n\x1a\n", 9);
		return b;
	case DECOMPRESS_UNKNOWN:
		break;
	}
	memcpy(b.data, vmlinux, VMLINUX_LEN);
	return b;
}

static void put32(uint8_t *p, size_t v)
{
	memcpy(p, &(uint32_t){ (uint32_t)v }, 4);
}

/* Linux, Documentation/arch/x86/boot.rst. As Linux does, the unpacked size follows the stream. */
static struct bytes wrap(struct bytes payload)
{
	struct bytes b = { space(PAYLOAD + payload.len + 1000), PAYLOAD + payload.len + 1000 };

	b.data[0x1f1] = SETUP_SECTS;
	memcpy(b.data + 0x1fe, "\x55\xaa", 2);
	memcpy(b.data + 0x202, "HdrS\x0f\x02", 6);
	put32(b.data + 0x248, 0x40);
	put32(b.data + 0x24c, payload.len + 4);
	memcpy(b.data + PAYLOAD, payload.data, payload.len);
	put32(b.data + PAYLOAD + payload.len, VMLINUX_LEN);
	free(payload.data);
	return b;
}

static const char *in_base(const char *name)
{
	static char path[300];

	snprintf(path, sizeof(path), "%s/%s", base, name);
	return path;
}

static const char *write_file(const void *data, size_t len)
{
	const char *path = in_base("kernel");

	REQUIRE(!file_replace(AT_FDCWD, path, data, len, 0600, NULL));
	return path;
}

/* Opens @data as a kernel; the message without "kernel 'PATH': ", or "" if it worked. */
static const char *attempt(const void *data, size_t len, int *ret_fd)
{
	static struct error e;
	const char *path = write_file(data, len);
	char head[320];

	memset(&e, 0, sizeof(e));
	*ret_fd = -1;
	if (!vmlinux_open(path, ret_fd, &e))
		return "";
	snprintf(head, sizeof(head), "kernel '%s': ", path);
	CHECK(!strncmp(e.msg, head, strlen(head)));
	return e.msg + strlen(head);
}

static void check_vmlinux(int fd)
{
	char *text = NULL;
	size_t len = 0;

	REQUIRE(!file_read_fd(fd, VMLINUX_LEN + 10, &text, &len));
	CHECK_EQ(len, VMLINUX_LEN);
	CHECK(!memcmp(text, vmlinux, VMLINUX_LEN));
	free(text);
}

static void test_each(void)
{
	static const enum decompress_kind kinds[] = { DECOMPRESS_UNKNOWN, DECOMPRESS_GZIP,
		DECOMPRESS_BZIP2, DECOMPRESS_LZMA, DECOMPRESS_XZ, DECOMPRESS_LZ4, DECOMPRESS_ZSTD };

	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
		struct bytes b = wrap(pack(kinds[i]));
		char hash[HASH_TEXT], name[HASH_TEXT + 40];
		struct stat st;
		int fd;

		/* twice: the second time from the cache */
		for (int round = 0; round < 2; round++) {
			CHECK_STR(attempt(b.data, b.len, &fd), "");
			if (kinds[i] != DECOMPRESS_UNKNOWN && fd >= 0)
				check_vmlinux(fd);
			CHECK_EQ(fcntl(fd, F_GETFD), FD_CLOEXEC);
			close(fd);
		}
		hash_memory(b.data, b.len, hash);
		snprintf(name, sizeof(name), "cache/skerry/kernels/%s/vmlinux", hash);
		CHECK(!stat(in_base(name), &st));
		free(b.data);
	}
}

static void test_plain(void)
{
	struct bytes b = pack(DECOMPRESS_XZ);
	int fd;

	CHECK_STR(attempt(vmlinux, VMLINUX_LEN, &fd), "");
	check_vmlinux(fd);
	close(fd);
	/* a whole file that is compressed */
	CHECK_STR(attempt(b.data, b.len, &fd), "");
	check_vmlinux(fd);
	close(fd);
	free(b.data);
}

static void check_bad(const void *data, size_t len, const char *want)
{
	const char *got;
	int fd;

	got = attempt(data, len, &fd);
	if (strncmp(got, want, strlen(want)) || !*got) {
		fprintf(stderr, "got \"%s\", expected \"%s...\"\n", got, want);
		test_failures++;
	}
	CHECK_EQ(fd, -1);
}

static void test_bad_elf(void)
{
	uint8_t *k = space(VMLINUX_LEN);
	Elf64_Ehdr *eh = (Elf64_Ehdr *)(void *)k;
	Elf64_Phdr *ph = (Elf64_Phdr *)(void *)(k + sizeof(*eh));

#define FRESH() memcpy(k, vmlinux, VMLINUX_LEN)
	FRESH();
	check_bad(k, VMLINUX_LEN - 1,
		"is truncated: 3145850 bytes of at least 3145851; fetch or build it again");
	check_bad(k, 30, "is truncated: 30 bytes of at least 64");
	check_bad(k, 100, "is truncated: 100 bytes of at least 120");
	eh->e_machine = EM_AARCH64;
	check_bad(k, VMLINUX_LEN, "is a kernel for arm64; this machine needs one for x86-64");
	eh->e_machine = EM_386;
	check_bad(k, VMLINUX_LEN, "is a kernel for 32-bit x86");
	eh->e_machine = 9999;
	check_bad(k, VMLINUX_LEN, "is a kernel for another processor");
	FRESH();
	eh->e_ident[EI_CLASS] = ELFCLASS32;
	check_bad(k, VMLINUX_LEN, "is a kernel for 32-bit x86");
	eh->e_ident[EI_DATA] = ELFDATA2MSB;
	check_bad(k, VMLINUX_LEN, "is a kernel for a big-endian processor");
	FRESH();
	eh->e_type = ET_REL;
	check_bad(k, VMLINUX_LEN, "is an object file or module");
	FRESH();
	eh->e_phnum = 0;
	check_bad(k, VMLINUX_LEN, "is an ELF file, but no Linux kernel");
	eh->e_phnum = 65535;
	check_bad(k, VMLINUX_LEN, "is an ELF file, but no Linux kernel");
	FRESH();
	eh->e_phoff = UINT64_MAX - 8;
	check_bad(k, VMLINUX_LEN, "is an ELF file, but no Linux kernel");
	FRESH();
	ph->p_type = PT_INTERP;
	check_bad(k, VMLINUX_LEN, "is a program, not a kernel");
	ph->p_type = PT_NOTE;
	check_bad(k, VMLINUX_LEN, "is an ELF file that holds nothing to load");
	FRESH();
	ph->p_offset = UINT64_MAX - 10;
	check_bad(k, VMLINUX_LEN, "is damaged: ELF segment 0 ends nowhere");
	ph->p_filesz = 5;
	check_bad(k, VMLINUX_LEN, "is truncated");
#undef FRESH
	free(k);
}

static void test_bad_header(void)
{
	struct bytes b = wrap(pack(DECOMPRESS_GZIP));

	check_bad(b.data, 0x24f, "is truncated: 591 bytes of at least 592");
	check_bad(b.data, PAYLOAD, "is truncated");
	check_bad(b.data, b.len - 997, "is truncated");
	memcpy(b.data + 0x206, "\x07\x02", 2);
	check_bad(
		b.data, b.len, "is a bzImage of boot protocol 2.07; 2.08 (Linux 2.6.26) or newer");
	memcpy(b.data + 0x206, "\x0f\x02", 2);
	put32(b.data + 0x248, UINT32_MAX);
	put32(b.data + 0x24c, UINT32_MAX);
	check_bad(b.data, b.len, "is truncated");
	put32(b.data + 0x24c, 0);
	check_bad(b.data, b.len, "is a bzImage without a kernel inside");
	put32(b.data + 0x248, 0);
	put32(b.data + 0x24c, 1);
	check_bad(b.data, b.len, "is a bzImage of unknown compression (it begins with 00 00)");
	free(b.data);
}

static void test_bad_payload(void)
{
	static const enum decompress_kind kinds[] = { DECOMPRESS_GZIP, DECOMPRESS_BZIP2,
		DECOMPRESS_LZMA, DECOMPRESS_XZ, DECOMPRESS_LZ4, DECOMPRESS_ZSTD };
	struct bytes b;

	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
		char want[64];

		/* half of the stream */
		snprintf(want, sizeof(want), "can't be unpacked: %s data are damaged or incomplete",
			decompress_name(kinds[i]));
		b = pack(kinds[i]);
		b.len /= 2;
		b = wrap(b);
		check_bad(b.data, b.len, want);
		/* one that begins rightly and goes on with noise */
		memset(b.data + PAYLOAD + 32, 0xa5, b.len - PAYLOAD - 32);
		check_bad(b.data, b.len, want);
		free(b.data);
	}
	b = wrap(pack(DECOMPRESS_LZO));
	check_bad(b.data, b.len,
		"can't be unpacked: lzo compression is not supported; pack it with gzip, xz or zstd");
	free(b.data);
	/* unpacks well, but to something else */
	vmlinux[0] = 'x';
	b = wrap(pack(DECOMPRESS_GZIP));
	check_bad(b.data, b.len, "what it contains: holds no ELF file");
	free(b.data);
	vmlinux[0] = 0x7f;
}

static void test_bad_file(void)
{
	uint8_t arm[700] = { 0 };
	struct error e = { 0 };
	int fd = -1;

	check_bad("", 0, "is empty");
	check_bad("hello", 5, "is no kernel: 5 bytes, neither");
	check_bad(arm, sizeof(arm), "is no kernel: neither a vmlinux (ELF) nor a bzImage");
	memcpy(arm + 56, "ARM\x64", 4);
	check_bad(arm, sizeof(arm), "is a kernel for arm64");
	CHECK_EQ(vmlinux_open("/nowhere/vmlinux", &fd, &e), -ENOENT);
	CHECK_STR(e.msg, "kernel '/nowhere/vmlinux': No such file or directory");
	CHECK_EQ(vmlinux_open("/", &fd, &e), -EISDIR);
	CHECK_STR(e.msg, "kernel '/': is a folder; name the vmlinux or bzImage in it");
	CHECK_EQ(vmlinux_open("/dev/null", &fd, &e), -EINVAL);
	/* a FIFO without a writer must not hang */
	REQUIRE(!mkfifo(in_base("fifo"), 0600));
	CHECK_EQ(vmlinux_open(in_base("fifo"), &fd, &e), -EINVAL);
	CHECK(strstr(e.msg, "is no regular file"));
	CHECK_EQ(fd, -1);
}

/* Bounded output: zeros pack well. */
static int count(void *ctx, unused_arg const void *data, size_t len)
{
	*(uint64_t *)ctx += len;
	return 0;
}

static void test_bound(void)
{
	static const enum decompress_kind kinds[] = { DECOMPRESS_GZIP, DECOMPRESS_BZIP2,
		DECOMPRESS_LZMA, DECOMPRESS_XZ, DECOMPRESS_LZ4, DECOMPRESS_ZSTD };
	struct error e = { 0 };

	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
		struct bytes b = pack(kinds[i]);
		uint64_t n = 0;

		CHECK_EQ(decompress_detect(b.data, b.len), kinds[i]);
		CHECK_EQ(decompress(kinds[i], b.data, b.len, VMLINUX_LEN, count, &n, &e), 0);
		CHECK_EQ(n, VMLINUX_LEN);
		n = 0;
		CHECK_EQ(decompress(kinds[i], b.data, b.len, VMLINUX_LEN - 1, count, &n, &e),
			-EFBIG);
		CHECK(n < VMLINUX_LEN);
		CHECK_EQ(decompress(kinds[i], b.data, 1, VMLINUX_LEN, count, &n, &e), -EINVAL);
		free(b.data);
	}
}

/* FIPS 180-4, examples: "abc" */
static void test_hash(void)
{
	char hash[HASH_TEXT];
	int fd;

	hash_memory("abc", 3, hash);
	CHECK_STR(hash, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
	fd = open(write_file("abc", 3), O_RDONLY | O_CLOEXEC);
	REQUIRE(fd >= 0 && !hash_fd(fd, hash));
	CHECK_STR(hash, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
	close(fd);
}

/* Several processes at once, one file. */
static void test_race(void)
{
	struct bytes b = wrap(pack(DECOMPRESS_ZSTD));
	const char *path = write_file(b.data, b.len);
	pid_t pids[4];
	int status;

	CHECK_EQ(object_remove_tree(AT_FDCWD, in_base("cache")), 0);
	path = in_base("kernel");
	for (size_t i = 0; i < ARRAY_SIZE(pids); i++) {
		pids[i] = fork();
		REQUIRE(pids[i] >= 0);
		if (!pids[i]) {
			int fd = -1;

			if (!vmlinux_open(path, &fd, NULL))
				check_vmlinux(fd);
			_exit(fd < 0 || test_failures);
		}
	}
	for (size_t i = 0; i < ARRAY_SIZE(pids); i++) {
		REQUIRE(waitpid(pids[i], &status, 0) == pids[i]);
		CHECK_EQ(status, 0);
	}
	free(b.data);
}

/* The cache doesn't grow without end; the one just used stays. */
static void test_prune(void)
{
	char first[HASH_TEXT], name[HASH_TEXT + 40];
	int left = 0;

	for (unsigned i = 0; i < VMLINUX_CACHE_KEEP + 3; i++) {
		struct bytes b;
		int fd;

		vmlinux[VMLINUX_LEN - 1] = (uint8_t)i;
		b = wrap(pack(DECOMPRESS_LZ4));
		hash_memory(b.data, b.len, first);
		CHECK_STR(attempt(b.data, b.len, &fd), "");
		close(fd);
		free(b.data);
		snprintf(name, sizeof(name), "cache/skerry/kernels/%s", first);
		CHECK(!access(in_base(name), F_OK));
	}
	snprintf(name, sizeof(name), "ls -A %s/cache/skerry/kernels | wc -l", base);
	FILE *f = popen(name, "r");
	REQUIRE(f && fscanf(f, "%d", &left) == 1);
	pclose(f);
	CHECK_EQ(left, VMLINUX_CACHE_KEEP);
}

int main(void)
{
	REQUIRE(mkdtemp(base));
	REQUIRE(!setenv("XDG_CACHE_HOME", in_base("cache"), 1));
	make_vmlinux();
	test_hash();
	test_each();
	test_plain();
	test_bad_elf();
	test_bad_header();
	test_bad_payload();
	test_bad_file();
	test_bound();
	test_race();
	test_prune();
	CHECK_EQ(object_remove_tree(AT_FDCWD, base), 0);
	TEST_END();
}

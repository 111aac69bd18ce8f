/* vmm/load, vmm/load_elf: what is loaded where, and every way a kernel file can lie. */
#include "vmm/load.h"

#include "tests/lib/elf_image.h"

#define MEM  GMEM_MIN
#define BASE UINT64_C(0x1000000)
#define CODE 256

static const struct load_elf_arch arch = { .machine = EM_X86_64, .name = "x86-64", .lowest = MIB };

static struct gmem *mem;

static void good(struct elf_image *img)
{
	uint8_t code[CODE];

	for (unsigned i = 0; i < CODE; i++)
		code[i] = (uint8_t)(i * 7 + 1);
	elf_image_fill(img, BASE, code, CODE, 1);
}

static int load(const void *file, size_t len, struct load_kernel *k, struct error *e)
{
	int fd = elf_image_memfd(file, len), r;

	memset(e, 0, sizeof(*e));
	memset(k, 0, sizeof(*k));
	r = load_elf(mem, fd, &arch, k, e);
	close(fd);
	return r;
}

static void expect_error(const struct elf_image *img, size_t len, const char *text)
{
	struct load_kernel k;
	struct error e;

	CHECK_EQ(load(img, len, &k, &e), -ENOEXEC);
	CHECK(!strncmp(e.msg, "kernel: ", 8));
	if (!strstr(e.msg, text)) {
		fprintf(stderr, "\"%s\" lacks \"%s\"\n", e.msg, text);
		CHECK(!"another message");
	}
}

/* ---- what is right ---- */

static void loads(void)
{
	struct elf_image img;
	struct load_kernel k;
	struct error e;

	good(&img);
	memset(gmem_map(mem, BASE, 2 * CODE), 0, 2 * CODE);
	CHECK_EQ(load(&img, sizeof(img), &k, &e), 0);
	CHECK_EQ(k.entry, BASE);
	CHECK_EQ(k.phys_entry, BASE);
	CHECK_EQ(k.start, BASE);
	CHECK_EQ(k.end, BASE + 2 * CODE);
	CHECK(!memcmp(gmem_map(mem, BASE, CODE), img.code, CODE));

	/* System V ABI, 5: p_memsz beyond p_filesz is zero: untouched here */
	for (unsigned i = 0; i < CODE; i++)
		CHECK_EQ(((uint8_t *)gmem_map(mem, BASE + CODE, CODE))[i], 0);

	good(&img);
	img.head.e_phnum = 1;
	CHECK_EQ(load(&img, sizeof(img), &k, &e), 0);
	CHECK_EQ(k.phys_entry, 0);

	/* A segment of nothing, and one that isn't PT_LOAD, may say anything. */
	good(&img);
	img.seg[1].p_type = PT_GNU_STACK;
	img.seg[1].p_offset = img.seg[1].p_filesz = UINT64_MAX;
	CHECK_EQ(load(&img, sizeof(img), &k, &e), 0);
	img.seg[1].p_type = PT_LOAD;
	img.seg[1].p_memsz = 0;
	CHECK_EQ(load(&img, sizeof(img), &k, &e), 0);
	CHECK_EQ(k.end, BASE + 2 * CODE);
}

/* ---- headers ---- */

static void headers(void)
{
	struct elf_image img;

	good(&img);
	expect_error(&img, 0, "truncated: the ELF header");
	expect_error(&img, sizeof(img.head) - 1, "truncated: the ELF header");
	expect_error(&img, sizeof(img.head), "truncated: the program header table");
	img.head.e_ident[0] = 'M';
	expect_error(&img, sizeof(img), "not an ELF file");
	good(&img);
	img.head.e_ident[EI_CLASS] = ELFCLASS32;
	expect_error(&img, sizeof(img), "not a 64-bit");
	good(&img);
	img.head.e_ident[EI_DATA] = ELFDATA2MSB;
	expect_error(&img, sizeof(img), "not a 64-bit");
	good(&img);
	img.head.e_machine = EM_AARCH64;
	expect_error(&img, sizeof(img), "for AArch64, not x86-64");
	img.head.e_machine = 4711;
	expect_error(&img, sizeof(img), "for ELF machine 4711, not x86-64");
	good(&img);
	img.head.e_type = ET_REL;
	expect_error(&img, sizeof(img), "not an executable");
	good(&img);
	img.head.e_phentsize = 32;
	expect_error(&img, sizeof(img), "program headers of 32 bytes");
	good(&img);
	img.head.e_phnum = 0;
	expect_error(&img, sizeof(img), "0 program headers");
	img.head.e_phnum = 65;
	expect_error(&img, sizeof(img), "65 program headers");
	img.head.e_phnum = UINT16_MAX;
	expect_error(&img, sizeof(img), "65535 program headers");
	good(&img);
	img.head.e_phoff = UINT64_MAX;
	expect_error(&img, sizeof(img), "truncated: the program header table");
	img.head.e_phoff = UINT64_MAX - 2 * sizeof(Elf64_Phdr) + 1;
	expect_error(&img, sizeof(img), "truncated: the program header table");
	img.head.e_phoff = sizeof(img) - 2 * sizeof(Elf64_Phdr) + 1;
	expect_error(&img, sizeof(img), "truncated: the program header table");
}

static void not_a_file(void)
{
	struct load_kernel k;
	struct error e = { 0 };
	int p[2];

	REQUIRE(!pipe(p));
	CHECK_EQ(load_elf(mem, p[0], &arch, &k, &e), -ENOEXEC);
	CHECK(strstr(e.msg, "not a regular file"));
	close(p[0]);
	close(p[1]);
	CHECK_EQ(load_elf(mem, p[0], &arch, &k, &e), -EBADF);
}

/* ---- segments ---- */

static void segments(void)
{
	static const uint64_t edges[] = { UINT64_MAX, UINT64_MAX - CODE + 1, INT64_MAX, MEM,
		MEM - CODE + 1, GMEM_HOLE, GMEM_HOLE_END };
	struct elf_image img;

	good(&img);
	expect_error(&img, ELF_IMAGE_CODE + CODE - 1, "truncated at segment 0");
	img.seg[0].p_offset = UINT64_MAX;
	expect_error(&img, sizeof(img), "truncated at segment 0");
	good(&img);
	img.seg[0].p_offset = sizeof(img) - CODE + 1;
	expect_error(&img, sizeof(img), "truncated at segment 0");
	good(&img);
	img.seg[0].p_filesz = UINT64_MAX;
	expect_error(&img, sizeof(img), "truncated at segment 0");
	good(&img);
	img.seg[0].p_memsz = CODE - 1;
	expect_error(&img, sizeof(img), "more bytes in the file than in memory");
	for (size_t i = 0; i < ARRAY_SIZE(edges); i++) {
		good(&img);
		img.seg[0].p_paddr = edges[i];
		img.seg[0].p_memsz = CODE;
		expect_error(&img, sizeof(img), "don't fit in 32 MiB of memory");
	}
	good(&img);
	img.seg[0].p_memsz = MEM - BASE + 1;
	expect_error(&img, sizeof(img), "don't fit in 32 MiB of memory");
	img.seg[0].p_memsz = UINT64_MAX;
	expect_error(&img, sizeof(img), "don't fit in 32 MiB of memory");
	good(&img);
	img.seg[0].p_paddr = MIB - 1;
	expect_error(&img, sizeof(img), "is below 0x100000");
	img.seg[0].p_paddr = 0;
	expect_error(&img, sizeof(img), "is below 0x100000");
	good(&img);
	img.seg[0].p_type = PT_NOTE;
	expect_error(&img, sizeof(img), "nothing to load");
}

/* The same bytes named by many segments: no more is copied than the file is long. */
static void overlap(void)
{
	struct {
		Elf64_Ehdr head;
		Elf64_Phdr seg[64];
		uint8_t data[8192];
	} file = { 0 };
	struct elf_image img;
	struct load_kernel k;
	struct error e;

	good(&img);
	file.head = img.head;
	file.head.e_phnum = 64;
	file.head.e_phoff = offsetof(__typeof__(file), seg);
	for (unsigned i = 0; i < 64; i++) {
		file.seg[i] = img.seg[0];
		file.seg[i].p_offset = offsetof(__typeof__(file), data);
		file.seg[i].p_filesz = file.seg[i].p_memsz = sizeof(file.data);
	}
	CHECK_EQ(load(&file, sizeof(file), &k, &e), -ENOEXEC);
	CHECK(strstr(e.msg, "overlaps others in the file"));
	for (unsigned i = 0; i < 64; i++)
		file.seg[i].p_filesz = 64;
	CHECK_EQ(load(&file, sizeof(file), &k, &e), 0);
}

static void entries(void)
{
	struct elf_image img;

	good(&img);
	img.note.entry = (uint32_t)BASE + CODE;
	expect_error(&img, sizeof(img), "entry 0x1000100 lies in none");
	img.note.entry = (uint32_t)BASE - 1;
	expect_error(&img, sizeof(img), "lies in none");
	good(&img);
	img.head.e_phnum = 1;
	img.head.e_entry = UINT64_MAX;
	expect_error(&img, sizeof(img), "lies in none");
	img.head.e_entry = 0;
	expect_error(&img, sizeof(img), "lies in none");
}

/* ---- notes ---- */

static uint64_t note_entry(const struct elf_image *img)
{
	struct load_kernel k;
	struct error e;

	CHECK_EQ(load(img, sizeof(*img), &k, &e), 0);
	return k.phys_entry;
}

static void notes(void)
{
	struct elf_image img;

	good(&img);
	CHECK_EQ(note_entry(&img), BASE);
	img.note.head.n_type = 17;
	CHECK_EQ(note_entry(&img), 0);
	good(&img);
	img.note.name[0] = 'x';
	CHECK_EQ(note_entry(&img), 0);
	/* Sizes that lie: the rest of the notes is ignored. */
	good(&img);
	img.note.head.n_namesz = UINT32_MAX;
	CHECK_EQ(note_entry(&img), 0);
	good(&img);
	img.note.head.n_descsz = UINT32_MAX;
	CHECK_EQ(note_entry(&img), 0);
	img.note.head.n_descsz = 5;
	CHECK_EQ(note_entry(&img), 0);
	img.note.head.n_descsz = 8;
	CHECK_EQ(note_entry(&img), 0);
	img.note.head.n_descsz = 3;
	CHECK_EQ(note_entry(&img), 0);
	good(&img);
	img.seg[1].p_filesz = sizeof(Elf64_Nhdr) - 1;
	CHECK_EQ(note_entry(&img), 0);
	img.seg[1].p_filesz = sizeof(img.note) - 1;
	CHECK_EQ(note_entry(&img), 0);
	img.seg[1].p_filesz = 0;
	CHECK_EQ(note_entry(&img), 0);
	img.seg[1].p_filesz = UINT64_MAX;
	CHECK_EQ(note_entry(&img), 0);
	good(&img);
	img.seg[1].p_offset = sizeof(img) - 4;
	expect_error(&img, sizeof(img), "truncated: its notes");

	/* Behind a note with an odd name and description; and as 64 bits. */
	good(&img);
	{
		struct {
			Elf64_Nhdr odd;
			char name[8], desc[4];
			Elf64_Nhdr xen;
			char xen_name[4];
			uint64_t entry;
		} __attribute__((packed)) two = {
			.odd = { .n_namesz = 5, .n_descsz = 1, .n_type = 18 },
			.name = "Linu",
			.xen = { .n_namesz = 4, .n_descsz = 8, .n_type = 18 },
			.xen_name = "Xen",
			.entry = BASE + 16,
		};

		memcpy(img.code + 1024, &two, sizeof(two));
		img.seg[1].p_offset = ELF_IMAGE_CODE + 1024;
		img.seg[1].p_filesz = sizeof(two);
		CHECK_EQ(note_entry(&img), BASE + 16);
	}
}

/* ---- holes and initial RAM disks ---- */

static void holes(void)
{
	int fd = memfd_create("sparse", MFD_CLOEXEC);
	uint8_t *p = gmem_map(mem, BASE, 4 * MIB);

	memset(p, 0xee, 4 * MIB);
	REQUIRE(fd >= 0 && !ftruncate(fd, 3 * MIB));
	REQUIRE(pwrite(fd, "start", 5, 0) == 5 && pwrite(fd, "end", 3, 2 * MIB) == 3);
	CHECK_EQ(load_file(mem, BASE, fd, 0, 3 * MIB), 0);
	CHECK(!memcmp(p, "start", 6) && !memcmp(p + 2 * MIB, "end", 4));
	CHECK_EQ(p[MIB], 0xee); /* a hole isn't copied: RAM is zero at that time */
	CHECK_EQ(p[2 * MIB + 64 * KIB], 0xee);

	CHECK_EQ(load_file(mem, BASE, fd, 0, 3 * MIB + 1), -ENODATA);
	CHECK_EQ(load_file(mem, BASE, fd, 4 * MIB, 1), -ENODATA);
	CHECK_EQ(load_file(mem, BASE, fd, 4 * MIB, 0), 0);
	CHECK_EQ(load_file(mem, MEM - 1, fd, 0, 2), -EFAULT);
	CHECK_EQ(load_file(mem, BASE, fd, UINT64_MAX, 1), -EINVAL);
	CHECK_EQ(load_file(mem, BASE, fd, INT64_MAX, 1), -EINVAL);
	close(fd);
}

static int file_of(const void *data, size_t len)
{
	return elf_image_memfd(data, len);
}

static void initrds(void)
{
	int fds[3] = { file_of("abcde", 5), file_of("", 0), file_of("xyz", 3) };
	uint64_t gpa = 0, len = 0;
	struct error e;
	const char *p;

	CHECK_EQ(load_initrds(mem, fds, 3, BASE, &gpa, &len, &e), 0);
	CHECK_EQ(len, 12);
	CHECK_EQ(gpa, MEM - 4096);
	p = gmem_map(mem, gpa, len);
	REQUIRE(p);
	CHECK(!memcmp(p, "abcde\0\0\0xyz\0", 12));

	CHECK_EQ(load_initrds(mem, NULL, 0, BASE, &gpa, &len, &e), 0);
	CHECK_EQ(len, 0);
	CHECK_EQ(load_initrds(mem, fds, 3, MEM - 4096, &gpa, &len, &e), 0);
	CHECK_EQ(load_initrds(mem, fds, 3, MEM - 4095, &gpa, &len, &e), -E2BIG);
	CHECK_EQ(load_initrds(mem, fds, 3, UINT64_MAX - 4096, &gpa, &len, &e), -EINVAL);
	REQUIRE(!ftruncate(fds[1], MEM - BASE - 4));
	CHECK_EQ(load_initrds(mem, fds, 3, BASE, &gpa, &len, &e), -E2BIG);
	CHECK(strstr(e.msg, "initrd 1: "));
	REQUIRE(!ftruncate(fds[1], INT64_MAX & ~4095));
	CHECK_EQ(load_initrds(mem, fds, 3, BASE, &gpa, &len, &e), -E2BIG);
	for (unsigned i = 0; i < 3; i++)
		close(fds[i]);
	CHECK_EQ(load_initrds(mem, fds, 3, BASE, &gpa, &len, &e), -EBADF);
	CHECK_EQ(load_initrds(mem, fds, 17, BASE, &gpa, &len, &e), -EINVAL);
}

int main(void)
{
	REQUIRE(!gmem_create(&mem, MEM, NULL));
	loads();
	headers();
	not_a_file();
	segments();
	overlap();
	entries();
	notes();
	holes();
	initrds();
	gmem_destroy(mem);
	TEST_END();
}

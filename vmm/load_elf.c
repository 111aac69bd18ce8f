/*
 * vmm/load_elf.c - ELF64 kernel images
 *
 * What:    segments go to their physical address; a note with a 32-bit entry (PVH) is looked for.
 *          Section headers and symbols are never looked at.
 * Limits:  ELF_SEGMENTS_MAX program headers, ELF_NOTES_MAX bytes of notes, and no more bytes copied
 *          than the file has, however often its segments name the same ones.
 * Spec:    System V ABI, chapters 4 and 5; xen/include/public/elfnote.h
 */
#include <elf.h>
#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>

#include "vmm/load.h"

#define ELF_SEGMENTS_MAX 64
#define ELF_NOTES_MAX    (64 * 1024)

#define NOTE_XEN_PHYS32_ENTRY 18 /* XEN_ELFNOTE_PHYS32_ENTRY */

struct elf {
	int fd;
	uint64_t file_size;
	Elf64_Ehdr head;
	Elf64_Phdr seg[ELF_SEGMENTS_MAX];
	unsigned nseg;
};

/* Reads all of it or fails; ranges are checked against the file's size first. */
static int read_at(
	const struct elf *f, void *buf, size_t len, uint64_t off, const char *what, struct error *e)
{
	size_t done = 0;

	if (len > f->file_size || off > f->file_size - len)
		return error_set(e, ENOEXEC,
			"kernel: truncated: %s should be at byte %" PRIu64 " of %" PRIu64, what,
			off, f->file_size);
	while (done < len) {
		ssize_t n = pread(f->fd, (uint8_t *)buf + done, len - done, (off_t)(off + done));

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return error_set(e, errno, "kernel: %s: %s", what, strerror(errno));
		if (!n)
			return error_set(e, ENOEXEC, "kernel: truncated in %s", what);
		done += (size_t)n;
	}
	return 0;
}

static const char *machine_name(uint16_t machine)
{
	static const struct {
		uint16_t machine;
		const char *name;
	} names[] = {
		{ EM_386, "32-bit x86" },
		{ EM_X86_64, "x86-64" },
		{ EM_ARM, "32-bit Arm" },
		{ EM_AARCH64, "AArch64" },
		{ EM_RISCV, "RISC-V" },
		{ EM_PPC64, "POWER" },
		{ EM_S390, "IBM Z" },
		{ EM_MIPS, "MIPS" },
		{ EM_SPARCV9, "SPARC" },
		{ EM_LOONGARCH, "LoongArch" },
	};

	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		if (names[i].machine == machine)
			return names[i].name;
	return NULL;
}

static int check_head(const struct elf *f, const struct load_elf_arch *arch, struct error *e)
{
	const Elf64_Ehdr *h = &f->head;
	const char *machine;

	if (memcmp(h->e_ident, ELFMAG, SELFMAG))
		return error_set(e, ENOEXEC, "kernel: not an ELF file; a vmlinux is needed");
	if (h->e_ident[EI_DATA] != ELFDATA2LSB || h->e_ident[EI_CLASS] != ELFCLASS64)
		return error_set(e, ENOEXEC,
			"kernel: not a 64-bit little-endian ELF file, not for %s", arch->name);
	machine = machine_name(h->e_machine);
	if (h->e_machine != arch->machine && machine)
		return error_set(e, ENOEXEC, "kernel: for %s, not %s", machine, arch->name);
	if (h->e_machine != arch->machine)
		return error_set(
			e, ENOEXEC, "kernel: for ELF machine %u, not %s", h->e_machine, arch->name);
	if (h->e_type != ET_EXEC && h->e_type != ET_DYN)
		return error_set(e, ENOEXEC,
			"kernel: ELF type %u (a module or core dump?), not an executable",
			h->e_type);
	if (h->e_phentsize != sizeof(Elf64_Phdr) || !h->e_phnum || h->e_phnum > ELF_SEGMENTS_MAX)
		return error_set(e, ENOEXEC,
			"kernel: %u program headers of %u bytes; 1 to %d of %zu are supported",
			h->e_phnum, h->e_phentsize, ELF_SEGMENTS_MAX, sizeof(Elf64_Phdr));
	return 0;
}

static int open_elf(struct elf *f, int fd, const struct load_elf_arch *arch, struct error *e)
{
	struct stat st;
	int r;

	if (fstat(fd, &st))
		return error_set(e, errno, "kernel: %s", strerror(errno));
	if (!S_ISREG(st.st_mode))
		return error_set(e, ENOEXEC, "kernel: not a regular file");
	f->fd = fd;
	f->file_size = (uint64_t)st.st_size;
	r = read_at(f, &f->head, sizeof(f->head), 0, "the ELF header", e);
	if (!r)
		r = check_head(f, arch, e);
	if (r)
		return r;
	f->nseg = f->head.e_phnum;
	return read_at(f, f->seg, f->nseg * sizeof(f->seg[0]), f->head.e_phoff,
		"the program header table", e);
}

/* ---- segments ---- */

static int check_segment(const struct elf *f, unsigned i, struct gmem *m,
	const struct load_elf_arch *arch, struct error *e)
{
	const Elf64_Phdr *p = &f->seg[i];

	if (p->p_filesz > f->file_size || p->p_offset > f->file_size - p->p_filesz)
		return error_set(e, ENOEXEC,
			"kernel: truncated at segment %u: %" PRIu64 " bytes at %" PRIu64
			" of a file of %" PRIu64,
			i, p->p_filesz, p->p_offset, f->file_size);
	if (p->p_filesz > p->p_memsz)
		return error_set(
			e, ENOEXEC, "kernel: segment %u: more bytes in the file than in memory", i);
	if (p->p_paddr < arch->lowest)
		return error_set(e, ENOEXEC,
			"kernel: segment %u: address 0x%" PRIx64 " is below 0x%" PRIx64, i,
			p->p_paddr, arch->lowest);
	if (!gmem_map(m, p->p_paddr, p->p_memsz))
		return error_set(e, ENOEXEC,
			"kernel: segment %u: %" PRIu64 " KiB at 0x%" PRIx64 " don't fit in %" PRIu64
			" MiB of memory; give the machine more",
			i, p->p_memsz / KIB, p->p_paddr, gmem_size(m) / MIB);
	return 0;
}

static int load_segments(const struct elf *f, struct gmem *m, const struct load_elf_arch *arch,
	struct load_kernel *k, struct error *e)
{
	uint64_t budget = f->file_size;
	int r;

	k->start = UINT64_MAX;
	for (unsigned i = 0; i < f->nseg; i++) {
		const Elf64_Phdr *p = &f->seg[i];

		if (p->p_type != PT_LOAD || !p->p_memsz)
			continue;
		r = check_segment(f, i, m, arch, e);
		if (r)
			return r;
		if (p->p_filesz > budget)
			return error_set(
				e, ENOEXEC, "kernel: segment %u: overlaps others in the file", i);
		budget -= p->p_filesz;
		r = load_file(m, p->p_paddr, f->fd, p->p_offset, p->p_filesz);
		if (r == -ENODATA)
			return error_set(e, ENOEXEC, "kernel: truncated in segment %u", i);
		if (r)
			return error_set(e, -r, "kernel: segment %u: %s", i, strerror(-r));
		k->start = MIN(k->start, p->p_paddr);
		k->end = MAX(k->end, p->p_paddr + p->p_memsz);
	}
	if (!k->end)
		return error_set(e, ENOEXEC, "kernel: nothing to load in it");
	return 0;
}

static bool in_segment(const struct elf *f, uint64_t gpa)
{
	for (unsigned i = 0; i < f->nseg; i++) {
		const Elf64_Phdr *p = &f->seg[i];

		if (p->p_type == PT_LOAD && p->p_memsz && gpa >= p->p_paddr &&
			gpa - p->p_paddr < p->p_filesz)
			return true;
	}
	return false;
}

/* ---- notes ---- */

/* The next note's parts, or false at the end or where the sizes lie. */
static bool note_next(const uint8_t *buf, size_t len, size_t *pos, Elf64_Nhdr *ret,
	const uint8_t **ret_name, const uint8_t **ret_desc)
{
	size_t left = len - *pos, name, desc;

	if (left < sizeof(*ret))
		return false;
	memcpy(ret, buf + *pos, sizeof(*ret));
	left -= sizeof(*ret);
	if (ret->n_namesz > left || ret->n_descsz > left)
		return false;
	name = ALIGN_UP((size_t)ret->n_namesz, 4);
	desc = ALIGN_UP((size_t)ret->n_descsz, 4);
	if (name > left || ret->n_descsz > left - name)
		return false;
	*ret_name = buf + *pos + sizeof(*ret);
	*ret_desc = *ret_name + name;
	*pos += sizeof(*ret) + name + MIN(desc, left - name);
	return true;
}

static uint64_t find_phys_entry(const uint8_t *buf, size_t len)
{
	const uint8_t *name, *desc;
	Elf64_Nhdr n;
	size_t pos = 0;

	while (note_next(buf, len, &pos, &n, &name, &desc)) {
		uint64_t v = 0;

		if (n.n_type != NOTE_XEN_PHYS32_ENTRY || n.n_namesz != 4 || memcmp(name, "Xen", 4))
			continue;
		if (n.n_descsz != 4 && n.n_descsz != 8)
			continue;
		memcpy(&v, desc, n.n_descsz);
		return v;
	}
	return 0;
}

static int read_notes(const struct elf *f, struct load_kernel *k, struct error *e)
{
	for (unsigned i = 0; i < f->nseg && !k->phys_entry; i++) {
		const Elf64_Phdr *p = &f->seg[i];
		autofree uint8_t *buf = NULL;
		int r;

		if (p->p_type != PT_NOTE || !p->p_filesz || p->p_filesz > ELF_NOTES_MAX)
			continue;
		buf = malloc(p->p_filesz);
		if (!buf)
			return error_set(e, ENOMEM, "kernel: out of memory");
		r = read_at(f, buf, p->p_filesz, p->p_offset, "its notes", e);
		if (r)
			return r;
		k->phys_entry = find_phys_entry(buf, p->p_filesz);
	}
	return 0;
}

int load_elf(struct gmem *m, int fd, const struct load_elf_arch *arch, struct load_kernel *ret,
	struct error *e)
{
	struct elf f = { 0 };
	struct load_kernel k = { 0 };
	int r = open_elf(&f, fd, arch, e);

	if (!r)
		r = load_segments(&f, m, arch, &k, e);
	if (!r)
		r = read_notes(&f, &k, e);
	if (r)
		return r;
	k.entry = f.head.e_entry;
	if (!in_segment(&f, k.phys_entry ? k.phys_entry : k.entry))
		return error_set(e, ENOEXEC,
			"kernel: its entry 0x%" PRIx64 " lies in none of its segments",
			k.phys_entry ? k.phys_entry : k.entry);
	*ret = k;
	return 0;
}

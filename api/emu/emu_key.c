/*
 * api/emu/emu_key.c - the parts of an emulated host, and the key that names it
 */
#include "api/emu/emu_dirs.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <link.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "api/emu/accel.h"
#include "api/store/dirs.h"
#include "api/store/format.h"
#include "base/table.h"

#define IDLE_DEFAULT "60s"
#define KERNEL_DIR   "kernels/emulated-host"

/* FNV-1a, 64 bits: names folders of one user, who is not their own enemy. */
static void hash_add(uint64_t *h, const void *data, size_t len)
{
	const uint8_t *p = data;

	for (size_t i = 0; i < len; i++)
		*h = (*h ^ p[i]) * UINT64_C(0x100000001b3);
}

static void hash_str(uint64_t *h, const char *s)
{
	hash_add(h, s, strlen(s) + 1);
}

/* A file or folder is the same as long as these are. Absent counts too. */
static void hash_file(uint64_t *h, const char *path)
{
	struct stat st = { 0 };
	uint64_t id[5];

	if (stat(path, &st))
		st = (struct stat){ 0 };
	id[0] = st.st_dev;
	id[1] = st.st_ino;
	id[2] = S_ISDIR(st.st_mode) ? 0 : (uint64_t)st.st_size;
	id[3] = (uint64_t)st.st_mtim.tv_sec;
	id[4] = (uint64_t)st.st_mtim.tv_nsec;
	hash_str(h, path);
	hash_add(h, id, sizeof(id));
}

struct build_id {
	const uint8_t *data;
	size_t len;
};

static void find_in_notes(const uint8_t *p, size_t len, struct build_id *ret)
{
	while (len >= sizeof(ElfW(Nhdr))) {
		const ElfW(Nhdr) *n = (const void *)p;
		size_t name = ALIGN_UP((size_t)n->n_namesz, (size_t)4);
		size_t desc = ALIGN_UP((size_t)n->n_descsz, (size_t)4);
		size_t all = sizeof(*n) + name + desc;

		if (all > len)
			return;
		if (n->n_type == NT_GNU_BUILD_ID && n->n_namesz == 4 &&
			!memcmp(p + sizeof(*n), "GNU", 4)) {
			ret->data = p + sizeof(*n) + name;
			ret->len = n->n_descsz;
			return;
		}
		p += all;
		len -= all;
	}
}

/* The first object is the program itself. */
static int find_build_id(struct dl_phdr_info *info, unused_arg size_t size, void *ctx)
{
	for (unsigned i = 0; i < info->dlpi_phnum; i++)
		if (info->dlpi_phdr[i].p_type == PT_NOTE)
			find_in_notes(
				(const uint8_t *)(info->dlpi_addr + info->dlpi_phdr[i].p_vaddr),
				info->dlpi_phdr[i].p_memsz, ctx);
	return 1;
}

static void hash_self(uint64_t *h)
{
	struct build_id id = { 0 };

	dl_iterate_phdr(find_build_id, &id);
	if (id.len)
		hash_add(h, id.data, id.len);
	else
		hash_file(h, "/proc/self/exe");
}

static void set_key(struct emu_config *c)
{
	uint64_t h = UINT64_C(0xcbf29ce484222325);
	uint32_t flags[2] = { c->icount, c->scratch };
	char path[EMU_PATH_MAX + 32];

	hash_self(&h);
	hash_add(&h, flags, sizeof(flags));
	hash_file(&h, c->qemu);
	hash_file(&h, c->kernel);
	hash_file(&h, c->modules);
	hash_str(&h, c->state);
	hash_str(&h, c->cache);
	hash_str(&h, c->runtime);
	/* L1 keeps what it knows of these: what was published or installed since is for a new one. */
	hash_file(&h, EMU_PACKAGES);
	snprintf(path, sizeof(path), "%s/kernels", c->state);
	hash_file(&h, path);
	snprintf(path, sizeof(path), "%s/images", c->state);
	hash_file(&h, path);
	snprintf(c->key, sizeof(c->key), "%016" PRIx64, h);
}

/* L1 learns the paths from a file with a line for each. */
static int check_path(const char *what, const char *path, struct error *e)
{
	if (path[0] != '/' || strchr(path, '\n'))
		return error_set(e, EINVAL,
			"%s '%s': the emulated host needs an absolute path without a newline", what,
			path);
	return 0;
}

static int find_folders(struct emu_config *c, struct error *e)
{
	const struct {
		enum dirs_kind kind;
		char *path;
	} f[] = { { DIRS_STATE, c->state }, { DIRS_CACHE, c->cache },
		{ DIRS_RUNTIME, c->runtime } };

	for (size_t i = 0; i < ARRAY_SIZE(f); i++) {
		int r = dirs_path(f[i].kind, f[i].path, EMU_PATH_MAX, e), fd;

		if (!r)
			r = check_path(dirs_kind_name(f[i].kind), f[i].path, e);
		if (r)
			return r;
		fd = dirs_open(f[i].kind, true, e);
		if (fd < 0)
			return fd;
		close(fd);
	}
	return 0;
}

static int configure_env(struct emu_config *c, struct error *e)
{
	const char *idle = getenv("SKERRY_EMU_IDLE"), *scratch = getenv("SKERRY_EMU_SCRATCH");

	if (table_duration(idle && *idle ? idle : IDLE_DEFAULT, &c->idle_ns))
		return error_set(e, EINVAL,
			"SKERRY_EMU_IDLE='%s': not a duration; write 90s, 5m or 1h", idle);
	c->scratch = scratch && *scratch && strcmp(scratch, "0");
	return 0;
}

static int need_kernel(const struct emu_config *c, struct error *e)
{
	const char *const paths[] = { c->kernel, c->modules };

	for (size_t i = 0; i < ARRAY_SIZE(paths); i++)
		if (access(paths[i], R_OK))
			return error_set(e, errno,
				"the emulated host's kernel '%s': %s; run: skerry setup", paths[i],
				strerror(errno));
	return 0;
}

void emu_use_scratch(struct emu_config *c)
{
	c->scratch = 1;
	set_key(c);
}

int emu_configure(struct emu_config *ret, bool icount, struct error *e)
{
	struct emu_config *c = ret;
	autoclose int state = -1;
	int r;

	*c = (struct emu_config){ .magic = EMU_CONFIG_MAGIC, .size = sizeof(*c), .icount = icount };
	r = configure_env(c, e);
	if (!r)
		r = accel_find_qemu(c->qemu, sizeof(c->qemu), e);
	if (!r)
		r = find_folders(c, e);
	if (r)
		return r;
	if (strlen(c->state) + sizeof(KERNEL_DIR) + 16 > EMU_PATH_MAX)
		return error_set(e, ENAMETOOLONG, "state folder '%s': path too long", c->state);
	snprintf(c->kernel, sizeof(c->kernel), "%.*s/%s/vmlinux", EMU_PATH_MAX - 64, c->state,
		KERNEL_DIR);
	snprintf(c->modules, sizeof(c->modules), "%.*s/%s/modules.cpio", EMU_PATH_MAX - 64,
		c->state, KERNEL_DIR);
	/* A state folder of a newer version may have its kernels elsewhere: say that first. */
	state = format_open_state(false, e);
	if (state < 0 && state != -ENOENT)
		return state;
	r = need_kernel(c, e);
	if (!r)
		set_key(c);
	return r;
}

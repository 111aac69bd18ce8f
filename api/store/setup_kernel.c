#include "api/store/setup_kernel.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#include "api/store/cpio.h"
#include "api/store/decompress.h"
#include "api/store/hash.h"
#include "api/store/kernels.h"
#include "api/store/modules.h"
#include "api/store/vmlinux.h"
#include "base/file.h"
#include "base/json.h"

#define RECIPE      2 /* raise it when an object made before no longer serves */
#define FOLDER      "kernels"
#define JSON        "kernel.json"
#define VERSION_MAX 100
#define MODULE_MAX  (64 * MIB) /* one, unpacked */
#define TEXT_MAX    (16 * MIB) /* modules.alias of a full kernel: 1.5 MiB */
#define STEPS       (SETUP_DEBOOTSTRAP_STEPS - 1 + 3)

struct setup_kernel_kind {
	const char *name, *suite, *package;
	const struct module_want *want;
	size_t nwant;
};

/* A guest's devices are on virtio-mmio; its root is ext4 under an overlay. */
static const struct module_want guest_modules[] = {
	{ .name = "virtio_mmio" },
	{ .name = "virtio_blk" },
	{ .name = "virtio_rng" },
	{ .name = "vmw_vsock_virtio_transport" },
	{ .name = "virtio_balloon" },
	{ .name = "ext4" },
	{ .name = "overlay" },
};

/*
 * The emulated host is a PC with 9p, and runs KVM. What the options switch off is slow or broken where the
 * processor itself is emulated: guests of guests, the virtual interrupt controller, polling for wake-ups.
 */
static const struct module_want host_modules[] = {
	{ .name = "virtio_pci" },
	{ .name = "virtio_console" },
	{ .name = "9pnet_virtio" },
	{ .name = "9p" },
	{ .name = "virtio_blk" },
	{ .name = "ext4" },
	{ .name = "overlay" },
	{ .name = "kvm", .options = "halt_poll_ns=0" },
	{ .name = "kvm_amd", .options = "nested=0 avic=0" },
	{ .name = "tun" },
	{ .name = "veth" },
	{ .name = "fuse" },
	{ .name = "loop" },
};

#define GUEST .want = guest_modules, .nwant = ARRAY_SIZE(guest_modules)
#define HOST  .want = host_modules, .nwant = ARRAY_SIZE(host_modules)

static const struct setup_kernel_kind guests[] = {
	{ KERNEL_DEFAULT, "trixie", "linux-image-cloud-amd64", GUEST },
	{ "debian-12", "bookworm", "linux-image-cloud-amd64", GUEST },
};

/* The cloud kernel has no 9p. */
static const struct setup_kernel_kind host_12 = { KERNEL_EMULATED, "bookworm", "linux-image-amd64",
	HOST };
static const struct setup_kernel_kind host_13 = { KERNEL_EMULATED, "trixie", "linux-image-amd64",
	HOST };

const char *const setup_kernel_names[] = { KERNEL_DEFAULT, "debian-12", NULL };

/* The number in VERSION_ID of os-release(5), if this is Debian. */
static unsigned debian_version(void)
{
	autofree char *text = NULL;
	unsigned version = 0;
	const char *p;
	size_t len;

	if (file_read(AT_FDCWD, "/etc/os-release", 65536, &text, &len, NULL) ||
		!strstr(text, "\nID=debian"))
		return 0;
	p = strstr(text, "\nVERSION_ID=\"");
	return p && sscanf(p, "\nVERSION_ID=\"%u", &version) == 1 ? version : 0;
}

const struct setup_kernel_kind *setup_kernel_find(const char *name)
{
	for (size_t i = 0; i < ARRAY_SIZE(guests); i++)
		if (!strcmp(guests[i].name, name))
			return &guests[i];
	if (strcmp(name, KERNEL_EMULATED))
		return NULL;
	return debian_version() >= 13 ? &host_13 : &host_12;
}

bool setup_kernel_ready(int state, const char *name)
{
	return setup_is_current(state, FOLDER, name, JSON, RECIPE, "vmlinux") &&
	       setup_is_current(state, FOLDER, name, JSON, RECIPE, "modules.cpio");
}

/* What is being made. */
struct making {
	struct setup *s;
	const struct setup_kernel_kind *kind;
	struct object o;
	char version[VERSION_MAX];
	char modules[32 + VERSION_MAX]; /* folder of the modules below the tree */
	struct module_plan plan;
};

/* The one boot/vmlinuz-VERSION of the tree; of several, the newest. */
static int find_version(struct making *m, struct error *e)
{
	static const char prefix[] = "vmlinuz-";
	int fd = openat(m->o.dir, SETUP_TREE "/boot", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *d = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *ent;

	m->version[0] = '\0';
	if (!d) {
		close_fd(&fd);
		return error_set(e, ENOENT, "package %s: has no folder boot", m->kind->package);
	}
	while ((ent = readdir(d))) {
		const char *version = ent->d_name + sizeof(prefix) - 1;

		if (strncmp(ent->d_name, prefix, sizeof(prefix) - 1) ||
			strlen(version) >= VERSION_MAX)
			continue;
		if (!m->version[0] || strverscmp(version, m->version) > 0)
			snprintf(m->version, sizeof(m->version), "%s", version);
	}
	closedir(d);
	if (!m->version[0])
		return error_set(e, ENOENT, "package %s: has no boot/vmlinuz-*", m->kind->package);
	return 0;
}

static int unpack_kernel(struct making *m, struct error *e)
{
	autoclose int in = -1, out = -1;
	char path[32 + VERSION_MAX];
	int r;

	snprintf(path, sizeof(path), SETUP_TREE "/boot/vmlinuz-%s", m->version);
	in = openat(m->o.dir, path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	out = openat(m->o.dir, "vmlinux", O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (in < 0 || out < 0)
		return dirs_fail(e, errno, "kernel object", m->s->object);
	r = vmlinux_unpack(in, out, e);
	if (r == -ENOSPC || r == -EDQUOT)
		return dirs_fail(e, -r, "kernel object", m->s->object);
	if (r)
		error_prefix(e, "package %s: vmlinuz-%s", m->kind->package, m->version);
	return r;
}

/* depmod(8) writes the modules.* files. Debian 12 has the modules in /lib, Debian 13 in /usr/lib. */
static int run_depmod(struct making *m, struct error *e)
{
	static const char *const bases[] = { SETUP_TREE, SETUP_TREE "/usr" };
	char base[sizeof(m->s->object) + 16];
	const char *const argv[] = { "depmod", "-b", base, m->version, NULL };
	struct setup_run run = { .argv = argv, .package = "kmod" };

	for (size_t i = 0; i < ARRAY_SIZE(bases); i++) {
		snprintf(m->modules, sizeof(m->modules), "%s/lib/modules/%s", bases[i], m->version);
		if (faccessat(m->o.dir, m->modules, F_OK, 0))
			continue;
		snprintf(base, sizeof(base), "%s/%s", m->s->object, bases[i]);
		return setup_run(m->s, &run, e);
	}
	return error_set(
		e, ENOENT, "package %s: has no modules for %s", m->kind->package, m->version);
}

static int read_text(struct making *m, const char *name, char **ret, struct error *e)
{
	char path[sizeof(m->modules) + 32];
	size_t len;

	snprintf(path, sizeof(path), "%s/%s", m->modules, name);
	return file_read(m->o.dir, path, TEXT_MAX, ret, &len, e);
}

static int plan_modules(struct making *m, struct error *e)
{
	autofree char *dep = NULL, *builtin = NULL, *softdep = NULL, *alias = NULL;
	struct modules_info info;
	int r = read_text(m, "modules.dep", &dep, e);

	if (!r)
		r = read_text(m, "modules.builtin", &builtin, e);
	if (!r)
		r = read_text(m, "modules.softdep", &softdep, e);
	if (!r)
		r = read_text(m, "modules.alias", &alias, e);
	if (r)
		return r;
	info = (struct modules_info){ dep, builtin, softdep, alias };
	r = modules_plan(&info, m->kind->want, m->kind->nwant, &m->plan, e);
	if (r)
		error_prefix(e, "kernel %s", m->version);
	return r;
}

/* Guests load uncompressed modules: the host unpacks them once. */
static int read_module(struct making *m, const struct module_step *step, uint8_t **ret,
	size_t *ret_len, struct error *e)
{
	char path[sizeof(m->modules) + sizeof(step->path) + 2];
	enum decompress_kind kind;
	autofree char *data = NULL;
	size_t len;
	int r;

	snprintf(path, sizeof(path), "%s/%s", m->modules, step->path);
	r = file_read(m->o.dir, path, MODULE_MAX, &data, &len, e);
	if (r)
		return r;
	kind = decompress_detect((uint8_t *)data, len);
	if (kind == DECOMPRESS_UNKNOWN) {
		*ret = (uint8_t *)take_ptr(data);
		*ret_len = len;
		return 0;
	}
	r = decompress_alloc(kind, data, len, MODULE_MAX, ret, ret_len, e);
	if (r)
		error_prefix(e, "module '%s'", step->name);
	return r;
}

static int add_module(
	struct making *m, struct cpio *c, const struct module_step *step, struct error *e)
{
	autofree uint8_t *data = NULL;
	char name[16 + sizeof(step->name)];
	size_t len;
	int r = read_module(m, step, &data, &len, e);

	if (r)
		return r;
	snprintf(name, sizeof(name), "modules/%s.ko", step->name);
	r = cpio_file(c, name, 0644, data, modules_code_len(data, len));
	return r ? dirs_fail(e, -r, "kernel object", m->s->object) : 0;
}

static int add_list(struct making *m, struct cpio *c, struct error *e)
{
	autofree char *text = NULL;
	size_t len = 0;
	FILE *f = open_memstream(&text, &len);
	int r;

	if (!f)
		return error_set(e, ENOMEM, "out of memory");
	for (size_t i = 0; i < m->plan.n; i++)
		fprintf(f, "%s.ko%s%s\n", m->plan.step[i].name, m->plan.step[i].options ? " " : "",
			m->plan.step[i].options ? m->plan.step[i].options : "");
	if (fclose(f))
		return error_set(e, ENOMEM, "out of memory");
	r = cpio_folder(c, "modules", 0755);
	if (!r)
		r = cpio_file(c, "modules/list", 0644, text, len);
	return r ? dirs_fail(e, -r, "kernel object", m->s->object) : 0;
}

static int pack_modules(struct making *m, struct error *e)
{
	autoclose int fd =
		openat(m->o.dir, "modules.cpio", O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	struct cpio c;
	int r;

	if (fd < 0)
		return dirs_fail(e, errno, "kernel object", m->s->object);
	cpio_init(&c, fd);
	r = add_list(m, &c, e);
	for (size_t i = 0; !r && i < m->plan.n; i++)
		r = add_module(m, &c, &m->plan.step[i], e);
	if (r)
		return r;
	r = cpio_end(&c);
	return r ? dirs_fail(e, -r, "kernel object", m->s->object) : 0;
}

static int write_json(struct making *m, struct error *e)
{
	autoclose int fd = openat(m->o.dir, "vmlinux", O_RDONLY | O_CLOEXEC);
	char hash[HASH_TEXT], date[24];
	autofree char *text = NULL;
	struct json_out j;
	cJSON *list;
	int r = fd < 0 ? -errno : hash_fd(fd, hash);

	if (r)
		return dirs_fail(e, -r, "kernel object", m->s->object);
	setup_date(date);
	json_out_init(&j);
	json_add_u64(&j, j.root, "recipe", RECIPE);
	json_add_str(&j, j.root, "version", m->version);
	json_add_str(&j, j.root, "suite", m->kind->suite);
	json_add_str(&j, j.root, "package", m->kind->package);
	json_add_str(&j, j.root, "created", date);
	json_add_str(&j, j.root, "sha256", hash);
	list = json_add_array(&j, j.root, "modules");
	for (size_t i = 0; i < m->plan.n; i++)
		json_push_str(&j, list, m->plan.step[i].name);
	text = json_print(&j, true);
	json_out_free(&j);
	if (!text)
		return error_set(e, ENOMEM, "out of memory");
	return file_replace(m->o.dir, JSON, text, strlen(text), 0600, e);
}

static int make(struct making *m, struct error *e)
{
	struct progress *p = &m->s->progress;
	int r = setup_debootstrap(m->s, "extract", m->kind->suite, m->kind->package, NULL, e);

	if (!r)
		r = find_version(m, e);
	if (!r) {
		progress_step(p, "unpacking the kernel");
		r = unpack_kernel(m, e);
	}
	if (!r) {
		progress_step(p, "choosing modules");
		r = run_depmod(m, e);
	}
	if (!r)
		r = plan_modules(m, e);
	if (!r)
		r = pack_modules(m, e);
	if (!r) {
		progress_step(p, "cleaning up");
		r = write_json(m, e);
	}
	return r ? r : setup_remove_tree(m->s, &m->o, e);
}

int setup_kernel(struct setup *s, const char *name, struct error *e)
{
	autofree struct making *m = calloc(1, sizeof(*m));
	autoclose int folder = -1;
	char what[64];
	int r;

	if (!m)
		return error_set(e, ENOMEM, "out of memory");
	m->s = s;
	m->o.dir = -1;
	m->kind = setup_kernel_find(name);
	if (!m->kind)
		return error_set(e, EINVAL, "kernel '%s': can't be made", name);
	snprintf(what, sizeof(what), "kernel %s", name);
	progress_begin(&s->progress, what, STEPS);
	r = setup_object(s, FOLDER, &folder, &m->o, e);
	if (!r)
		r = make(m, e);
	if (r)
		setup_abort(s, &m->o);
	else
		r = object_publish(&m->o, name, true, e);
	progress_end(&s->progress, r ? NULL : m->version);
	if (r)
		error_prefix(e, "%s", what);
	return r;
}

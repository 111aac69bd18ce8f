/*
 * api/emu/emu_disk.c - what an emulated host boots from and writes to: initramfs and disk
 */
#include "api/emu/emu_qemu.h"

#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "base/file.h"
#include "guest-init/guest_blob.h"

#define DISK_DIR        "emulated-host"
#define CPIO_HEAD       110 /* newc */
#define HOST_NAME_BYTES 65

/* ---- initramfs ---- */

/* Archives follow each other at multiples of 4 bytes. */
static int pad4(int fd)
{
	off_t at = lseek(fd, 0, SEEK_CUR);

	return at < 0 ? -errno : file_write_all(fd, "\0\0\0", (size_t)(-at & 3));
}

static int cpio_entry(int fd, const char *name, unsigned mode, const void *data, size_t len)
{
	char head[CPIO_HEAD + 1];
	int r;

	snprintf(head, sizeof(head), "070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x",
		0u, mode, 0u, 0u, 1u, 0u, (unsigned)len, 0u, 0u, 0u, 0u, (unsigned)strlen(name) + 1,
		0u);
	r = file_write_all(fd, head, CPIO_HEAD);
	if (!r)
		r = file_write_all(fd, name, strlen(name) + 1);
	if (!r)
		r = pad4(fd);
	if (!r)
		r = file_write_all(fd, data, len);
	return r ? r : pad4(fd);
}

static int write_conf(int fd, const struct emu_config *c)
{
	char *text = malloc(EMU_CONF_MAX), host[HOST_NAME_BYTES] = "localhost";
	int n, r;

	if (!text)
		return -ENOMEM;
	/* Programs in L1 see the name of the machine whose files they see. */
	gethostname(host, sizeof(host) - 1);
	n = snprintf(text, EMU_CONF_MAX,
		"state=%s\ncache=%s\nruntime=%s\nhostname=%s\nports=%d\nscratch=%u\npackages=%d\n",
		c->state, c->cache, c->runtime, host, EMU_PORTS, c->scratch,
		!access(EMU_PACKAGES, R_OK));
	r = n < 0 || n >= EMU_CONF_MAX ? -ENAMETOOLONG : 0;
	if (!r)
		r = cpio_entry(fd, EMU_CONF, S_IFREG | 0644, text, (size_t)n);
	if (!r)
		r = cpio_entry(fd, "TRAILER!!!", 0, "", 0);
	free(text);
	return r;
}

static int copy_file(int to, const char *path, struct error *e)
{
	autoclose int fd = open(path, O_RDONLY | O_CLOEXEC);
	char *buf = malloc(MIB);
	ssize_t n = -1;
	int r = 0;

	if (fd < 0 || !buf) {
		r = error_set(e, buf ? errno : ENOMEM, "'%s': %s", path,
			buf ? strerror(errno) : "out of memory");
		free(buf);
		return r;
	}
	while (!r && (n = read(fd, buf, MIB)) > 0)
		r = file_write_all(to, buf, (size_t)n);
	if (!r && n < 0)
		r = -errno;
	free(buf);
	return r ? error_set(e, -r, "'%s': %s", path, strerror(-r)) : 0;
}

int emu_initrd(const struct emu_config *c, struct error *e)
{
	autoclose int fd = memfd_create("skerry-emu-initrd", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	int r;

	if (fd < 0)
		return error_set(e, errno, "memfd_create: %s", strerror(errno));
	r = copy_file(fd, c->modules, e);
	if (r)
		return r;
	r = pad4(fd);
	if (!r)
		r = file_write_all(
			fd, guest_blob_start, (size_t)(guest_blob_end - guest_blob_start));
	if (!r)
		r = pad4(fd);
	if (!r)
		r = write_conf(fd, c);
	if (!r && fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL))
		r = -errno;
	if (r)
		return error_set(e, -r, "the emulated host's initramfs: %s", strerror(-r));
	return take_fd(&fd);
}

/* ---- disk ---- */

static int run_mke2fs(const char *path, struct error *e)
{
	/* Inode tables and journal are zeros already: nothing is written that is not used. */
	char *argv[] = { "mke2fs", "-q", "-F", "-t", "ext4", "-m", "0", "-J", "size=16", "-E",
		"nodiscard,lazy_itable_init=1,lazy_journal_init=1", (char *)path, NULL };
	char *env[] = { "PATH=/usr/sbin:/sbin:/usr/bin:/bin", NULL };
	posix_spawn_file_actions_t fa;
	pid_t pid;
	int r, status = 0;

	posix_spawn_file_actions_init(&fa);
	posix_spawn_file_actions_addopen(&fa, 0, "/dev/null", O_RDWR, 0);
	r = posix_spawn(&pid, "/sbin/mke2fs", &fa, NULL, argv, env);
	if (r == ENOENT)
		r = posix_spawn(&pid, "/usr/sbin/mke2fs", &fa, NULL, argv, env);
	posix_spawn_file_actions_destroy(&fa);
	if (r)
		return error_set(
			e, r, "mke2fs: %s; run: sudo apt-get install e2fsprogs", strerror(r));
	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return error_set(e, errno, "mke2fs: %s", strerror(errno));
	if (!WIFEXITED(status) || WEXITSTATUS(status))
		return error_set(
			e, EIO, "mke2fs '%s' failed (status %x); is there room?", path, status);
	return 0;
}

/* Under a temporary name, so that half a file system is never taken for a whole one. */
static int make_disk(int dir, const char *folder, const char *name, struct error *e)
{
	char tmp[EMU_PATH_MAX + 64], *base;
	autoclose int fd = -1;
	int r;

	if ((size_t)snprintf(tmp, sizeof(tmp), "%s/%s.new", folder, name) >= sizeof(tmp))
		return error_set(e, ENAMETOOLONG, "'%s': path too long", folder);
	base = strrchr(tmp, '/') + 1;
	fd = openat(dir, base, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return error_set(e, errno, "'%s': %s", tmp, strerror(errno));
	/* Whoever starts at the same moment comes back later, and then finds the disk made. */
	if (flock(fd, LOCK_EX | LOCK_NB))
		return errno == EWOULDBLOCK
			       ? -EWOULDBLOCK
			       : error_set(e, errno, "'%s': lock: %s", tmp, strerror(errno));
	if (!faccessat(dir, name, F_OK, 0))
		return 0;
	r = ftruncate(fd, 0) || ftruncate(fd, (off_t)EMU_DISK_BYTES)
		    ? error_set(e, errno, "'%s': %s", tmp, strerror(errno))
		    : run_mke2fs(tmp, e);
	if (!r && renameat(dir, base, dir, name))
		r = error_set(e, errno, "'%s': %s", tmp, strerror(errno));
	if (r)
		unlinkat(dir, base, 0);
	return r;
}

static const char *disk_name(const struct emu_config *c)
{
	return c->icount ? "disk-icount.ext4" : "disk.ext4";
}

int emu_disk_stat(const struct emu_config *c, struct stat *ret)
{
	char path[EMU_PATH_MAX + 64];

	snprintf(path, sizeof(path), "%s/%s/%s", c->state, DISK_DIR, disk_name(c));
	return stat(path, ret) ? -errno : 0;
}

int emu_disk_open(const struct emu_config *c, struct error *e)
{
	const char *name = disk_name(c);
	char folder[EMU_PATH_MAX + 32];
	autoclose int dir = -1;
	autoclose int fd = -1;
	int r;

	snprintf(folder, sizeof(folder), "%s/%s", c->state, DISK_DIR);
	if (mkdir(folder, 0700) && errno != EEXIST)
		return error_set(e, errno, "'%s': %s", folder, strerror(errno));
	dir = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
	if (dir < 0)
		return error_set(e, errno, "'%s': %s", folder, strerror(errno));
	fd = openat(dir, name, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
	if (fd < 0 && errno == ENOENT) {
		r = make_disk(dir, folder, name, e);
		if (r)
			return r;
		fd = openat(dir, name, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
	}
	if (fd < 0)
		return error_set(e, errno, "'%s/%s': %s", folder, name, strerror(errno));
	if (flock(fd, LOCK_EX | LOCK_NB))
		return errno == EWOULDBLOCK ? -EWOULDBLOCK
					    : error_set(e, errno, "'%s/%s': lock: %s", folder, name,
						      strerror(errno));
	return take_fd(&fd);
}

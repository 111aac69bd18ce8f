#include "guest-init/cgroup.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#define DEPTH_MAX 16 /* of folders that the guest made below ours */
#define FOLDER    32 /* "skerry." and a number */

static int write_at(int dir, const char *file, const char *text)
{
	autoclose int fd = openat(dir, file, O_WRONLY | O_CLOEXEC | O_NOFOLLOW);

	if (fd < 0 || write(fd, text, strlen(text)) < 0)
		return -errno;
	return 0;
}

/* Also where the memory controller is missing: then it is only the kills that aren't counted. */
static void count_memory(int dir)
{
	int r = write_at(dir, "cgroup.subtree_control", "+memory");

	(void)r;
}

void cgroup_open(struct cgroup_root *r, const char *path)
{
	*r = (struct cgroup_root){ .fd = -1 };
	if (!path)
		return;
	r->fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (r->fd < 0)
		return;
	if (faccessat(r->fd, "cgroup.subtree_control", W_OK, 0)) /* no cgroup v2, or not ours */
		close_fd(&r->fd);
	else
		count_memory(r->fd);
}

void cgroup_close(struct cgroup_root *r)
{
	cgroup_sweep(r);
	close_fd(&r->fd);
}

static void conn_folder(char ret[FOLDER], uint64_t serial)
{
	snprintf(ret, FOLDER, "skerry.%" PRIu64, serial);
}

static void prog_folder(char ret[FOLDER], uint64_t prog)
{
	snprintf(ret, FOLDER, "%" PRIu64, prog);
}

/* Make a folder and open it; -1 if that can't be. One left by an earlier agent serves as well. */
static int make(int dir, const char *name)
{
	if (mkdirat(dir, name, 0755) && errno != EEXIST)
		return -1;
	return openat(dir, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
}

void cgroup_conn_create(struct cgroup_root *r, struct cgroup_conn *c)
{
	char name[FOLDER];

	*c = (struct cgroup_conn){ .fd = -1, .serial = ++r->next_conn };
	if (r->fd < 0)
		return;
	conn_folder(name, c->serial);
	c->fd = make(r->fd, name);
	if (c->fd >= 0)
		count_memory(c->fd);
}

/* Keep a number in a fixed table; when full the oldest is forgotten, its folder stays behind. */
static void remember(uint64_t *table, size_t n, uint64_t number)
{
	memmove(table + 1, table, (n - 1) * sizeof(*table));
	table[0] = number;
}

/* Remove a folder and those that the guest made in it; false: still busy. */
static bool remove_tree(int dir, const char *name, unsigned depth)
{
	struct dirent *e;
	bool ok = true;
	DIR *d;
	int fd;

	if (!unlinkat(dir, name, AT_REMOVEDIR) || errno == ENOENT)
		return true;
	if (depth >= DEPTH_MAX)
		return false;
	fd = openat(dir, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
	d = fd < 0 ? NULL : fdopendir(fd);
	if (!d) {
		close_fd(&fd);
		return false;
	}
	while (ok && (e = readdir(d)))
		if (e->d_type == DT_DIR && strcmp(e->d_name, ".") && strcmp(e->d_name, ".."))
			ok = remove_tree(dirfd(d), e->d_name, depth + 1);
	closedir(d);
	return ok && !unlinkat(dir, name, AT_REMOVEDIR);
}

void cgroup_conn_end(struct cgroup_root *r, struct cgroup_conn *c)
{
	char name[FOLDER];

	if (c->fd < 0)
		return;
	if (write_at(c->fd, "cgroup.kill", "1")) {
		/* Before Linux 5.14 there is no such file; proc.c has killed the process groups. */
	}
	close_fd(&c->fd);
	conn_folder(name, c->serial);
	if (!remove_tree(r->fd, name, 0))
		remember(r->dying, ARRAY_SIZE(r->dying), c->serial);
}

void cgroup_sweep(struct cgroup_root *r)
{
	char name[FOLDER];

	for (size_t i = 0; i < ARRAY_SIZE(r->dying); i++) {
		if (!r->dying[i])
			continue;
		conn_folder(name, r->dying[i]);
		if (remove_tree(r->fd, name, 0))
			r->dying[i] = 0;
	}
}

int cgroup_prog_create(struct cgroup_conn *c, uint64_t *ret_prog)
{
	char name[FOLDER];
	int fd;

	*ret_prog = 0;
	if (c->fd < 0)
		return -1;
	prog_folder(name, ++c->next_prog);
	fd = make(c->fd, name);
	if (fd >= 0)
		*ret_prog = c->next_prog;
	return fd;
}

bool cgroup_prog_oom(const struct cgroup_conn *c, uint64_t prog)
{
	char path[64], text[512];
	autoclose int fd = -1;
	const char *p;
	ssize_t n;

	if (c->fd < 0 || !prog)
		return false;
	snprintf(path, sizeof(path), "%" PRIu64 "/memory.events", prog);
	fd = openat(c->fd, path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	n = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);
	if (n <= 0)
		return false;
	text[n] = '\0';
	p = strstr(text, "\noom_kill ");
	return p && p[10] >= '1' && p[10] <= '9';
}

bool cgroup_prog_kill(const struct cgroup_conn *c, uint64_t prog)
{
	char path[64];

	if (c->fd < 0 || !prog)
		return false;
	snprintf(path, sizeof(path), "%" PRIu64 "/cgroup.kill", prog);
	return !write_at(c->fd, path, "1");
}

/*
 * What the guest made inside stays until the connection ends: looking for it at every exit is too
 * dear.
 */
static bool prog_remove(struct cgroup_conn *c, uint64_t prog)
{
	char name[FOLDER];

	prog_folder(name, prog);
	return !unlinkat(c->fd, name, AT_REMOVEDIR) || errno == ENOENT;
}

void cgroup_prog_end(struct cgroup_conn *c, uint64_t prog)
{
	if (c->fd >= 0 && prog && !prog_remove(c, prog))
		remember(c->lingering, ARRAY_SIZE(c->lingering), prog);
}

void cgroup_conn_sweep(struct cgroup_conn *c)
{
	for (size_t i = 0; i < ARRAY_SIZE(c->lingering); i++)
		if (c->lingering[i] && prog_remove(c, c->lingering[i]))
			c->lingering[i] = 0;
}

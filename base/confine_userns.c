/*
 * base/confine_userns.c - namespaces: which, for whom, and why not
 *
 * What:    the namespaces of each level, the ids of a role outside its user namespace, and the
 *          reasons a kernel or distribution has for refusing namespaces, in words. A role of an
 *          unprivileged user keeps that user's id; under root it gets one of its own, so that
 *          sandboxes cannot reach each other: ID_BASE + its process id, in a range that systemd's
 *          registry of user ids leaves unused. Inside a container that maps no such id: one from
 *          the upper half of the largest range that is mapped.
 * Spec:    user_namespaces(7); https://systemd.io/UIDS-GIDS
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/sched.h>
#include <stdio.h>
#include <string.h>

#include "base/confine_int.h"

#define ID_BASE   UINT32_C(0x70000000)
#define ID_RANGE  UINT32_C(0x400000) /* PID_MAX_LIMIT of 64-bit Linux */
#define ID_ENOUGH 4096               /* a range shorter than this belongs to somebody */

uint64_t confine_ns_flags(enum confine_level level)
{
	uint64_t flags = CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS |
			 CLONE_NEWCGROUP;

	if (level < CONFINE_ROOT)
		return 0;
	return level == CONFINE_FULL ? flags | CLONE_NEWUSER : flags;
}

/* Choose from the extents that @path lists (/proc/self/[ug]id_map); @own if none is large. */
static int id_pick(const char *path, uint32_t n, uint32_t own, uint32_t *ret)
{
	FILE *f = fopen(path, "re");
	uint32_t first, outside, count, best_first = 0, best_count = 0;
	bool base = false;

	if (!f)
		return -errno;
	while (fscanf(f, "%u %u %u", &first, &outside, &count) == 3) {
		if (first <= ID_BASE && count > ID_RANGE && ID_BASE - first <= count - ID_RANGE)
			base = true;
		if (count > best_count) {
			best_first = first;
			best_count = count;
		}
	}
	fclose(f);
	if (base)
		*ret = ID_BASE + n % ID_RANGE;
	else if (best_count >= ID_ENOUGH)
		*ret = best_first + best_count - 1 - n % (best_count / 2);
	else
		*ret = own;
	return 0;
}

int confine_ids_pick(pid_t pid, uid_t *ret_uid, gid_t *ret_gid)
{
	int r = id_pick("/proc/self/uid_map", (uint32_t)pid, geteuid(), ret_uid);

	return r ? r : id_pick("/proc/self/gid_map", (uint32_t)pid, getegid(), ret_gid);
}

static int proc_write(pid_t pid, const char *name, const char *text)
{
	char path[64];
	autoclose int fd = -1;

	snprintf(path, sizeof(path), "/proc/%d/%s", pid, name);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0 || write(fd, text, strlen(text)) < 0)
		return -errno;
	return 0;
}

int confine_map_ids(pid_t pid, uid_t uid, gid_t gid)
{
	char map[32];
	int r;

	/* user_namespaces(7): the price of mapping one's own group without privilege */
	if (uid == geteuid()) {
		r = proc_write(pid, "setgroups", "deny");
		if (r)
			return r;
	}
	snprintf(map, sizeof(map), "0 %u 1", uid);
	r = proc_write(pid, "uid_map", map);
	if (r)
		return r;
	snprintf(map, sizeof(map), "0 %u 1", gid);
	return proc_write(pid, "gid_map", map);
}

/* The number in a file of /proc/sys, or @absent. */
static long sysctl_get(const char *path, long absent)
{
	FILE *f = fopen(path, "re");
	long v;

	if (!f)
		return absent;
	if (fscanf(f, "%ld", &v) != 1)
		v = absent;
	fclose(f);
	return v;
}

/* The mode in /proc/self/status: 2 if a filter is at work, as in most containers. */
static bool under_seccomp(void)
{
	FILE *f = fopen("/proc/self/status", "re");
	char line[256];
	int mode = 0;

	if (!f)
		return false;
	while (fgets(line, sizeof(line), f))
		if (sscanf(line, "Seccomp: %d", &mode) == 1)
			break;
	fclose(f);
	return mode == 2;
}

/* A setting that refuses; @unprivileged: only those without CAP_SYS_ADMIN. */
static const struct setting {
	const char *path;
	long refuses;
	bool unprivileged;
	const char *why;
} settings[] = {
	{ "/proc/sys/kernel/unprivileged_userns_clone", 0, true,
		"kernel.unprivileged_userns_clone is 0; run: sudo sysctl -w "
		"kernel.unprivileged_userns_clone=1" },
	{ "/proc/sys/kernel/apparmor_restrict_unprivileged_userns", 1, true,
		"AppArmor restricts them; load a profile for skerry with 'userns,', or run: "
		"sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0" },
#define LIMIT(name)                                                                                \
	{                                                                                          \
		"/proc/sys/user/" name, 0, false,                                                  \
			"user." name " is 0; run: sudo sysctl -w user." name "=10000"              \
	}
	LIMIT("max_user_namespaces"),
	LIMIT("max_net_namespaces"),
	LIMIT("max_mnt_namespaces"),
	LIMIT("max_pid_namespaces"),
	LIMIT("max_ipc_namespaces"),
	LIMIT("max_uts_namespaces"),
	LIMIT("max_cgroup_namespaces"),
};

static const struct setting *refusing_setting(void)
{
	static const int sys_admin[] = { CAP_SYS_ADMIN };
	bool privileged = confine_caps_have(sys_admin, 1);

	for (size_t i = 0; i < ARRAY_SIZE(settings); i++)
		if (!(settings[i].unprivileged && privileged) &&
			sysctl_get(settings[i].path, -1) == settings[i].refuses)
			return &settings[i];
	return NULL;
}

void confine_ns_why(int err, struct error *e)
{
	const struct setting *s = refusing_setting();

	if (s)
		error_set(e, err, "user namespaces: %s", s->why);
	else if (access("/proc/self/ns/user", F_OK))
		error_set(e, err, "user namespaces: this kernel is built without CONFIG_USER_NS");
	else if (err == ENOSPC || err == EUSERS)
		error_set(e, err,
			"user namespaces: a limit is reached; raise sysctl user.max_*_namespaces");
	else if (under_seccomp())
		error_set(e, err,
			"user namespaces: refused (%s), probably by the seccomp profile of this "
			"container; allow clone, unshare, mount and pivot_root in it",
			strerror(err));
	else
		error_set(e, err,
			"user namespaces: refused: %s; this may be a chroot, a container or a "
			"security module; run skerry outside of it",
			strerror(err));
}

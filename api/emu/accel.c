/*
 * api/emu/accel.c - KVM or the emulated host
 */
#include "api/emu/accel.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <inttypes.h>
#include <pwd.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "api/emu/emu_dirs.h"
#include "base/file.h"

#define KVM_PATH   "/dev/kvm"
#define CACHE_NAME "kvm-speed"
#define CACHE_MAX  512
#define GROUPS_MAX 256

int accel_parse(struct accel_want *ret, const char *s, struct error *e)
{
	if (!s || !strcmp(s, "auto"))
		*ret = (struct accel_want){ ACCEL_AUTO, false };
	else if (!strcmp(s, "kvm"))
		*ret = (struct accel_want){ ACCEL_KVM, false };
	else if (!strcmp(s, "emulated"))
		*ret = (struct accel_want){ ACCEL_EMULATED, false };
	else if (!strcmp(s, "emulated,icount"))
		*ret = (struct accel_want){ ACCEL_EMULATED, true };
	else
		return error_set(e, EINVAL, "--accel '%s': unknown; one of %s", s, ACCEL_SYNTAX);
	return 0;
}

/* ---- a device node that may not be opened ---- */

/* Is the user, by the group file, a member of @gid? (The session may be older than that.) */
static bool user_is_member(const struct passwd *pw, gid_t gid)
{
	gid_t groups[GROUPS_MAX];
	int n = GROUPS_MAX;

	if (!pw || getgrouplist(pw->pw_name, pw->pw_gid, groups, &n) < 0)
		return false;
	for (int i = 0; i < n; i++)
		if (groups[i] == gid)
			return true;
	return false;
}

static bool session_has(gid_t gid)
{
	gid_t groups[GROUPS_MAX];
	int n = getgroups(GROUPS_MAX, groups);

	for (int i = 0; i < n; i++)
		if (groups[i] == gid)
			return true;
	return getegid() == gid;
}

static int forbidden_error(const char *path, int err, struct error *e)
{
	const struct passwd *pw = getpwuid(geteuid());
	const char *user = pw ? pw->pw_name : "USER";
	const struct group *gr;
	struct stat st;

	if (err == EPERM || stat(path, &st))
		return error_set(e, err,
			"%s: %s; in a container, allow the device (docker run --device %s), or use "
			"--accel emulated",
			path, strerror(err), path);
	gr = getgrgid(st.st_gid);
	if ((st.st_mode & 0060) != 0060 || st.st_gid == 0)
		return error_set(e, err,
			"%s: %s (mode %04o, group %s); let the group kvm use it: sudo chgrp kvm %s && sudo chmod "
			"660 %s && sudo usermod -aG kvm %s, then log in again; or use --accel emulated",
			path, strerror(err), st.st_mode & 07777, gr ? gr->gr_name : "unknown", path,
			path, user);
	if (session_has(st.st_gid))
		return error_set(e, err,
			"%s: %s although this session has its group %s; a security module or container "
			"forbids it; or use --accel emulated",
			path, strerror(err), gr ? gr->gr_name : "unknown");
	if (user_is_member(pw, st.st_gid))
		return error_set(e, err,
			"%s: %s; user %s is in its group %s, but this session is older than that: log out "
			"and in again (or run: newgrp %s), or use --accel emulated",
			path, strerror(err), user, gr ? gr->gr_name : "?", gr ? gr->gr_name : "?");
	return error_set(e, err,
		"%s: %s; run: sudo usermod -aG %s %s, then log out and in again; or use --accel emulated",
		path, strerror(err), gr ? gr->gr_name : "kvm", user);
}

/* *ret_fd = -1 if there is no such device. */
static int open_kvm(const char *path, int *ret_fd, struct error *e)
{
	int fd = open(path, O_RDWR | O_CLOEXEC);

	if (fd < 0 && errno != ENOENT && errno != ENODEV && errno != ENXIO) {
		if (errno == EACCES || errno == EPERM)
			return forbidden_error(path, errno, e);
		return error_set(e, errno, "%s: %s", path, strerror(errno));
	}
	*ret_fd = fd;
	return 0;
}

/* ---- the measurement of this boot ---- */

/*
 * One line: "1 BOOT_ID DEVICE INODE KIND TURN WHY". What doesn't match this boot and this node is measured anew.
 */
static int cache_key(const char *path, char *ret, size_t size)
{
	char *boot = NULL;
	struct stat st;
	size_t len;
	int r = file_read(AT_FDCWD, "/proc/sys/kernel/random/boot_id", 64, &boot, &len, NULL);

	if (!r && stat(path, &st))
		r = -errno;
	if (!r) {
		boot[strcspn(boot, "\n")] = '\0';
		snprintf(ret, size, "1 %s %" PRIx64 " %" PRIu64 " ", boot, (uint64_t)st.st_rdev,
			(uint64_t)st.st_ino);
	}
	free(boot);
	return r;
}

static bool cache_load(int dir, const char *key, struct accel_report *ret)
{
	struct accel_report rep = { 0 };
	char *text = NULL;
	bool ok = false;
	size_t len;
	int kind, at = 0;

	if (file_read(dir, CACHE_NAME, CACHE_MAX, &text, &len, NULL))
		return false;
	if (!strncmp(text, key, strlen(key)) &&
		sscanf(text + strlen(key), "%d %" SCNu64 " %n", &kind, &rep.turn_ns_x100, &at) ==
			2 &&
		at && kind >= ACCEL_KVM_SLOW && kind <= ACCEL_KVM_USABLE) {
		rep.kvm = (enum accel_kvm)kind;
		snprintf(rep.why, sizeof(rep.why), "%.*s",
			(int)strcspn(text + strlen(key) + at, "\n"), text + strlen(key) + at);
		*ret = rep;
		ok = true;
	}
	free(text);
	return ok;
}

static void cache_store(int dir, const char *key, const struct accel_report *rep)
{
	char line[CACHE_MAX];
	int n = snprintf(line, sizeof(line), "%s%d %" PRIu64 " %s\n", key, (int)rep->kvm,
		rep->turn_ns_x100, rep->why);

	/* A cache that can't be written costs 30 ms at the next start, nothing else. */
	if (n > 0 && (size_t)n < sizeof(line) &&
		file_replace(dir, CACHE_NAME, line, (size_t)n, 0600, NULL))
		return;
}

int accel_report(const char *path, int cache_dir, struct accel_report *ret, struct error *e)
{
	struct accel_report rep = { 0 };
	autoclose int kvm = -1;
	char key[160];
	bool cached;
	int r = open_kvm(path, &kvm, e);

	if (r)
		return r;
	if (kvm < 0) {
		*ret = rep;
		return 0;
	}
	cached = cache_dir >= 0 && !cache_key(path, key, sizeof(key));
	if (cached && cache_load(cache_dir, key, ret))
		return 0;
	r = accel_measure(kvm, &rep);
	if (r)
		return error_set(e, -r, "%s: can't be measured: %s", path, strerror(-r));
	/* What failed may work a moment later (EBUSY: another hypervisor has the CPU). */
	if (cached && rep.kvm != ACCEL_KVM_BROKEN)
		cache_store(cache_dir, key, &rep);
	*ret = rep;
	return 0;
}

/* ---- the decision ---- */

static bool is_program(const char *path)
{
	struct stat st;

	return !stat(path, &st) && S_ISREG(st.st_mode) && !access(path, X_OK);
}

int accel_find_qemu(char *ret, size_t size, struct error *e)
{
	static const char name[] = "qemu-system-x86_64";
	const char *p = getenv("PATH");

	for (p = p ? p : ""; *p;) {
		size_t n = strcspn(p, ":");

		if (n && *p == '/' &&
			(size_t)snprintf(ret, size, "%.*s/%s", (int)n, p, name) < size &&
			is_program(ret))
			return 0;
		p += n + (p[n] == ':');
	}
	if ((size_t)snprintf(ret, size, "/usr/bin/%s", name) < size && is_program(ret))
		return 0;
	return error_set(e, ENOENT,
		"the emulated host needs QEMU, which isn't installed: sudo apt-get install qemu-system-x86");
}

#define SAY_NEXT ": using the emulated host"

static void say_why(const struct accel_report *rep, char *say, size_t size)
{
	if (rep->kvm == ACCEL_KVM_ABSENT)
		snprintf(say, size, "this machine has no %s", KVM_PATH);
	else if (rep->kvm == ACCEL_KVM_SLOW)
		snprintf(say, size,
			"KVM here can't run Linux guests (%" PRIu64 ".%" PRIu64
			" us per ring-0 turn)",
			rep->turn_ns_x100 / 100000, rep->turn_ns_x100 / 10000 % 10);
	else
		snprintf(say, size, "KVM here can't run guests (%s)", rep->why);
}

static int pick_auto(struct accel_choice *ret, struct error *e)
{
	struct accel_choice c = { .accel = ACCEL_KVM };
	struct accel_report rep;
	autoclose int dir = emu_runtime_open(NULL);
	char qemu[EMU_PATH_MAX], why[sizeof(c.say) - sizeof(SAY_NEXT)];
	int r = accel_report(KVM_PATH, dir, &rep, e);

	if (r)
		return r;
	if (rep.kvm != ACCEL_KVM_USABLE) {
		c.accel = ACCEL_EMULATED;
		say_why(&rep, why, sizeof(why));
		r = accel_find_qemu(qemu, sizeof(qemu), e);
		if (r)
			return error_prefix(e, "%s", why);
		snprintf(c.say, sizeof(c.say), "%s" SAY_NEXT, why);
	}
	*ret = c;
	return 0;
}

int accel_pick(const struct accel_want *want, struct accel_choice *ret, struct error *e)
{
	const char *inside = getenv(ACCEL_ENV_INSIDE);
	autoclose int kvm = -1;
	char qemu[EMU_PATH_MAX];
	int r;

	if (inside && *inside) {
		*ret = (struct accel_choice){ .accel = ACCEL_KVM };
		return 0;
	}
	switch (want->accel) {
	case ACCEL_EMULATED:
		r = accel_find_qemu(qemu, sizeof(qemu), e);
		if (r)
			return r;
		*ret = (struct accel_choice){ .accel = ACCEL_EMULATED, .icount = want->icount };
		return 0;
	case ACCEL_KVM:
		r = open_kvm(KVM_PATH, &kvm, e);
		if (r)
			return r;
		if (kvm < 0)
			return error_set(e, ENOENT,
				"--accel kvm: this machine has no %s; load the module kvm_intel or kvm_amd "
				"(sudo modprobe), or use --accel emulated",
				KVM_PATH);
		break;
	case ACCEL_AUTO:
		break;
	}
	r = pick_auto(ret, e);
	if (!r && want->accel == ACCEL_KVM && ret->accel != ACCEL_KVM)
		return error_set(e, ENODEV,
			"--accel kvm: %.*s; --accel emulated runs them without KVM",
			(int)(strlen(ret->say) - strlen(SAY_NEXT)), ret->say);
	return r;
}

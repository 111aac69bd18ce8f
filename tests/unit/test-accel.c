/*
 * tests/unit/test-accel.c - KVM or the emulated host: syntax, measurement, cache, messages
 */
#include "api/emu/accel.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "tests/lib/test.h"

static char folder[] = "/tmp/test-accel-XXXXXX";

static void test_parse(void)
{
	static const struct {
		const char *text;
		enum accel accel;
		bool icount;
	} good[] = {
		{ NULL, ACCEL_AUTO, false },
		{ "auto", ACCEL_AUTO, false },
		{ "kvm", ACCEL_KVM, false },
		{ "emulated", ACCEL_EMULATED, false },
		{ "emulated,icount", ACCEL_EMULATED, true },
	};
	static const char *const bad[] = { "", "KVM", "tcg", "kvm,icount", "emulated,", "auto ",
		"icount" };
	struct accel_want w;
	struct error e;

	for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
		CHECK_EQ(accel_parse(&w, good[i].text, &e), 0);
		CHECK_EQ(w.accel, good[i].accel);
		CHECK_EQ(w.icount, good[i].icount);
	}
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		CHECK_EQ(accel_parse(&w, bad[i], &e), -EINVAL);
		CHECK(strstr(e.msg, ACCEL_SYNTAX));
	}
}

static void test_absent(void)
{
	struct accel_report rep = { .kvm = ACCEL_KVM_USABLE };
	struct error e;

	CHECK_EQ(accel_report("/nonexistent/kvm", -1, &rep, &e), 0);
	CHECK_EQ(rep.kvm, ACCEL_KVM_ABSENT);
}

/* Something that opens but is no KVM: told apart from an absent one, and never kept. */
static void test_broken(int dir)
{
	struct accel_report rep = { 0 };
	struct error e;

	CHECK_EQ(accel_report("/dev/null", dir, &rep, &e), 0);
	CHECK_EQ(rep.kvm, ACCEL_KVM_BROKEN);
	CHECK(strstr(rep.why, "KVM_CREATE_VM"));
	CHECK(faccessat(dir, "kvm-speed", F_OK, 0) == -1);
}

/* A node that may not be opened is an error with its fix. Asked by somebody who isn't root. */
static void test_forbidden(void)
{
	char path[64];
	int status;
	pid_t pid;

	snprintf(path, sizeof(path), "%s/kvm", folder);
	close(open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
	REQUIRE(!chmod(folder, 0755));
	pid = fork();
	if (!pid) {
		struct accel_report rep;
		struct error e = { 0 };
		int r;

		if (!geteuid() && (setgid(65534) || setuid(65534)))
			_exit(3);
		if (chmod(path, 0) && errno != EPERM)
			_exit(4);
		r = accel_report(path, -1, &rep, &e);
		if (r != -EACCES || !strstr(e.msg, "usermod -aG") || !strstr(e.msg, path) ||
			!strstr(e.msg, "--accel emulated")) {
			fprintf(stderr, "%d: %s\n", r, e.msg);
			_exit(1);
		}
		_exit(0);
	}
	REQUIRE(waitpid(pid, &status, 0) == pid);
	CHECK_EQ(status, 0);
	unlink(path);
}

static void write_cache(int dir, const char *text)
{
	int fd = openat(dir, "kvm-speed", O_WRONLY | O_TRUNC | O_CLOEXEC);

	REQUIRE(fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text));
	close(fd);
}

/* The cache file with another result in it: "1 BOOT_ID DEVICE INODE KIND TURN WHY". */
static void fake_cache(int dir, char line[600])
{
	int fd = openat(dir, "kvm-speed", O_RDONLY | O_CLOEXEC);
	ssize_t n;
	char *p;

	REQUIRE(fd >= 0);
	n = read(fd, line, 500);
	REQUIRE(n > 50);
	close(fd);
	line[n] = '\0';
	p = line;
	for (int i = 0; i < 4; i++) {
		p = strchr(p, ' ');
		REQUIRE(p++);
	}
	snprintf(p, 90, "%d 424200 \n", ACCEL_KVM_SLOW);
	write_cache(dir, line);
}

static void test_measure(int dir)
{
	struct accel_report rep = { 0 };
	char line[600] = "";
	struct error e;
	int k = open("/dev/kvm", O_RDWR | O_CLOEXEC);

	if (k < 0)
		return; /* test_absent() covers that */
	close(k);
	REQUIRE(!accel_report("/dev/kvm", dir, &rep, &e));
	printf("kvm=%d, %.2f ns a turn; %s\n", rep.kvm, (double)rep.turn_ns_x100 / 100, rep.why);
	CHECK(rep.kvm != ACCEL_KVM_ABSENT);
	CHECK(rep.kvm == ACCEL_KVM_BROKEN ||
		(rep.turn_ns_x100 <= ACCEL_USABLE_NS * 100) == (rep.kvm == ACCEL_KVM_USABLE));
	if (rep.kvm == ACCEL_KVM_BROKEN)
		return;
	/* What was found in this boot is believed. */
	fake_cache(dir, line);
	REQUIRE(!accel_report("/dev/kvm", dir, &rep, &e));
	CHECK_EQ(rep.kvm, ACCEL_KVM_SLOW);
	CHECK_EQ(rep.turn_ns_x100, 424200);
	/* Of another boot, or no sense at all: measured anew. */
	line[4] = line[4] == '0' ? '1' : '0';
	write_cache(dir, line);
	REQUIRE(!accel_report("/dev/kvm", dir, &rep, &e));
	CHECK(rep.turn_ns_x100 && rep.turn_ns_x100 != 424200);
	write_cache(dir, "nonsense\n");
	REQUIRE(!accel_report("/dev/kvm", dir, &rep, &e));
	CHECK(rep.turn_ns_x100 && rep.turn_ns_x100 != 424200);
	unlinkat(dir, "kvm-speed", 0);
}

static void test_inside(void)
{
	struct accel_want want = { .accel = ACCEL_EMULATED, .icount = true };
	struct accel_choice c = { 0 };
	struct error e;

	/* Never an emulated host inside another. */
	setenv(ACCEL_ENV_INSIDE, "1", 1);
	CHECK_EQ(accel_pick(&want, &c, &e), 0);
	CHECK_EQ(c.accel, ACCEL_KVM);
	CHECK_STR(c.say, "");
	unsetenv(ACCEL_ENV_INSIDE);
}

static void test_find_qemu(int dir)
{
	char path[256], own[128];
	struct error e;
	int fd;

	fd = openat(dir, "qemu-system-x86_64", O_CREAT | O_WRONLY | O_CLOEXEC, 0755);
	REQUIRE(fd >= 0);
	close(fd);
	snprintf(own, sizeof(own), "relative:/nonexistent:%s:/usr/bin", folder);
	setenv("PATH", own, 1);
	CHECK_EQ(accel_find_qemu(path, sizeof(path), &e), 0);
	CHECK(!strncmp(path, folder, strlen(folder)));
	unlinkat(dir, "qemu-system-x86_64", 0);
	setenv("PATH", "/nonexistent", 1);
	if (access("/usr/bin/qemu-system-x86_64", X_OK)) {
		CHECK_EQ(accel_find_qemu(path, sizeof(path), &e), -ENOENT);
		CHECK(strstr(e.msg, "apt-get install qemu-system-x86"));
	}
}

int main(void)
{
	int dir;

	REQUIRE(mkdtemp(folder));
	dir = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	REQUIRE(dir >= 0);
	test_parse();
	test_absent();
	test_broken(dir);
	test_forbidden();
	test_measure(dir);
	test_inside();
	test_find_qemu(dir);
	close(dir);
	rmdir(folder);
	TEST_END();
}

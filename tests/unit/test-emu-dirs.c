/*
 * tests/unit/test-emu-dirs.c - folders, locks and messages of emulated hosts; what QEMU is given
 */
#include "api/emu/emu_dirs.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "api/emu/emu_qemu.h"
#include "base/file.h"
#include "base/loop.h"
#include "tests/lib/test.h"

#define KEY_A "0123456789abcdef"
#define KEY_B "fedcba9876543210"

static char top[] = "/tmp/test-emu-dirs-XXXXXX";

static int open_dir(int base, const char *name)
{
	return openat(base, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
}

static uint64_t soon(void)
{
	return loop_now_ns() + 60 * NSEC_PER_MSEC;
}

/* A lock says that the daemon lives; a folder that was removed meanwhile is told from one that is free. */
static void test_locks(int base)
{
	int a, again;

	REQUIRE(!mkdirat(base, KEY_A, 0700));
	a = open_dir(base, KEY_A);
	again = open_dir(base, KEY_A);
	CHECK_EQ(emu_lock(a, soon()), 0);
	CHECK_EQ(emu_lock(again, soon()), -ETIMEDOUT);
	REQUIRE(!close(openat(a, EMU_SOCK, O_CREAT | O_WRONLY | O_CLOEXEC, 0600)));
	emu_clean(base, a, KEY_A);
	CHECK(faccessat(base, KEY_A, F_OK, 0) == -1);
	close(a);
	CHECK_EQ(emu_lock(again, soon()), -ESTALE);
	close(again);
}

static void test_each(int base)
{
	bool seen_a = false, seen_b = false;
	struct emu_each each;

	REQUIRE(!mkdirat(base, KEY_A, 0700) && !mkdirat(base, KEY_B, 0700));
	REQUIRE(!mkdirat(base, "something else", 0700));
	close(openat(
		base, "0123456789abcde0", O_CREAT | O_WRONLY | O_CLOEXEC, 0600)); /* no folder */
	REQUIRE(!emu_each_begin(&each, base));
	while (emu_each_next(&each)) {
		CHECK(each.dir >= 0);
		seen_a |= !strcmp(each.key, KEY_A);
		seen_b |= !strcmp(each.key, KEY_B);
		CHECK(!strcmp(each.key, KEY_A) || !strcmp(each.key, KEY_B));
	}
	emu_each_end(&each);
	CHECK(seen_a && seen_b);
	unlinkat(base, KEY_A, AT_REMOVEDIR);
	unlinkat(base, KEY_B, AT_REMOVEDIR);
	unlinkat(base, "something else", AT_REMOVEDIR);
	unlinkat(base, "0123456789abcde0", 0);
}

/* By way of the folder's descriptor, so however long its path is. */
static void test_sockets(int base)
{
	struct emu_request req;
	int dir, l, c, s;
	struct stat st;

	REQUIRE(!mkdirat(base, KEY_A, 0700));
	dir = open_dir(base, KEY_A);
	CHECK_EQ(emu_connect_dir(dir), -ENOENT);
	l = emu_listen_dir(dir);
	REQUIRE(l >= 0);
	CHECK(!fstatat(dir, EMU_SOCK, &st, 0) && (st.st_mode & 0777) == 0600);
	c = emu_connect_dir(dir);
	REQUIRE(c >= 0);
	s = accept4(l, NULL, NULL, SOCK_CLOEXEC);
	REQUIRE(s >= 0);
	CHECK_EQ(emu_ask(c, EMU_OP_STOP, NULL), 0);
	CHECK_EQ(read(s, &req, sizeof(req)), sizeof(req));
	CHECK(!memcmp(req.magic, EMU_MAGIC, 4));
	CHECK_EQ(req.version, EMU_PROTO_VERSION);
	CHECK_EQ(req.op, EMU_OP_STOP);
	close(s);
	close(l);
	/* Asking one that has gone raises no signal. */
	CHECK_EQ(emu_ask(c, EMU_OP_STOP, NULL), -EPIPE);
	CHECK_EQ(emu_connect_dir(dir), -ECONNREFUSED); /* what a killed daemon leaves */
	close(c);
	emu_clean(base, dir, KEY_A);
	close(dir);
}

static int hear(const void *data, size_t len, bool hang_up, char *text)
{
	int sv[2], r;

	REQUIRE(!socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv));
	REQUIRE(write(sv[1], data, len) == (ssize_t)len);
	if (hang_up)
		close(sv[1]);
	r = emu_hear(sv[0], soon(), text);
	close(sv[0]);
	if (!hang_up)
		close(sv[1]);
	return r;
}

static void test_messages(void)
{
	char text[EMU_TEXT_MAX + 1];

	CHECK_EQ(hear("\1\0\0\0\5\0\0\0hello", 13, false, text), EMU_MSG_WAIT);
	CHECK_STR(text, "hello");
	CHECK_EQ(hear("\2\0\0\0\0\0\0\0", 8, false, text), EMU_MSG_READY);
	CHECK_STR(text, "");
	CHECK_EQ(hear("", 0, true, text), 0);
	CHECK_EQ(hear("", 0, false, text), -ETIMEDOUT);
	CHECK_EQ(hear("\1\0\0\0\5\0\0\0hel", 11, false, text), -ETIMEDOUT);
	CHECK_EQ(hear("\1\0\0\0\5\0\0\0hel", 11, true, text), -EPROTO);
	CHECK_EQ(hear("\1\0\0", 3, true, text), -EPROTO);
	CHECK_EQ(hear("\0\0\0\0\0\0\0\0", 8, true, text), -EPROTO);    /* no such type */
	CHECK_EQ(hear("\1\0\0\0\1\x10\0\0", 8, false, text), -EPROTO); /* text longer than any */
}

/* A blocked signal ends the wait. */
static void test_interrupted(void)
{
	char text[EMU_TEXT_MAX + 1];
	sigset_t set, old;
	int sv[2], sig;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	REQUIRE(!sigprocmask(SIG_BLOCK, &set, &old));
	REQUIRE(!socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv));
	CHECK_EQ(emu_pending_signal(), 0);
	REQUIRE(!raise(SIGTERM));
	CHECK_EQ(emu_pending_signal(), SIGTERM);
	CHECK_EQ(emu_hear(sv[0], loop_now_ns() + 10 * NSEC_PER_SEC, text), -EINTR);
	sigwait(&set, &sig);
	sigprocmask(SIG_SETMASK, &old, NULL);
	close(sv[0]);
	close(sv[1]);
}

static void make_file(const char *path, const char *text)
{
	int fd = open(path, O_CREAT | O_WRONLY | O_TRUNC | O_CLOEXEC, 0644);

	REQUIRE(fd >= 0 && !file_write_all(fd, text, strlen(text)));
	close(fd);
}

/* The key changes with whatever an L1 is made of, and only then. */
static void test_key(void)
{
	static struct emu_config a, b;
	char path[128], qemu[64], name[160];
	struct error e = { 0 };

	snprintf(path, sizeof(path), "%s/bin", top);
	snprintf(qemu, sizeof(qemu), "%s/bin/qemu-system-x86_64", top);
	REQUIRE(!mkdir(path, 0755));
	make_file(qemu, "#!/bin/sh\n");
	REQUIRE(!chmod(qemu, 0755));
	setenv("PATH", path, 1);
	setenv("XDG_STATE_HOME", top, 1);
	setenv("XDG_CACHE_HOME", top, 1);
	setenv("XDG_RUNTIME_DIR", top, 1);
	CHECK_EQ(emu_configure(&a, false, &e), -ENOENT);
	CHECK(strstr(e.msg, "skerry setup"));
	snprintf(path, sizeof(path), "%s/skerry/kernels/emulated-host", top);
	for (char *p = path + strlen(top) + 1; (p = strchr(p, '/')); p++) {
		*p = '\0';
		mkdir(path, 0755);
		*p = '/';
	}
	REQUIRE(!mkdir(path, 0755));
	snprintf(name, sizeof(name), "%s/vmlinux", path);
	make_file(name, "kernel");
	snprintf(name, sizeof(name), "%s/modules.cpio", path);
	make_file(name, "modules");
	REQUIRE(!emu_configure(&a, false, &e));
	REQUIRE(!emu_configure(&b, false, &e));
	CHECK_EQ(strlen(a.key), 16);
	CHECK_STR(a.key, b.key);
	CHECK_STR(a.qemu, qemu);
	REQUIRE(!emu_configure(&b, true, &e));
	CHECK(strcmp(a.key, b.key));
	make_file(name, "other modules");
	REQUIRE(!emu_configure(&b, false, &e));
	CHECK(strcmp(a.key, b.key));
	setenv("SKERRY_EMU_IDLE", "90s", 1);
	REQUIRE(!emu_configure(&a, false, &e));
	CHECK_STR(a.key, b.key); /* how long it idles is the first command's choice */
	CHECK_EQ(a.idle_ns, 90 * NSEC_PER_SEC);
	setenv("SKERRY_EMU_IDLE", "soon", 1);
	CHECK_EQ(emu_configure(&a, false, &e), -EINVAL);
	CHECK(strstr(e.msg, "SKERRY_EMU_IDLE='soon'"));
	unsetenv("SKERRY_EMU_IDLE");
	snprintf(path, sizeof(path), "%s/with\nnewline", top);
	setenv("XDG_CACHE_HOME", path, 1);
	CHECK_EQ(emu_configure(&a, false, &e), -EINVAL);
}

/* Entries of newc archives, one after the other, as the kernel reads them; checked by hand. */
static void test_initrd(void)
{
	struct emu_config c = {
		.kernel = "/nonexistent", .state = "/s", .cache = "/c", .runtime = "/r"
	};
	char *data = NULL, *conf;
	struct error e = { 0 };
	size_t len = 0;
	int fd;

	snprintf(c.modules, sizeof(c.modules), "%s/odd", top);
	CHECK(emu_initrd(&c, &e) < 0);
	CHECK(strstr(e.msg, c.modules));
	make_file(c.modules, "12345"); /* a length that must be padded */
	fd = emu_initrd(&c, &e);
	REQUIRE(fd >= 0);
	REQUIRE(!lseek(fd, 0, SEEK_SET) && !file_read_fd(fd, 8 * MIB, &data, &len));
	CHECK_EQ(len % 4, 0);
	CHECK(!memcmp(data,
		"12345\0\0\0"
		"070701",
		14)); /* then guest-init's archive */
	conf = memmem(data, len, "state=/s\ncache=/c\nruntime=/r\n", 29);
	REQUIRE(conf);
	CHECK_EQ((conf - data) % 4, 0);
	CHECK(!memcmp(data + len - 14, "TRAILER!!!\0\0\0", 14));
	CHECK(write(fd, "x", 1) < 0); /* sealed */
	free(data);
	close(fd);
}

static void test_machine(void)
{
	struct error e = { 0 };
	uint64_t bytes = 0, khz;
	struct emu_tsc t;

	emu_tsc_begin(&t);
	khz = emu_tsc_end(&t);
	CHECK(khz > 200000 && khz < 20000000);
	if (!emu_memory(&bytes, &e)) {
		CHECK(bytes >= EMU_MEMORY_MIN && bytes <= EMU_MEMORY_MAX);
		CHECK_EQ(bytes % MIB, 0);
	} else {
		CHECK(strstr(e.msg, "MiB"));
	}
}

int main(void)
{
	char command[80];
	int base;

	REQUIRE(mkdtemp(top));
	base = open(top, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	REQUIRE(base >= 0);
	test_locks(base);
	test_each(base);
	test_sockets(base);
	test_messages();
	test_interrupted();
	test_initrd();
	test_machine();
	test_key();
	close(base);
	setenv("PATH", "/usr/bin:/bin", 1);
	snprintf(command, sizeof(command), "rm -rf %s", top);
	CHECK_EQ(system(command), 0);
	TEST_END();
}

/*
 * tests/unit/test-emu-console.c - the last words of an emulated host
 */
#include "api/emu/emu_console.h"

#include <fcntl.h>
#include <sys/stat.h>

#include "tests/lib/test.h"

static char folder[] = "/tmp/test-emu-console-XXXXXX";
static int dir;

static void make(struct emu_console *c)
{
	REQUIRE(!emu_console_create(c, dir));
}

static void put(struct emu_console *c, const char *s)
{
	emu_console_write(c, s, strlen(s));
}

static void test_lines(void)
{
	struct emu_console c;
	char t[1000];

	make(&c);
	emu_console_tail(c.fd, 5, t, sizeof(t));
	CHECK_STR(t, "");
	put(&c, "one\r\ntwo");
	put(&c, "\nthree\r\n\r\n");
	emu_console_tail(c.fd, 5, t, sizeof(t));
	CHECK_STR(t, "  | one\n  | two\n  | three");
	emu_console_tail(c.fd, 2, t, sizeof(t));
	CHECK_STR(t, "  | two\n  | three");
	/* Too small for all: whole lines only. */
	emu_console_tail(c.fd, 5, t, 20);
	CHECK_STR(t, "  | one\n  | two");
	emu_console_finish(&c);
}

/* Root in L1 writes what it likes: nothing of it may drive a terminal. */
static void test_escapes(void)
{
	struct emu_console c;
	char t[1000];

	make(&c);
	put(&c, "a\x1b]0;title\x07 b\n");
	emu_console_tail(c.fd, 5, t, sizeof(t));
	CHECK(!strchr(t, 0x1b) && !strchr(t, 7));
	CHECK(strstr(t, "title"));
	emu_console_finish(&c);
}

static void test_wraps(void)
{
	struct emu_console c;
	char line[64], t[1000];
	struct stat st;

	make(&c);
	for (int i = 0; i < 5000; i++) {
		snprintf(line, sizeof(line), "line %d of many\n", i);
		put(&c, line);
	}
	REQUIRE(!fstat(c.fd, &st));
	CHECK_EQ(st.st_size, 8 + EMU_CONSOLE_BYTES);
	emu_console_tail(c.fd, 2, t, sizeof(t));
	CHECK_STR(t, "  | line 4998 of many\n  | line 4999 of many");
	emu_console_finish(&c);
}

/* One line without an end, longer than the ring. */
static void test_endless_line(void)
{
	static char big[3 * EMU_CONSOLE_BYTES + 5];
	struct emu_console c;
	char t[4000];

	make(&c);
	memset(big, 'x', sizeof(big) - 1);
	put(&c, big);
	emu_console_tail(c.fd, 3, t, sizeof(t));
	CHECK(strlen(t) > 100 && strlen(t) < 300);
	emu_console_finish(&c);
}

static void test_foreign_file(void)
{
	char t[100];
	int fd = openat(dir, "other", O_CREAT | O_RDWR | O_CLOEXEC, 0600);

	REQUIRE(fd >= 0);
	emu_console_tail(fd, 3, t, sizeof(t));
	CHECK_STR(t, "");
	/* A count without the bytes. */
	REQUIRE(write(fd, "\xff\xff\xff\xff\xff\xff\xff\xff", 8) == 8);
	emu_console_tail(fd, 3, t, sizeof(t));
	CHECK_STR(t, "");
	close(fd);
	unlinkat(dir, "other", 0);
}

int main(void)
{
	REQUIRE(mkdtemp(folder));
	dir = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	REQUIRE(dir >= 0);
	test_lines();
	test_escapes();
	test_wraps();
	test_endless_line();
	test_foreign_file();
	unlinkat(dir, "console", 0);
	close(dir);
	rmdir(folder);
	TEST_END();
}

/* api/store/object: an object appears whole or not at all, and leftovers go away. */
#include "api/store/object.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "base/file.h"
#include "tests/lib/test.h"

static char path[] = "/tmp/skerry-test-object.XXXXXX";
static int parent;

static unsigned entries(void)
{
	DIR *d = opendir(path);
	unsigned n = 0;

	REQUIRE(d);
	while (readdir(d))
		n++;
	closedir(d);
	return n - 2;
}

static void build(struct object *o, const char *text)
{
	struct error e = { 0 };

	REQUIRE(!object_begin(o, parent, path, &e));
	REQUIRE(!file_replace(o->dir, "file", text, strlen(text), 0600, &e));
}

static void check_content(const char *name, const char *want)
{
	autofree char *text = NULL;
	size_t len;

	REQUIRE(!file_read(parent, name, 100, &text, &len, NULL));
	CHECK_STR(text, want);
}

static void test_names(void)
{
	static const char *const good[] = { "debian-13", "a", "9", "my_kernel+1.2" };
	static const char *const bad[] = { "", ".", "..", ".new-1", "-x", "a/b", "a b", "\xc3\xa9",
		"a\n", "12345678901234567890123456789012345678901234567890123456789012345" };

	for (size_t i = 0; i < ARRAY_SIZE(good); i++)
		CHECK(object_name_ok(good[i]));
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		CHECK(!object_name_ok(bad[i]));
}

static void test_publish(void)
{
	struct error e = { 0 };
	struct object o;
	char kept[4] = "";
	int fd;

	build(&o, "one");
	CHECK(faccessat(parent, "x", F_OK, 0) && entries() == 1);
	CHECK_EQ(object_publish(&o, "x", false, &e), 0);
	check_content("x/file", "one");
	/* the first one stays */
	build(&o, "two");
	CHECK_EQ(object_publish(&o, "x", false, &e), 1);
	check_content("x/file", "one");
	/* and is replaced on request, while an open file of it goes on */
	fd = openat(parent, "x/file", O_RDONLY | O_CLOEXEC);
	REQUIRE(fd >= 0);
	build(&o, "two");
	CHECK_EQ(object_publish(&o, "x", true, &e), 0);
	check_content("x/file", "two");
	CHECK_EQ(read(fd, kept, 3), 3);
	CHECK_STR(kept, "one");
	close(fd);
	build(&o, "new");
	CHECK_EQ(object_publish(&o, "y", true, &e), 0);
	CHECK_EQ(entries(), 2);
	build(&o, "no");
	object_abort(&o);
	object_abort(&o);
	CHECK_EQ(entries(), 2);
}

/* A killed process leaves its folder; the next one to begin removes it, and no other. */
static void test_leftover(void)
{
	struct object mine, next;
	struct error e = { 0 };
	struct stat st;
	pid_t pid;

	pid = fork();
	REQUIRE(pid >= 0);
	if (!pid) {
		struct object o;

		build(&o, "half");
		REQUIRE(!mkdirat(o.dir, "deep", 0700) && !mkdirat(o.dir, "deep/er", 0700));
		REQUIRE(!symlinkat("../../x", o.dir, "deep/er/link"));
		_exit(0);
	}
	REQUIRE(waitpid(pid, NULL, 0) == pid);
	CHECK_EQ(entries(), 3);
	build(&mine, "alive");
	CHECK_EQ(entries(), 3);
	REQUIRE(!object_begin(&next, parent, path, &e));
	CHECK_EQ(entries(), 4);
	CHECK(!fstatat(parent, mine.name, &st, 0));
	check_content("x/file", "two");
	object_abort(&next);
	object_abort(&mine);
	CHECK_EQ(entries(), 2);
}

/* Removing never follows a link out of the folder. */
static void test_remove(void)
{
	REQUIRE(!mkdirat(parent, "t", 0700) && !symlinkat("../x", parent, "t/link"));
	CHECK_EQ(object_remove_tree(parent, "t"), 0);
	check_content("x/file", "two");
	CHECK_EQ(object_remove_tree(parent, "absent"), 0);
}

static void test_race(void)
{
	pid_t pids[8];
	int status, won = 0;

	for (size_t i = 0; i < ARRAY_SIZE(pids); i++) {
		pids[i] = fork();
		REQUIRE(pids[i] >= 0);
		if (!pids[i]) {
			struct object o;

			build(&o, "same");
			_exit(object_publish(&o, "race", false, NULL));
		}
	}
	for (size_t i = 0; i < ARRAY_SIZE(pids); i++) {
		REQUIRE(waitpid(pids[i], &status, 0) == pids[i] && WIFEXITED(status));
		CHECK(WEXITSTATUS(status) <= 1);
		won += WEXITSTATUS(status) == 0;
	}
	CHECK_EQ(won, 1);
	check_content("race/file", "same");
	CHECK_EQ(object_remove_tree(parent, "race"), 0);
	CHECK_EQ(entries(), 2);
}

int main(void)
{
	REQUIRE(mkdtemp(path));
	parent = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	REQUIRE(parent >= 0);
	test_names();
	test_publish();
	test_leftover();
	test_remove();
	for (int i = 0; i < 10; i++)
		test_race();
	CHECK_EQ(object_remove_tree(AT_FDCWD, path), 0);
	CHECK(access(path, F_OK) && errno == ENOENT);
	close(parent);
	TEST_END();
}

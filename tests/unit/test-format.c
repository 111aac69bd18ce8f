/* api/store/format: newer programs read older state, older ones refuse newer state and leave it alone. */
#include "api/store/format.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "base/file.h"
#include "tests/lib/test.h"

static char path[] = "/tmp/skerry-test-format.XXXXXX";
static int dir;
static unsigned order[4], norder;

static int step(unsigned from, const char *name)
{
	order[norder++] = from;
	return file_replace(dir, name, "x", 1, 0600, NULL);
}

static int step_1(unused_arg int d, unused_arg struct error *e)
{
	return step(1, "one");
}

static int step_2(unused_arg int d, unused_arg struct error *e)
{
	return step(2, "two");
}

static int step_fails(unused_arg int d, struct error *e)
{
	return error_set(e, ENOSPC, "disk full");
}

static const struct format_step both[] = { { 1, step_1 }, { 2, step_2 } };
static const struct format_step half[] = { { 1, step_1 }, { 2, step_fails } };
static const struct format_rules one = { .current = 1 };
static const struct format_rules three = { 3, both, 2 };
static const struct format_rules broken = { 3, half, 2 };
static const struct format_rules forgetful = { 3, both + 1, 1 };

static void put(const char *text)
{
	REQUIRE(!file_replace(dir, FORMAT_FILE, text, strlen(text), 0600, NULL));
}

static void check_content(const char *want)
{
	autofree char *text = NULL;
	size_t len;

	REQUIRE(!file_read(dir, FORMAT_FILE, 100, &text, &len, NULL));
	CHECK_STR(text, want);
}

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

static void test_create(void)
{
	struct error e = { 0 };

	CHECK_EQ(format_check(dir, path, false, &one, &e), -ENOENT);
	CHECK(strstr(e.msg, "is not set up; run: skerry setup"));
	CHECK_EQ(entries(), 0);
	CHECK_EQ(format_check(dir, path, true, &one, &e), 0);
	check_content("{\"format\": 1}\n");
	CHECK_EQ(format_check(dir, path, false, &one, &e), 0);
	CHECK_EQ(entries(), 1);
}

static void test_newer(void)
{
	struct error e = { 0 };
	struct stat a, b;

	put("{\"format\": 7, \"more\": [1]}");
	REQUIRE(!fstat(dir, &a));
	CHECK_EQ(format_check(dir, path, true, &three, &e), -EPROTO);
	CHECK(strstr(e.msg, "has format 7, made by a newer skerry") && strstr(e.msg, "up to 3"));
	REQUIRE(!fstat(dir, &b));
	CHECK(a.st_mtim.tv_sec == b.st_mtim.tv_sec && a.st_mtim.tv_nsec == b.st_mtim.tv_nsec);
	check_content("{\"format\": 7, \"more\": [1]}");
}

static void test_steps(void)
{
	struct error e = { 0 };

	put("{\"format\": 1}");
	CHECK_EQ(format_check(dir, path, false, &three, &e), 0);
	CHECK_EQ(norder, 2);
	CHECK(order[0] == 1 && order[1] == 2);
	check_content("{\"format\": 3}\n");
	CHECK_EQ(format_check(dir, path, false, &three, &e), 0);
	CHECK_EQ(norder, 2);
	CHECK(!faccessat(dir, "one", F_OK, 0) && !faccessat(dir, "two", F_OK, 0));
	/* a step that fails: those before it count, and the next attempt goes on from there */
	put("{\"format\": 1}");
	norder = 0;
	CHECK_EQ(format_check(dir, path, false, &broken, &e), -ENOSPC);
	CHECK(strstr(e.msg, "from format 2: disk full"));
	check_content("{\"format\": 2}\n");
	CHECK_EQ(format_check(dir, path, false, &three, &e), 0);
	CHECK_EQ(norder, 2);
	put("{\"format\": 1}");
	CHECK_EQ(format_check(dir, path, false, &forgetful, &e), -EPROTO);
	CHECK(strstr(e.msg, "has format 1, too old"));
}

static void test_bad(void)
{
	static const char *const bad[] = { "", "{}", "[]", "{\"format\": 0}", "{\"format\": -1}",
		"{\"format\": \"1\"}", "{\"format\": 1.5}", "{\"format\": 1", "null" };
	struct error e;

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		put(bad[i]);
		e.msg[0] = 0;
		CHECK(format_check(dir, path, true, &one, &e) == -EINVAL);
		CHECK(strstr(e.msg, path) &&
			(strstr(e.msg, "format.json") || strstr(e.msg, "'format'")));
		check_content(bad[i]);
	}
}

/* Many processes create and migrate at once: each succeeds, one file results. */
static void test_race(const struct format_rules *rules, const char *want)
{
	pid_t pids[8];
	int status;

	for (size_t i = 0; i < ARRAY_SIZE(pids); i++) {
		pids[i] = fork();
		REQUIRE(pids[i] >= 0);
		if (!pids[i]) {
			int own = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

			_exit(own < 0 || format_check(own, path, true, rules, NULL));
		}
	}
	for (size_t i = 0; i < ARRAY_SIZE(pids); i++) {
		REQUIRE(waitpid(pids[i], &status, 0) == pids[i]);
		CHECK_EQ(status, 0);
	}
	check_content(want);
}

int main(void)
{
	static const char *const files[] = { FORMAT_FILE, "one", "two" };

	REQUIRE(mkdtemp(path));
	dir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	REQUIRE(dir >= 0);
	test_create();
	test_newer();
	test_steps();
	test_bad();
	for (int i = 0; i < 20; i++) {
		REQUIRE(!unlinkat(dir, FORMAT_FILE, 0));
		test_race(&one, "{\"format\": 1}\n");
		test_race(&three, "{\"format\": 3}\n");
	}
	CHECK_EQ(entries(), 3);
	for (size_t i = 0; i < ARRAY_SIZE(files); i++)
		CHECK(!unlinkat(dir, files[i], 0));
	CHECK(!rmdir(path));
	close(dir);
	TEST_END();
}

/* base/file: limits, atomic replacement, staying inside a folder. */
#include "base/file.h"

#include <dirent.h>
#include <sys/stat.h>

#include "tests/lib/test.h"

static char dir[] = "/tmp/skerry-test-file.XXXXXX";
static int dirfd_;

static unsigned entries(void)
{
	DIR *d = opendir(dir);
	unsigned n = 0;

	REQUIRE(d);
	while (readdir(d))
		n++;
	closedir(d);
	return n - 2;
}

static void test_replace(void)
{
	struct error e = { 0 };
	struct stat st;
	size_t len = 0;
	char *text = NULL;

	CHECK_EQ(file_replace(dirfd_, "a", "one", 3, 0640, &e), 0);
	CHECK_EQ(file_replace(dirfd_, "a", "second", 6, 0600, &e), 0);
	REQUIRE(!file_read(dirfd_, "a", 6, &text, &len, &e));
	CHECK_EQ(len, 6);
	CHECK_STR(text, "second");
	free(text);
	REQUIRE(!fstatat(dirfd_, "a", &st, 0));
	CHECK_EQ(st.st_mode & 07777, 0600);
	CHECK_EQ(file_read(dirfd_, "a", 5, &text, &len, &e), -EFBIG);
	CHECK_STR(e.msg, "'a': larger than 5 bytes");
	CHECK_EQ(file_read(dirfd_, "none", 5, &text, &len, &e), -ENOENT);
	/* a failed one leaves the old content and no litter */
	REQUIRE(!mkdirat(dirfd_, "d", 0700));
	CHECK_EQ(file_replace(dirfd_, "d", "x", 1, 0600, &e), -EISDIR);
	CHECK_EQ(file_replace(dirfd_, "no/a", "x", 1, 0600, &e), -ENOENT);
	CHECK_EQ(entries(), 2);
	CHECK_EQ(file_replace(dirfd_, "d/b", "", 0, 0600, &e), 0);
	REQUIRE(!file_read(dirfd_, "d/b", 0, &text, &len, &e));
	CHECK_EQ(len, 0);
	free(text);
}

/* A pipe has no size: more than one chunk must come out whole. */
static void test_pipe(void)
{
	char *text = NULL, *big = malloc(50000);
	size_t len = 0;
	int p[2];

	REQUIRE(big && !pipe(p));
	for (int i = 0; i < 50000; i++)
		big[i] = (char)(i * 7);
	REQUIRE(!file_write_all(p[1], big, 50000));
	close(p[1]);
	REQUIRE(!file_read_fd(p[0], 50000, &text, &len));
	CHECK_EQ(len, 50000);
	CHECK(!memcmp(text, big, 50000));
	close(p[0]);
	free(text);
	free(big);
}

static void test_beneath(void)
{
	int fd;

	REQUIRE(!symlinkat("/etc/passwd", dirfd_, "link"));
	REQUIRE(!symlinkat("..", dirfd_, "up"));
	fd = file_open_in(dirfd_, "d/b", O_RDONLY, 0, 0);
	CHECK(fd >= 0);
	CHECK_EQ(fcntl(fd, F_GETFD), FD_CLOEXEC);
	close(fd);
	CHECK_EQ(file_open_in(dirfd_, "link", O_RDONLY, 0, 0), -EXDEV);
	CHECK_EQ(file_open_in(dirfd_, "up/x", O_RDONLY, 0, 0), -EXDEV);
	CHECK_EQ(file_open_in(dirfd_, "../x", O_RDONLY, 0, 0), -EXDEV);
	CHECK_EQ(file_open_in(dirfd_, "/etc/passwd", O_RDONLY, 0, 0), -EXDEV);
	CHECK_EQ(file_open_in(dirfd_, "link", O_RDONLY, 0, RESOLVE_NO_SYMLINKS), -ELOOP);
	CHECK_EQ(file_open_in(dirfd_, "none", O_RDONLY, 0, 0), -ENOENT);
	fd = file_open_in(dirfd_, "new", O_WRONLY | O_CREAT | O_EXCL, 0600, 0);
	CHECK(fd >= 0);
	close(fd);
}

int main(void)
{
	static const char *const litter[] = { "a", "d/b", "link", "up", "new" };

	REQUIRE(mkdtemp(dir));
	dirfd_ = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	REQUIRE(dirfd_ >= 0);
	test_replace();
	test_pipe();
	test_beneath();
	for (size_t i = 0; i < ARRAY_SIZE(litter); i++)
		CHECK(!unlinkat(dirfd_, litter[i], 0));
	CHECK(!unlinkat(dirfd_, "d", AT_REMOVEDIR));
	CHECK(!rmdir(dir));
	close(dirfd_);
	TEST_END();
}

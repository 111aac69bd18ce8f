/* api/store/dirs: where the folders are, their modes, and what the messages say. */
#include "api/store/dirs.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "tests/lib/test.h"

#define OTHER 65534 /* nobody */

static char base[] = "/tmp/skerry-test-dirs.XXXXXX";

static void in_base(const char *variable, const char *name)
{
	char path[256];

	snprintf(path, sizeof(path), "%s/%s", base, name);
	REQUIRE(!setenv(variable, path, 1));
}

static void clear(void)
{
	unsetenv("XDG_STATE_HOME");
	unsetenv("XDG_CACHE_HOME");
	unsetenv("XDG_RUNTIME_DIR");
	unsetenv("HOME");
}

static mode_t mode_of(const char *name)
{
	char path[256];
	struct stat st;

	snprintf(path, sizeof(path), "%s/%s", base, name);
	REQUIRE(!lstat(path, &st));
	return st.st_mode & 07777;
}

static void test_paths_root(void)
{
	char path[DIRS_PATH_MAX];

	clear();
	CHECK_EQ(dirs_path(DIRS_STATE, path, sizeof(path), NULL), 0);
	CHECK_STR(path, "/var/lib/skerry");
	CHECK_EQ(dirs_path(DIRS_CACHE, path, sizeof(path), NULL), 0);
	CHECK_STR(path, "/var/cache/skerry");
	CHECK_EQ(dirs_path(DIRS_RUNTIME, path, sizeof(path), NULL), 0);
	CHECK_STR(path, "/run/skerry");
}

static void test_paths_user(void)
{
	char path[DIRS_PATH_MAX], want[64];
	struct error e = { 0 };

	clear();
	snprintf(want, sizeof(want), "/tmp/skerry-%u", (unsigned)geteuid());
	CHECK_EQ(dirs_path(DIRS_RUNTIME, path, sizeof(path), NULL), 0);
	CHECK_STR(path, want);
	CHECK_EQ(dirs_path(DIRS_STATE, path, sizeof(path), &e), -ENOENT);
	CHECK_STR(e.msg,
		"state folder: HOME is not set; set HOME or XDG_STATE_HOME to the absolute path of a folder of "
		"yours");
	setenv("HOME", "here", 1);
	CHECK_EQ(dirs_path(DIRS_CACHE, path, sizeof(path), &e), -ENOENT);
	CHECK(strstr(e.msg, "HOME is no absolute path"));
	setenv("HOME", "/home/x", 1);
	CHECK_EQ(dirs_path(DIRS_STATE, path, sizeof(path), NULL), 0);
	CHECK_STR(path, "/home/x/.local/state/skerry");
	CHECK_EQ(dirs_path(DIRS_CACHE, path, sizeof(path), NULL), 0);
	CHECK_STR(path, "/home/x/.cache/skerry");
	/* XDG Base Directory Specification: relative paths are invalid and ignored */
	setenv("XDG_STATE_HOME", "rel", 1);
	CHECK_EQ(dirs_path(DIRS_STATE, path, sizeof(path), NULL), 0);
	CHECK_STR(path, "/home/x/.local/state/skerry");
	CHECK_EQ(dirs_path(DIRS_STATE, path, 10, &e), -ENAMETOOLONG);
}

static void test_create(void)
{
	struct error e = { 0 };
	int fd, sub;

	clear();
	in_base("XDG_STATE_HOME", "a/b/c");
	CHECK_EQ(dirs_open(DIRS_STATE, false, &e), -ENOENT);
	umask(022);
	fd = dirs_open(DIRS_STATE, true, &e);
	REQUIRE(fd >= 0);
	CHECK_EQ(fcntl(fd, F_GETFD), FD_CLOEXEC);
	CHECK_EQ(mode_of("a"), 0700);
	CHECK_EQ(mode_of("a/b/c/skerry"), 0700);
	CHECK_EQ(dirs_open_sub(fd, "P", "kernels", false, &e), -ENOENT);
	CHECK_STR(e.msg, "folder 'P/kernels': No such file or directory");
	sub = dirs_open_sub(fd, "P", "kernels", true, &e);
	CHECK(sub >= 0);
	CHECK_EQ(mode_of("a/b/c/skerry/kernels"), 0700);
	close(sub);
	close(fd);
	fd = dirs_open(DIRS_STATE, true, &e);
	CHECK(fd >= 0);
	close(fd);
}

static void test_in_the_way(void)
{
	struct error e = { 0 };
	char path[256];
	int fd;

	clear();
	snprintf(path, sizeof(path), "%s/file", base);
	fd = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
	REQUIRE(fd >= 0);
	close(fd);
	in_base("XDG_CACHE_HOME", "file/x");
	CHECK_EQ(dirs_open(DIRS_CACHE, true, &e), -ENOTDIR);
	CHECK(strstr(e.msg, "cache folder '") && strstr(e.msg, "file/x/skerry'") &&
		strstr(e.msg, "in the way"));
}

static void test_runtime(void)
{
	struct error e = { 0 };
	char path[256], other[256];
	int fd;

	clear();
	in_base("XDG_RUNTIME_DIR", "run");
	snprintf(path, sizeof(path), "%s/run", base);
	REQUIRE(!mkdir(path, 0700));
	fd = dirs_open(DIRS_RUNTIME, true, &e);
	CHECK(fd >= 0);
	close(fd);
	CHECK_EQ(mode_of("run/skerry"), 0700);
	/* one that others may enter is closed to them */
	snprintf(path, sizeof(path), "%s/run/skerry", base);
	REQUIRE(!chmod(path, 0755));
	fd = dirs_open(DIRS_RUNTIME, true, &e);
	CHECK(fd >= 0);
	close(fd);
	CHECK_EQ(mode_of("run/skerry"), 0700);
	/* a symbolic link is refused */
	REQUIRE(!rmdir(path));
	snprintf(other, sizeof(other), "%s/elsewhere", base);
	REQUIRE(!mkdir(other, 0700) && !symlink(other, path));
	CHECK_EQ(dirs_open(DIRS_RUNTIME, true, &e), -ENOTDIR);
	CHECK(strstr(e.msg, "XDG_RUNTIME_DIR"));
	REQUIRE(!unlink(path));
}

/* Needs root: folders of another user. */
static void test_owner(void)
{
	struct error e = { 0 };
	char path[DIRS_PATH_MAX + 16];

	clear();
	in_base("XDG_RUNTIME_DIR", "run");
	snprintf(path, sizeof(path), "%s/run/skerry", base);
	REQUIRE(!mkdir(path, 0700) && !chown(path, OTHER, OTHER));
	CHECK_EQ(dirs_open(DIRS_RUNTIME, true, &e), -EPERM);
	CHECK(strstr(e.msg, "belongs to user 65534, not to this one (0)"));
	/* an XDG_RUNTIME_DIR of someone else counts as unset */
	snprintf(path, sizeof(path), "%s/run", base);
	REQUIRE(!chown(path, OTHER, OTHER));
	CHECK_EQ(dirs_path(DIRS_RUNTIME, path, sizeof(path), NULL), 0);
	CHECK_STR(path, "/run/skerry");
}

static void test_denied(void)
{
	struct error e = { 0 };

	clear();
	in_base("XDG_STATE_HOME", "closed");
	CHECK_EQ(dirs_open(DIRS_STATE, true, &e), -EACCES);
	CHECK(strstr(e.msg, "/closed/skerry': Permission denied; let this user write there"));
}

/* Runs @fn as another user. */
static void as_nobody(void (*fn)(void))
{
	pid_t pid = fork();
	int status = 0;

	REQUIRE(pid >= 0);
	if (!pid) {
		test_failures = 0;
		REQUIRE(!setgid(OTHER) && !setuid(OTHER));
		fn();
		_exit(test_failures != 0);
	}
	REQUIRE(waitpid(pid, &status, 0) == pid);
	CHECK_EQ(status, 0);
}

int main(void)
{
	char command[64];

	REQUIRE(mkdtemp(base));
	test_create();
	test_in_the_way();
	test_runtime();
	if (!geteuid()) {
		REQUIRE(!chmod(base, 0755));
		test_paths_root();
		test_owner();
		as_nobody(test_paths_user);
		as_nobody(test_denied);
	} else {
		REQUIRE(!chmod(base, 0500));
		test_paths_user();
		test_denied();
		REQUIRE(!chmod(base, 0700));
	}
	snprintf(command, sizeof(command), "rm -rf %s", base);
	CHECK_EQ(system(command), 0);
	TEST_END();
}

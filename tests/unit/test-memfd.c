/* base/memfd: what was sealed can't change, and what isn't sealed isn't read. */
#include <fcntl.h>
#include <sys/mman.h>

#include "base/memfd.h"
#include "tests/lib/test.h"

static void sealed(void)
{
	static char data[100000], got[100000];
	int fd, fd2;
	void *p;

	for (size_t i = 0; i < sizeof(data); i++)
		data[i] = (char)(i * 7);
	fd = memfd_sealed("config", data, sizeof(data));
	REQUIRE(fd >= 0);
	CHECK(fcntl(fd, F_GETFD) & FD_CLOEXEC);
	for (int i = 0; i < 2; i++) { /* twice: the offset doesn't matter */
		memset(got, 0, sizeof(got));
		CHECK_EQ(memfd_read(fd, got, sizeof(got)), 0);
		CHECK(!memcmp(data, got, sizeof(data)));
	}
	CHECK_EQ(memfd_read(fd, got, sizeof(got) - 1), -EMSGSIZE);
	CHECK(pwrite(fd, "x", 1, 0) < 0 && errno == EPERM);
	CHECK(ftruncate(fd, 1) < 0 && errno == EPERM);
	CHECK(ftruncate(fd, sizeof(data) + 1) < 0 && errno == EPERM);
	CHECK(fcntl(fd, F_ADD_SEALS, F_SEAL_FUTURE_WRITE) < 0 && errno == EPERM);
	p = mmap(NULL, sizeof(data), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	CHECK(p == MAP_FAILED);
	fd2 = memfd_sealed("config", "x", 1);
	CHECK_EQ(memfd_read(fd2, got, 1), 0);
	CHECK_EQ(got[0], 'x');
	close(fd);
	close(fd2);
}

static void not_sealed(void)
{
	static const unsigned all[] = { F_SEAL_SEAL, F_SEAL_SHRINK, F_SEAL_GROW, F_SEAL_WRITE };
	char c;

	for (size_t missing = 0; missing < ARRAY_SIZE(all); missing++) {
		int fd = memfd_create("x", MFD_ALLOW_SEALING | MFD_CLOEXEC);

		REQUIRE(fd >= 0 && write(fd, "x", 1) == 1);
		for (size_t i = ARRAY_SIZE(all); i-- > 0;)
			if (i != missing)
				REQUIRE(!fcntl(fd, F_ADD_SEALS, all[i]));
		CHECK_EQ(memfd_read(fd, &c, 1), -EPERM);
		close(fd);
	}
}

static void no_memfd(void)
{
	int p[2];
	char c;

	REQUIRE(!pipe(p));
	CHECK_EQ(memfd_read(p[0], &c, 1), -EINVAL);
	CHECK_EQ(memfd_read(-1, &c, 1), -EBADF);
	close(p[0]);
	close(p[1]);
}

int main(void)
{
	sealed();
	not_sealed();
	no_memfd();
	TEST_END();
}

/*
 * The block device on real files through a real ring, driven as a guest's driver does, well and
 * badly.
 */
#include "tests/lib/test.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "tests/lib/vdriver.h"
#include "vmm/dev_blk.h"

enum { T_IN = 0, T_OUT = 1, T_FLUSH = 4, T_GET_ID = 8, T_DISCARD = 11, T_WRITE_ZEROES = 13 };
enum { OK, IOERR, UNSUPP, PENDING = 0xee };

#define F_RO           (UINT64_C(1) << 5)
#define F_FLUSH        (UINT64_C(1) << 9)
#define F_DISCARD      (UINT64_C(1) << 13)
#define F_WRITE_ZEROES (UINT64_C(1) << 14)
#define F_INDIRECT     (UINT64_C(1) << VIRTIO_F_INDIRECT_DESC)

#define SECTOR  512
#define SECTORS 2048 /* of the test disk: 1 MiB */
#define WAIT_MS 10000

static struct loop *loop;
static struct gmem *mem;

struct header {
	uint32_t type, reserved;
	uint64_t sector;
};

struct segment {
	uint64_t sector;
	uint32_t num, flags;
};

struct fixture {
	struct vdriver v;
	int fd;
	uint64_t hdr, data, status; /* guest memory for one request at a time */
};

static int temp_file(off_t size)
{
	const char *dir = getenv("TMPDIR");
	char path[4096];
	int fd;

	snprintf(path, sizeof(path), "%s/skerry-blk-XXXXXX", dir ? dir : "/var/tmp");
	fd = mkstemp(path);
	REQUIRE(fd >= 0);
	unlink(path);
	REQUIRE(ftruncate(fd, size) == 0);
	return fd;
}

/* @fd becomes the fixture's. */
static void setup_fd(struct fixture *f, int fd, bool read_only, uint64_t features)
{
	struct vmm_disk_config cfg = { .fd = fd, .read_only = read_only, .serial = "test-disk" };
	struct virtio_dev *d;
	struct error e;

	if (dev_blk_create(&d, loop, mem, &cfg, &e)) {
		fprintf(stderr, "%s\n", e.msg);
		exit(1);
	}
	f->fd = fd;
	vdriver_init(&f->v, d);
	REQUIRE(vdriver_start(&f->v, features ? features & d->offered : d->offered) == 0);
	f->hdr = vdriver_alloc(&f->v, sizeof(struct header), 8);
	f->data = vdriver_alloc(&f->v, MIB, 4096);
	f->status = vdriver_alloc(&f->v, 1, 1);
}

static void setup(struct fixture *f)
{
	setup_fd(f, temp_file(SECTORS * SECTOR), false, 0);
}

static void teardown(struct fixture *f)
{
	vdriver_finish(&f->v);
	close(f->fd);
}

static void *data(struct fixture *f)
{
	return vdriver_ptr(&f->v, f->data, MIB);
}

static uint8_t *status_byte(struct fixture *f)
{
	return vdriver_ptr(&f->v, f->status, 1);
}

static void set_header(struct fixture *f, uint32_t type, uint64_t sector)
{
	struct header h = { type, 0, sector };

	memcpy(vdriver_ptr(&f->v, f->hdr, sizeof(h)), &h, sizeof(h));
	*status_byte(f) = PENDING;
}

/*
 * One request with @out bytes of data to the device, @in bytes from it. Returns status; the used
 * length in @ret.
 */
static unsigned request_len(
	struct fixture *f, uint32_t type, uint64_t sector, uint32_t out, uint32_t in, uint32_t *ret)
{
	struct vdbuf b[4] = { { f->hdr, sizeof(struct header) } };
	unsigned nout = 1, nin = 0;

	set_header(f, type, sector);
	if (out)
		b[nout++] = (struct vdbuf){ f->data, out };
	if (in)
		b[nout + nin++] = (struct vdbuf){ f->data, in };
	b[nout + nin++] = (struct vdbuf){ f->status, 1 };
	vdriver_add(&f->v, 0, b, nout, nin);
	vdriver_kick(&f->v, 0);
	REQUIRE(vdriver_wait_used(&f->v, 0, NULL, ret, WAIT_MS));
	return *status_byte(f);
}

static unsigned request(
	struct fixture *f, uint32_t type, uint64_t sector, uint32_t out, uint32_t in)
{
	return request_len(f, type, sector, out, in, NULL);
}

static unsigned segments(struct fixture *f, uint32_t type, const struct segment *s, unsigned n)
{
	memcpy(data(f), s, n * sizeof(*s));
	return request(f, type, 0, (uint32_t)(n * sizeof(*s)), 0);
}

static void fill(void *p, size_t len, unsigned seed)
{
	uint8_t *b = p;

	for (size_t i = 0; i < len; i++)
		b[i] = (uint8_t)((i * 7 + i / SECTOR * 13 + seed) | 1); /* never zero */
}

static void file_fill(int fd, unsigned seed)
{
	static uint8_t buf[SECTORS * SECTOR];

	fill(buf, sizeof(buf), seed);
	REQUIRE(pwrite(fd, buf, sizeof(buf), 0) == sizeof(buf));
}

static bool all(const uint8_t *p, size_t len, uint8_t v)
{
	for (size_t i = 0; i < len; i++) {
		if (p[i] != v)
			return false;
	}
	return true;
}

static bool file_zero(int fd, uint64_t sector, unsigned n)
{
	uint8_t buf[16 * SECTOR];

	REQUIRE(n <= 16 &&
		pread(fd, buf, n * SECTOR, (off_t)(sector * SECTOR)) == (ssize_t)(n * SECTOR));
	return all(buf, n * SECTOR, 0);
}

/* ---- identity ---- */

/* 5.2.3, 5.2.4 */
static void config(void)
{
	struct fixture f;
	uint64_t capacity;
	uint32_t v;

	setup(&f);
	virtio_config_read(f.v.dev, 0, &capacity, 8);
	CHECK_EQ(capacity, SECTORS);
	virtio_config_read(f.v.dev, 12, &v, 4);
	CHECK_EQ(v, 254); /* with header and status: the queue's size */
	virtio_config_read(f.v.dev, 20, &v, 4);
	CHECK_EQ(v, 512);
	CHECK(f.v.dev->offered & F_FLUSH); /* 5.2.5.2 */
	CHECK(f.v.dev->offered & F_DISCARD);
	CHECK(!(f.v.dev->offered & F_RO));
	virtio_config_read(f.v.dev, 36, &v, 4);
	CHECK(v > 0);
	virtio_config_read(f.v.dev, 56, &v, 4);
	CHECK_EQ(v, 1); /* may unmap, padding 0 */
	virtio_config_read(f.v.dev, 60, &v, 4);
	CHECK_EQ(v, 0);
	CHECK_EQ(f.v.dev->class->id, 2);
	teardown(&f);
}

/* 5.2.6: 20 bytes, padded with NUL, unterminated when full */
static void get_id(void)
{
	struct fixture f;
	uint32_t len;

	setup(&f);
	memset(data(&f), 'x', 64);
	CHECK_EQ(request_len(&f, T_GET_ID, 0, 0, 20, &len), OK);
	CHECK_EQ(len, 21);
	CHECK(!memcmp(data(&f), "test-disk\0\0\0\0\0\0\0\0\0\0\0x", 21));
	memset(data(&f), 'x', 64);
	CHECK_EQ(request_len(&f, T_GET_ID, 0, 0, 4, &len), OK);
	CHECK_EQ(len, 5);
	CHECK(!memcmp(data(&f), "testx", 5));
	CHECK_EQ(request_len(&f, T_GET_ID, 0, 0, 64, &len), OK);
	CHECK_EQ(len, 20); /* what follows wasn't written */
	CHECK_EQ(request_len(&f, T_GET_ID, 0, 0, 0, &len), OK);
	CHECK_EQ(len, 1);
	teardown(&f);
}

/* ---- read, write, flush ---- */

static void read_write(void)
{
	struct fixture f;
	static uint8_t want[8 * SECTOR], got[8 * SECTOR];
	uint32_t len;

	setup(&f);
	fill(data(&f), sizeof(want), 1);
	memcpy(want, data(&f), sizeof(want));
	CHECK_EQ(request_len(&f, T_OUT, 100, sizeof(want), 0, &len), OK);
	CHECK_EQ(len, 1);
	CHECK(pread(f.fd, got, sizeof(got), 100 * SECTOR) == sizeof(got));
	CHECK(!memcmp(got, want, sizeof(want)));
	CHECK(file_zero(f.fd, 99, 1) && file_zero(f.fd, 108, 1));
	memset(data(&f), 0, MIB);
	CHECK_EQ(request_len(&f, T_IN, 100, 0, sizeof(want), &len), OK);
	CHECK_EQ(len, sizeof(want) + 1);
	CHECK(!memcmp(data(&f), want, sizeof(want)));
	CHECK(all((uint8_t *)data(&f) + sizeof(want), 4096, 0));
	CHECK_EQ(request(&f, T_FLUSH, 0, 0, 0), OK);
	/* the whole disk at once, and its last sector */
	CHECK_EQ(request(&f, T_IN, 0, 0, SECTORS * SECTOR), OK);
	CHECK(!memcmp((uint8_t *)data(&f) + 100 * SECTOR, want, sizeof(want)));
	CHECK_EQ(request(&f, T_OUT, SECTORS - 1, SECTOR, 0), OK);
	struct stat st;
	CHECK(fstat(f.fd, &st) == 0 && st.st_size == SECTORS * SECTOR);
	teardown(&f);
}

/* 2.7.4.1: no assumptions about descriptors: header, data and status cut and joined at any place */
static void any_framing(void)
{
	struct fixture f;
	struct vdbuf b[64];
	uint64_t base;
	uint8_t *p;

	setup_fd(&f, temp_file(SECTORS * SECTOR), false, 0);
	file_fill(f.fd, 3);
	base = vdriver_alloc(&f.v, 4096, 1);
	p = vdriver_ptr(&f.v, base, 4096);
	for (unsigned cut = 1; cut <= 3; cut++) {
		/*
		 * read: header in pieces of @cut bytes; data and status in one buffer, cut likewise
		 * near its end
		 */
		struct header h = { T_IN, 0, 5 };
		unsigned n = 0, nout;

		memcpy(p, &h, 16);
		memset(p + 16, PENDING, 1025);
		for (unsigned i = 0; i < 16; i += cut)
			b[n++] = (struct vdbuf){ base + i, MIN(cut, 16 - i) };
		nout = n;
		b[n++] = (struct vdbuf){ base + 16, 1025 - 5 };
		for (unsigned i = 1020; i < 1025; i += cut)
			b[n++] = (struct vdbuf){ base + 16 + i, MIN(cut, 1025 - i) };
		vdriver_add_indirect(&f.v, 0, b, nout, n - nout);
		vdriver_kick(&f.v, 0);
		REQUIRE(vdriver_wait_used(&f.v, 0, NULL, NULL, WAIT_MS));
		CHECK_EQ(p[16 + 1024], OK);
		uint8_t want[1024];
		CHECK(pread(f.fd, want, 1024, 5 * SECTOR) == 1024);
		CHECK(!memcmp(p + 16, want, 1024));

		/* write: header and the first data bytes joined */
		h = (struct header){ T_OUT, 0, 9 };
		memcpy(p, &h, 16);
		fill(p + 16, 1024, cut);
		p[2000] = PENDING;
		n = 0;
		b[n++] = (struct vdbuf){ base, 16 + cut };
		b[n++] = (struct vdbuf){ base + 16 + cut, 1000 };
		b[n++] = (struct vdbuf){ base + 1016 + cut, 24 - cut };
		b[n++] = (struct vdbuf){ base + 2000, 1 };
		vdriver_add(&f.v, 0, b, 3, 1);
		vdriver_kick(&f.v, 0);
		REQUIRE(vdriver_wait_used(&f.v, 0, NULL, NULL, WAIT_MS));
		CHECK_EQ(p[2000], OK);
		CHECK(pread(f.fd, want, 1024, 9 * SECTOR) == 1024);
		CHECK(!memcmp(p + 16, want, 1024));
	}
	teardown(&f);
}

/* The longest chain that seg_max allows */
static void longest_chain(void)
{
	struct fixture f;
	struct vdbuf b[256];

	setup(&f);
	file_fill(f.fd, 9);
	set_header(&f, T_IN, 0);
	b[0] = (struct vdbuf){ f.hdr, 16 };
	for (unsigned i = 0; i < 254; i++)
		b[1 + i] = (struct vdbuf){ f.data + (253 - i) * SECTOR, SECTOR }; /* backwards */
	b[255] = (struct vdbuf){ f.status, 1 };
	for (unsigned round = 0; round < 2; round++) {
		memset(data(&f), 0, MIB);
		if (round)
			vdriver_add_indirect(&f.v, 0, b, 1, 255);
		else
			vdriver_add(&f.v, 0, b, 1, 255);
		vdriver_kick(&f.v, 0);
		REQUIRE(vdriver_wait_used(&f.v, 0, NULL, NULL, WAIT_MS));
		CHECK_EQ(*status_byte(&f), OK);
		for (unsigned i = 0; i < 254; i++) {
			uint8_t want[SECTOR];

			CHECK(pread(f.fd, want, SECTOR, i * SECTOR) == SECTOR);
			CHECK(!memcmp(want, (uint8_t *)data(&f) + (253 - i) * SECTOR, SECTOR));
		}
	}
	teardown(&f);
}

struct many {
	struct fixture f;
	uint64_t hdr, data, status;
	unsigned done;
};

static void many_add(struct many *m, unsigned i, uint32_t type, uint64_t sector)
{
	struct header h = { type, 0, sector };
	struct vdbuf b[] = {
		{ m->hdr + 16 * i, 16 },
		{ m->data + SECTOR * i, SECTOR },
		{ m->status + i, 1 },
	};

	memcpy(vdriver_ptr(&m->f.v, b[0].gpa, 16), &h, 16);
	*(uint8_t *)vdriver_ptr(&m->f.v, b[2].gpa, 1) = PENDING;
	vdriver_add_indirect(&m->f.v, 0, b, type == T_OUT ? 2 : 1, type == T_OUT ? 1 : 2);
}

static void many_setup(struct many *m)
{
	memset(m, 0, sizeof(*m));
	setup(&m->f);
	m->hdr = vdriver_alloc(&m->f.v, 16 * 256, 16);
	m->data = vdriver_alloc(&m->f.v, SECTOR * 256, 4096);
	m->status = vdriver_alloc(&m->f.v, 256, 1);
}

static unsigned many_wait(struct many *m, unsigned n)
{
	unsigned got = 0;

	while (got < n && vdriver_wait_used(&m->f.v, 0, NULL, NULL, WAIT_MS))
		got++;
	return got;
}

/* Queue depth 256: all at once, in two directions, more than one turn's budget */
static void many_in_flight(void)
{
	static struct many m;

	many_setup(&m);
	for (unsigned round = 0; round < 4; round++) {
		fill(vdriver_ptr(&m.f.v, m.data, SECTOR * 256), SECTOR * 256, round);
		for (unsigned i = 0; i < 256; i++)
			many_add(&m, i, T_OUT, (i * 37) % 256);
		vdriver_kick(&m.f.v, 0);
		CHECK_EQ(many_wait(&m, 256), 256);
		memset(vdriver_ptr(&m.f.v, m.data, SECTOR * 256), 0, SECTOR * 256);
		for (unsigned i = 0; i < 256; i++)
			many_add(&m, i, T_IN, (i * 37) % 256);
		vdriver_kick(&m.f.v, 0);
		CHECK_EQ(many_wait(&m, 256), 256);
		CHECK(all(vdriver_ptr(&m.f.v, m.status, 256), 256, OK));
		static uint8_t want[SECTOR * 256];
		fill(want, sizeof(want), round);
		CHECK(!memcmp(vdriver_ptr(&m.f.v, m.data, SECTOR * 256), want, sizeof(want)));
	}
	CHECK(!virtio_busy(m.f.v.dev));
	/* 4 rounds of 512 requests: interrupts are per turn of the loop, not per request */
	CHECK(m.f.v.q[0].notified > 0 && m.f.v.q[0].notified < 4 * 512);
	teardown(&m.f);
}

/* Pages of the file that aren't on storage yet; 0 where the kernel (before 6.5) doesn't tell. */
static uint64_t dirty_pages(int fd)
{
	struct {
		uint64_t cache, dirty, writeback, evicted, recently_evicted;
	} stat = { 0 };
	struct {
		uint64_t off, len;
	} range = { 0, 0 };

	if (syscall(451 /* cachestat */, fd, &range, &stat, 0))
		REQUIRE(errno == ENOSYS || errno == EOPNOTSUPP);
	return stat.dirty + stat.writeback;
}

/* 5.2.6.2: a flush, or without FLUSH negotiated each write, means that data is on storage */
static void flush(void)
{
	struct fixture f;

	setup(&f);
	fill(data(&f), SECTOR, 5);
	CHECK_EQ(request(&f, T_OUT, 1, SECTOR, 0), OK);
	CHECK_EQ(request(&f, T_FLUSH, 0, 0, 0), OK);
	CHECK_EQ(dirty_pages(f.fd), 0);
	teardown(&f);
}

static void write_through(void)
{
	struct fixture f;
	struct segment s = { 4, 4, 0 };

	setup_fd(&f, temp_file(SECTORS * SECTOR), false, F_DISCARD | F_WRITE_ZEROES);
	fill(data(&f), SECTOR, 5);
	CHECK_EQ(request(&f, T_OUT, 1, SECTOR, 0), OK);
	CHECK_EQ(dirty_pages(f.fd), 0);
	CHECK(!file_zero(f.fd, 1, 1));
	CHECK_EQ(segments(&f, T_WRITE_ZEROES, &s, 1), OK);
	CHECK_EQ(segments(&f, T_DISCARD, &s, 1), OK);
	teardown(&f);
}

/* ---- errors ---- */

/* 5.2.6.1: beyond capacity, lengths that aren't sectors: IOERR, and nothing happens to the file */
static void out_of_range(void)
{
	static const struct {
		uint64_t sector;
		uint32_t len;
	} bad[] = {
		{ SECTORS, SECTOR },
		{ SECTORS - 1, 2 * SECTOR },
		{ SECTORS + 1, SECTOR },
		{ UINT64_MAX, SECTOR },          /* wraps in sectors */
		{ UINT64_MAX / SECTOR, SECTOR }, /* in bytes */
		{ UINT64_MAX / SECTOR + 1, SECTOR },
		{ (UINT64_C(1) << 55), SECTOR }, /* * 512 == 0 */
		{ (UINT64_C(1) << 55) + 1, SECTOR },
		{ UINT64_MAX - 1, 3 * SECTOR },
		{ 0, 1 },
		{ 0, SECTOR - 1 },
		{ 0, SECTOR + 1 },
		{ UINT64_MAX, 7 },
	};
	struct fixture f;
	uint32_t len;

	setup(&f);
	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
		memset(data(&f), 0x55, 4 * SECTOR);
		CHECK_EQ(request_len(&f, T_OUT, bad[i].sector, bad[i].len, 0, &len), IOERR);
		CHECK_EQ(len, 1);
		CHECK_EQ(request_len(&f, T_IN, bad[i].sector, 0, bad[i].len, &len), IOERR);
		CHECK_EQ(len, 0); /* 2.7.8.2: no data was written, so no more may be claimed */
		CHECK(all(data(&f), 4 * SECTOR, 0x55));
	}
	struct stat st;
	CHECK(fstat(f.fd, &st) == 0 && st.st_size == SECTORS * SECTOR && st.st_blocks == 0);
	CHECK_EQ(request(&f, T_IN, SECTORS, 0, 0), OK); /* nothing, at the very end */
	CHECK_EQ(request(&f, T_IN, SECTORS + 1, 0, 0), IOERR);
	CHECK(virtio_running(f.v.dev));
	teardown(&f);
}

/* More data than the disk has bytes */
static void longer_than_disk(void)
{
	struct fixture f;

	setup_fd(&f, temp_file(SECTOR), false, 0);
	CHECK_EQ(request(&f, T_IN, 0, 0, SECTOR), OK);
	CHECK_EQ(request(&f, T_IN, 0, 0, 2 * SECTOR), IOERR);
	CHECK_EQ(request(&f, T_OUT, UINT64_MAX, 2 * SECTOR, 0), IOERR);
	teardown(&f);
}

static void unsupported(void)
{
	static const uint32_t types[] = { 2, 3, 5, 6, 7, 9, 10, 12, 14, 0x80000000, 0x80000001,
		UINT32_MAX };
	struct fixture f;
	uint32_t len;

	setup(&f);
	for (unsigned i = 0; i < ARRAY_SIZE(types); i++) {
		CHECK_EQ(request_len(&f, types[i], 0, SECTOR, 0, &len), UNSUPP);
		CHECK_EQ(len, 1);
		CHECK_EQ(request_len(&f, types[i], 0, 0, SECTOR, &len), UNSUPP);
	}
	CHECK(file_zero(f.fd, 0, 8));
	teardown(&f);
}

static void short_header(void)
{
	struct fixture f;

	setup(&f);
	for (uint32_t n = 0; n < 16; n++) {
		struct vdbuf b[] = { { f.hdr, n }, { f.status, 1 } };

		set_header(&f, T_FLUSH, 0);
		vdriver_add(&f.v, 0, b, 1, 1);
		vdriver_kick(&f.v, 0);
		REQUIRE(vdriver_wait_used(&f.v, 0, NULL, NULL, WAIT_MS));
		CHECK_EQ(*status_byte(&f), IOERR);
	}
	teardown(&f);
}

/* Nowhere to say what became of it: the driver broke the rules */
static void no_status_byte(void)
{
	struct fixture f;

	setup(&f);
	set_header(&f, T_OUT, 0);
	struct vdbuf b[] = { { f.hdr, 16 }, { f.data, SECTOR }, { f.status, 0 } };
	vdriver_add(&f.v, 0, b, 2, 1); /* a zero-length one is none */
	vdriver_kick(&f.v, 0);
	CHECK(f.v.dev->status & VIRTIO_STATUS_NEEDS_RESET);
	CHECK_EQ(f.v.config_notified, 1);
	vdriver_run(loop, 5);
	CHECK(!vdriver_used(&f.v, 0, NULL, NULL));
	CHECK(!virtio_busy(f.v.dev));
	REQUIRE(vdriver_start(&f.v, f.v.dev->offered) == 0);
	CHECK_EQ(request(&f, T_FLUSH, 0, 0, 0), OK);
	teardown(&f);
}

/* A bad chain after good ones: those in flight still complete */
static void malformed_after_good(void)
{
	struct fixture f;

	setup(&f);
	set_header(&f, T_IN, 0);
	struct vdbuf b[] = { { f.hdr, 16 }, { f.data, SECTOR }, { f.status, 1 } };
	vdriver_add(&f.v, 0, b, 1, 2);
	vdriver_publish(&f.v, 0, 1000);
	vdriver_kick(&f.v, 0);
	CHECK(f.v.dev->status & VIRTIO_STATUS_NEEDS_RESET);
	CHECK(vdriver_wait_used(&f.v, 0, NULL, NULL, WAIT_MS));
	CHECK_EQ(*status_byte(&f), OK);
	teardown(&f);
}

/* The file lost its tail: IOERR there, and only there */
static void truncated_under_it(void)
{
	struct fixture f;

	setup(&f);
	file_fill(f.fd, 1);
	REQUIRE(ftruncate(f.fd, 100 * SECTOR + 100) == 0);
	CHECK_EQ(request(&f, T_IN, 99, 0, SECTOR), OK);
	CHECK_EQ(request(&f, T_IN, 100, 0, SECTOR), IOERR);
	CHECK_EQ(request(&f, T_IN, 98, 0, 8 * SECTOR), IOERR);
	CHECK_EQ(request(&f, T_IN, 1000, 0, 8 * SECTOR), IOERR);
	CHECK_EQ(request(&f, T_IN, 0, 0, 100 * SECTOR), OK);
	teardown(&f);
}

/* The host refuses to write */
static void write_error(void)
{
	struct fixture f;
	struct segment s = { 0, 8, 0 };
	int fd = memfd_create("disk", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	REQUIRE(fd >= 0 && ftruncate(fd, SECTORS * SECTOR) == 0);
	setup_fd(&f, fd, false, 0);
	CHECK_EQ(request(&f, T_OUT, 0, SECTOR, 0), OK);
	REQUIRE(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE) == 0);
	CHECK_EQ(request(&f, T_OUT, 0, SECTOR, 0), IOERR);
	CHECK_EQ(segments(&f, T_DISCARD, &s, 1), IOERR);
	CHECK_EQ(segments(&f, T_WRITE_ZEROES, &s, 1), IOERR);
	CHECK_EQ(request(&f, T_IN, 0, 0, SECTOR), OK);
	teardown(&f);
}

/* 5.2.6.2: a write to a read-only device is IOERR and writes nothing */
static void read_only(void)
{
	struct segment s = { 0, 8, 0 };
	struct fixture f;
	int rw = temp_file(SECTORS * SECTOR), ro;
	char path[64];

	file_fill(rw, 1);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", rw);
	ro = open(path, O_RDONLY | O_CLOEXEC);
	REQUIRE(ro >= 0);
	for (unsigned i = 0; i < 2; i++) { /* also where the descriptor itself could write */
		setup_fd(&f, i ? rw : ro, true, 0);
		CHECK(f.v.dev->offered & F_RO);
		CHECK(!(f.v.dev->offered & (F_DISCARD | F_WRITE_ZEROES)));
		memset(data(&f), 0, 8 * SECTOR);
		CHECK_EQ(request(&f, T_OUT, 0, SECTOR, 0), IOERR);
		CHECK_EQ(segments(&f, T_DISCARD, &s, 1), IOERR);
		CHECK_EQ(segments(&f, T_WRITE_ZEROES, &s, 1), IOERR);
		CHECK_EQ(request(&f, T_FLUSH, 0, 0, 0), OK);
		CHECK_EQ(request(&f, T_IN, 0, 0, SECTOR), OK);
		CHECK(!file_zero(f.fd, 0, 1));
		teardown(&f);
	}
}

/* ---- discard, write zeroes ---- */

static uint64_t blocks(int fd)
{
	struct stat st;

	REQUIRE(fstat(fd, &st) == 0);
	return (uint64_t)st.st_blocks;
}

static void discard(void)
{
	struct fixture f;
	uint64_t before;

	setup(&f);
	file_fill(f.fd, 2);
	REQUIRE(fsync(f.fd) == 0); /* delayed allocation has ended: st_blocks is settled */
	before = blocks(f.fd);
	struct segment two[] = { { 0, 512, 0 }, { 1024, 512, 0 } };
	CHECK_EQ(segments(&f, T_DISCARD, two, 2), OK);
	CHECK(blocks(f.fd) <= before - 1024);
	CHECK(!file_zero(f.fd, 512, 1) && !file_zero(f.fd, 1536, 1)); /* neighbours */
	struct stat st;
	CHECK(fstat(f.fd, &st) == 0 && st.st_size == SECTORS * SECTOR);
	struct segment whole = { 0, SECTORS, 0 };
	CHECK_EQ(segments(&f, T_DISCARD, &whole, 1), OK);
	CHECK_EQ(blocks(f.fd), 0);
	teardown(&f);
}

/* 5.2.6.2: reads afterwards return zeroes, with unmap and without */
static void write_zeroes(int fd)
{
	struct fixture f;

	setup_fd(&f, fd, false, 0);
	for (unsigned unmap = 0; unmap < 2; unmap++) {
		file_fill(f.fd, 4);
		struct segment s = { 10, 13, unmap }, large = { 100, 1000, unmap },
			       none = { 5, 0, unmap };
		CHECK_EQ(segments(&f, T_WRITE_ZEROES, &s, 1), OK);
		CHECK(file_zero(f.fd, 10, 13));
		CHECK(!file_zero(f.fd, 9, 1) && !file_zero(f.fd, 23, 1));
		CHECK_EQ(segments(&f, T_WRITE_ZEROES, &large, 1), OK);
		for (unsigned i = 0; i < 1000; i += 10)
			CHECK(file_zero(f.fd, 100 + i, 10));
		CHECK(!file_zero(f.fd, 99, 1) && !file_zero(f.fd, 1100, 1));
		CHECK_EQ(segments(&f, T_WRITE_ZEROES, &none, 1), OK);
		CHECK(!file_zero(f.fd, 5, 1));
	}
	teardown(&f);
}

/* 5.2.6.2: only with unmap is storage given back */
static void write_zeroes_unmap(void)
{
	struct fixture f;
	uint64_t before;

	setup(&f);
	file_fill(f.fd, 2);
	REQUIRE(fsync(f.fd) == 0);
	before = blocks(f.fd);
	CHECK_EQ(segments(&f, T_WRITE_ZEROES, &(struct segment){ 0, 1024, 0 }, 1), OK);
	REQUIRE(fsync(f.fd) == 0);
	CHECK(blocks(f.fd) >= before);
	CHECK_EQ(segments(&f, T_WRITE_ZEROES, &(struct segment){ 0, 1024, 1 }, 1), OK);
	CHECK(blocks(f.fd) <= before - 1024);
	teardown(&f);
}

/* 5.2.6.1: no more sectors in a segment than the configuration allows */
static void segment_limits(void)
{
	struct fixture f;
	uint32_t discard_max, zeroes_max;

	setup_fd(&f, temp_file((off_t)(4 * GIB)), false, 0);
	virtio_config_read(f.v.dev, 36, &discard_max, 4);
	virtio_config_read(f.v.dev, 48, &zeroes_max, 4);
	REQUIRE(discard_max < 4 * GIB / SECTOR && zeroes_max < 4 * GIB / SECTOR);
	for (unsigned i = 0; i < 2; i++) {
		struct segment d = { 0, discard_max + i, 0 }, z = { 0, zeroes_max + i, 1 };

		CHECK_EQ(segments(&f, T_DISCARD, &d, 1), i ? IOERR : OK);
		CHECK_EQ(segments(&f, T_WRITE_ZEROES, &z, 1), i ? IOERR : OK);
	}
	teardown(&f);
}

/* 5.2.6.2, 5.2.6.1: flags and lengths of segments, ranges, their number */
static void bad_segments(void)
{
	struct segment none[17] = { 0 };
	struct fixture f;

	setup(&f);
	file_fill(f.fd, 6);
	static const struct {
		struct segment s;
		unsigned discard, zeroes;
	} t[] = {
		{ { 0, 8, 1 }, UNSUPP, OK },
		{ { 0, 8, 2 }, UNSUPP, UNSUPP },
		{ { 0, 8, 3 }, UNSUPP, UNSUPP },
		{ { 0, 8, 0x80000000 }, UNSUPP, UNSUPP },
		{ { SECTORS, 1, 0 }, IOERR, IOERR },
		{ { SECTORS - 1, 2, 0 }, IOERR, IOERR },
		{ { UINT64_MAX, 1, 0 }, IOERR, IOERR },
		{ { UINT64_C(1) << 55, 8, 0 }, IOERR, IOERR },
		{ { 0, UINT32_MAX, 0 }, IOERR, IOERR },
		{ { UINT64_MAX - UINT32_MAX + 1, UINT32_MAX, 0 }, IOERR, IOERR },
	};
	for (unsigned i = 1; i < ARRAY_SIZE(t); i++) {
		CHECK_EQ(segments(&f, T_DISCARD, &t[i].s, 1), t[i].discard);
		CHECK_EQ(segments(&f, T_WRITE_ZEROES, &t[i].s, 1), t[i].zeroes);
	}
	CHECK_EQ(segments(&f, T_DISCARD, &t[0].s, 1), UNSUPP);
	CHECK(!file_zero(f.fd, 0, 8));
	CHECK_EQ(segments(&f, T_DISCARD, none, 0), IOERR);
	CHECK_EQ(segments(&f, T_DISCARD, none, 16), OK);
	CHECK_EQ(segments(&f, T_DISCARD, none, 17), IOERR);
	CHECK_EQ(segments(&f, T_WRITE_ZEROES, none, 2), IOERR);
	CHECK_EQ(request(&f, T_DISCARD, 0, 15, 0), IOERR);
	CHECK_EQ(request(&f, T_DISCARD, 0, 17, 0), IOERR);
	/* one bad segment spoils all before anything is done */
	struct segment mixed[] = { { 0, 8, 0 }, { SECTORS, 8, 0 } };
	CHECK_EQ(segments(&f, T_DISCARD, mixed, 2), IOERR);
	CHECK(!file_zero(f.fd, 0, 8));
	teardown(&f);
	setup_fd(&f, temp_file(SECTORS * SECTOR), false, F_FLUSH);
	CHECK_EQ(segments(&f, T_DISCARD, none, 1), UNSUPP); /* not negotiated */
	CHECK_EQ(segments(&f, T_WRITE_ZEROES, none, 1), UNSUPP);
	teardown(&f);
}

/* ---- reset, limits ---- */

/* 2.4.1: requests in flight at a reset never touch the new ring; all slots come back */
static void reset_in_flight(void)
{
	static struct many m;

	many_setup(&m);
	file_fill(m.f.fd, 8);
	for (unsigned i = 0; i < 256; i++)
		many_add(&m, i, T_IN, i);
	for (unsigned i = 0; i < 4; i++)
		vdriver_kick(&m.f.v, 0); /* past the budget; no turn of the loop: none completes */
	CHECK(virtio_busy(m.f.v.dev));
	volatile uint16_t *old_used = m.f.v.q[0].used;
	REQUIRE(vdriver_start(&m.f.v, m.f.v.dev->offered) == 0);
	for (unsigned i = 0; i < 20; i++)
		many_add(&m, i, T_IN, i);
	vdriver_kick(&m.f.v, 0);
	CHECK_EQ(many_wait(&m, 20), 20);
	CHECK(!vdriver_wait_used(&m.f.v, 0, NULL, NULL, 50)); /* and no more than those */
	CHECK_EQ(old_used[1], 0);
	CHECK(!virtio_busy(m.f.v.dev));
	uint8_t *status = vdriver_ptr(&m.f.v, m.status, 256);
	CHECK(all(status, 20, OK));
	CHECK(all(status + 20, 236, PENDING)); /* dropped: not even their status */
	teardown(&m.f);
}

static void destroy_in_flight(void)
{
	static struct many m;

	many_setup(&m);
	for (unsigned i = 0; i < 64; i++)
		many_add(&m, i, T_OUT, i);
	vdriver_kick(&m.f.v, 0);
	CHECK(virtio_busy(m.f.v.dev));
	teardown(&m.f); /* waits */
}

static void limits(void)
{
	static struct many m;
	uint64_t start;
	unsigned n = 0;

	many_setup(&m);
	dev_blk_set_limits(m.f.v.dev, 20, 0);
	for (unsigned i = 0; i < 26; i++)
		many_add(&m, i, T_IN, i);
	start = loop_now_ns();
	vdriver_kick(&m.f.v, 0);
	vdriver_run(loop, 20);
	while (vdriver_used(&m.f.v, 0, NULL, NULL))
		n++;
	CHECK(n >= 20); /* the burst */
	CHECK_EQ(n + many_wait(&m, 26 - n), 26);
	CHECK(loop_now_ns() - start >= 5 * NSEC_PER_SEC / 20);

	dev_blk_set_limits(m.f.v.dev, 0, 100 * SECTOR);
	for (unsigned i = 0; i < 130; i++)
		many_add(&m, i, T_IN, i);
	start = loop_now_ns();
	vdriver_kick(&m.f.v, 0);
	CHECK_EQ(many_wait(&m, 130), 130);
	CHECK(loop_now_ns() - start >= 29 * NSEC_PER_SEC / 100);

	dev_blk_set_limits(m.f.v.dev, 20, 0);
	for (unsigned i = 0; i < 30; i++)
		many_add(&m, i, T_IN, i);
	vdriver_kick(&m.f.v, 0);
	CHECK(many_wait(&m, 20) == 20);
	teardown(&m.f);         /* while others wait for their tokens */
	vdriver_run(loop, 200); /* nothing fires into freed memory */
}

/* ---- images that can't be ---- */

static void check_refused(int fd, bool ro, const char *what)
{
	struct vmm_disk_config cfg = { .fd = fd, .read_only = ro, .serial = "data" };
	struct virtio_dev *d;
	struct error e = { 0 };

	CHECK(dev_blk_create(&d, loop, mem, &cfg, &e) < 0);
	CHECK(strstr(e.msg, "disk 'data': "));
	if (!strstr(e.msg, what)) {
		fprintf(stderr, "\"%s\" doesn't say \"%s\"\n", e.msg, what);
		test_failures++;
	}
	close(fd);
}

static void bad_images(void)
{
	char path[64];
	int fd, pipefd[2];

	check_refused(temp_file(0), true, "empty");
	check_refused(temp_file(1000), true, "truncate -s %512");
	check_refused(open("/", O_RDONLY | O_CLOEXEC), true, "regular file");
	REQUIRE(pipe(pipefd) == 0);
	check_refused(pipefd[0], true, "regular file");
	close(pipefd[1]);
	check_refused(-1, true, "descriptor");
	fd = temp_file(SECTOR);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	check_refused(open(path, O_RDONLY | O_CLOEXEC), false, "reading and writing");
	check_refused(open(path, O_WRONLY | O_CLOEXEC), true, "reading");
	check_refused(open(path, O_RDWR | O_APPEND | O_CLOEXEC), false, "appending");
	close(fd);
}

int main(void)
{
	struct error e;
	int fd;

	REQUIRE(loop_create(&loop, 256, &e) == 0);
	REQUIRE(loop_start(loop, true, &e) == 0);
	REQUIRE(gmem_create(&mem, 32 * MIB, &e) == 0);
	config();
	get_id();
	read_write();
	any_framing();
	longest_chain();
	many_in_flight();
	flush();
	write_through();
	out_of_range();
	longer_than_disk();
	unsupported();
	short_header();
	no_status_byte();
	malformed_after_good();
	truncated_under_it();
	write_error();
	read_only();
	discard();
	write_zeroes(temp_file(SECTORS * SECTOR));
	fd = memfd_create("disk", MFD_CLOEXEC); /* tmpfs has no FALLOC_FL_ZERO_RANGE */
	REQUIRE(fd >= 0 && ftruncate(fd, SECTORS * SECTOR) == 0);
	write_zeroes(fd);
	write_zeroes_unmap();
	segment_limits();
	bad_segments();
	reset_in_flight();
	destroy_in_flight();
	limits();
	bad_images();
	gmem_destroy(mem);
	loop_destroy(loop);
	TEST_END();
}

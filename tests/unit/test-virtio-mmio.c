/* The MMIO transport and device state: registers as VIRTIO 1.2, 4.2.2 and 2.1 to 2.4 have them. */
#include "tests/lib/test.h"

#include <sys/eventfd.h>

#include "tests/lib/vdriver.h"
#include "vmm/virtio_mmio.h"

enum {
	MAGIC = 0x000,
	VERSION = 0x004,
	DEVICE_ID = 0x008,
	VENDOR_ID = 0x00c,
	DEVICE_FEATURES = 0x010,
	DEVICE_FEATURES_SEL = 0x014,
	DRIVER_FEATURES = 0x020,
	DRIVER_FEATURES_SEL = 0x024,
	QUEUE_SEL = 0x030,
	QUEUE_NUM_MAX = 0x034,
	QUEUE_NUM = 0x038,
	QUEUE_READY = 0x044,
	QUEUE_NOTIFY = 0x050,
	INTERRUPT_STATUS = 0x060,
	INTERRUPT_ACK = 0x064,
	STATUS = 0x070,
	QUEUE_DESC = 0x080,
	QUEUE_DRIVER = 0x090,
	QUEUE_DEVICE = 0x0a0,
	SHM_SEL = 0x0ac,
	SHM_LEN = 0x0b0,
	SHM_BASE = 0x0b8,
	CONFIG_GENERATION = 0x0fc,
	CONFIG = 0x100,
};

#define S_ACK    VIRTIO_STATUS_ACKNOWLEDGE
#define S_DRIVER VIRTIO_STATUS_DRIVER
#define S_FEAT   VIRTIO_STATUS_FEATURES_OK
#define S_OK     VIRTIO_STATUS_DRIVER_OK
#define S_NEEDS  VIRTIO_STATUS_NEEDS_RESET
#define S_FAILED VIRTIO_STATUS_FAILED

#define OFFERED   UINT64_C(0x5) /* of the device type's own bits */
#define COMMON    (UINT64_C(1) << 28 | UINT64_C(1) << 29 | UINT64_C(1) << 32)
#define DESC_GPA  0x100000
#define AVAIL_GPA 0x110000
#define USED_GPA  0x120000

static struct loop *loop;
static struct gmem *mem;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

struct fixture {
	struct virtio_dev dev;
	struct virtio_mmio t;
	int irq; /* our end of the irqfd */
	uint8_t config[10];
	unsigned kicks[2], starts, resets, writes, last_off, last_len;
};

static struct fixture *fix(struct virtio_dev *d)
{
	return container_of(d, struct fixture, dev);
}

static void probe_kick(struct virtio_dev *d, unsigned q)
{
	fix(d)->kicks[q]++;
}

static void probe_start(struct virtio_dev *d)
{
	fix(d)->starts++;
}

static void probe_reset(struct virtio_dev *d)
{
	fix(d)->resets++;
}

static void probe_config_write(struct virtio_dev *d, unsigned off, const void *data, unsigned len)
{
	memcpy(fix(d)->config + off, data, len); /* ASan sees what lies outside */
	fix(d)->writes++;
	fix(d)->last_off = off;
	fix(d)->last_len = len;
}

static void probe_destroy(struct virtio_dev *d)
{
	(void)d;
}

static const struct virtio_class probe_class = {
	.name = "probe",
	.id = 42,
	.nqueues = 2,
	.queue_size = 16,
	.kick = probe_kick,
	.start = probe_start,
	.reset = probe_reset,
	.config_write = probe_config_write,
	.destroy = probe_destroy,
};

static void setup(struct fixture *f)
{
	memset(f, 0, sizeof(*f));
	f->dev.class = &probe_class;
	f->dev.tag = "probe";
	f->dev.loop = loop;
	f->dev.mem = mem;
	f->dev.offered = OFFERED;
	f->dev.config = f->config;
	f->dev.config_len = sizeof(f->config);
	for (unsigned i = 0; i < sizeof(f->config); i++)
		f->config[i] = (uint8_t)(0x11 * (i + 1));
	virtio_init(&f->dev);
	f->irq = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	REQUIRE(f->irq >= 0);
	virtio_mmio_init(&f->t, &f->dev, &lock, dup(f->irq));
}

static bool dev_idle(void *d)
{
	return !virtio_busy(d);
}

static void teardown(struct fixture *f)
{
	virtio_stop(&f->dev);
	CHECK(vdriver_run_until(loop, dev_idle, &f->dev, 1000));
	virtio_destroy(&f->dev);
	close(f->irq);
}

static uint32_t rd(struct fixture *f, unsigned off)
{
	uint32_t v = 0xdddddddd;

	virtio_mmio_bus_ops.read(&f->t, off, &v, 4);
	return v;
}

static void wr(struct fixture *f, unsigned off, uint32_t v)
{
	virtio_mmio_bus_ops.write(&f->t, off, &v, 4);
}

static unsigned interrupts(struct fixture *f)
{
	uint64_t n = 0;

	return read(f->irq, &n, sizeof(n)) == sizeof(n) ? (unsigned)n : 0;
}

static void features(struct fixture *f, uint64_t bits)
{
	wr(f, DRIVER_FEATURES_SEL, 0);
	wr(f, DRIVER_FEATURES, (uint32_t)bits);
	wr(f, DRIVER_FEATURES_SEL, 1);
	wr(f, DRIVER_FEATURES, (uint32_t)(bits >> 32));
}

static void to_features_ok(struct fixture *f)
{
	wr(f, STATUS, 0);
	wr(f, STATUS, S_ACK);
	wr(f, STATUS, S_ACK | S_DRIVER);
	features(f, COMMON);
	wr(f, STATUS, S_ACK | S_DRIVER | S_FEAT);
	REQUIRE(rd(f, STATUS) == (S_ACK | S_DRIVER | S_FEAT));
}

static void queue(struct fixture *f, unsigned q)
{
	wr(f, QUEUE_SEL, q);
	wr(f, QUEUE_NUM, 8);
	wr(f, QUEUE_DESC, DESC_GPA + q * 0x1000);
	wr(f, QUEUE_DRIVER, AVAIL_GPA + q * 0x1000);
	wr(f, QUEUE_DEVICE, USED_GPA + q * 0x1000);
	wr(f, QUEUE_READY, 1);
}

static void to_driver_ok(struct fixture *f)
{
	to_features_ok(f);
	queue(f, 0);
	queue(f, 1);
	REQUIRE(rd(f, QUEUE_READY) == 1);
	wr(f, STATUS, S_ACK | S_DRIVER | S_FEAT | S_OK);
	REQUIRE(rd(f, STATUS) == (S_ACK | S_DRIVER | S_FEAT | S_OK));
}

/* ---- registers ---- */

/* 4.2.2.1: magic, version 2; 4.2.2: device id, vendor */
static void identity(void)
{
	struct fixture f;

	setup(&f);
	CHECK_EQ(rd(&f, MAGIC), 0x74726976);
	CHECK_EQ(rd(&f, VERSION), 2);
	CHECK_EQ(rd(&f, DEVICE_ID), 42);
	CHECK(rd(&f, VENDOR_ID) != 0);
	wr(&f, MAGIC, 0);
	wr(&f, DEVICE_ID, 0);
	CHECK_EQ(rd(&f, MAGIC), 0x74726976);
	CHECK_EQ(rd(&f, DEVICE_ID), 42);
	teardown(&f);
}

/* 4.2.2: device id 0 is a placeholder that a driver ignores */
static void empty_slot(void)
{
	struct virtio_mmio t;

	virtio_mmio_init(&t, NULL, &lock, -1);
	for (unsigned off = 0; off < 0x1000; off += 4) {
		uint32_t v = 0xdddddddd, w = 0xffffffff;

		virtio_mmio_bus_ops.read(&t, off, &v, 4);
		virtio_mmio_bus_ops.write(&t, off, &w, 4);
		CHECK_EQ(v != 0, off == MAGIC || off == VERSION || off == VENDOR_ID);
	}
	virtio_mmio_finish(&t);
}

/* 4.2.2: two words of features, the rest zero */
static void device_features(void)
{
	struct fixture f;

	setup(&f);
	CHECK_EQ(rd(&f, DEVICE_FEATURES), (uint32_t)(OFFERED | COMMON));
	wr(&f, DEVICE_FEATURES_SEL, 1);
	CHECK_EQ(rd(&f, DEVICE_FEATURES), 1); /* VERSION_1 */
	for (unsigned i = 0; i < 3; i++) {
		static const uint32_t sel[] = { 2, 3, UINT32_MAX };

		wr(&f, DEVICE_FEATURES_SEL, sel[i]);
		CHECK_EQ(rd(&f, DEVICE_FEATURES), 0);
	}
	teardown(&f);
}

/*
 * 4.2.2.2: control registers are 32 bits wide and aligned; other accesses read 0 and write nothing
 */
static void access_width(void)
{
	struct fixture f;
	uint64_t v, w = UINT64_MAX;

	setup(&f);
	for (unsigned len = 1; len <= 8; len *= 2) {
		for (unsigned off = 0; off < 0x100; off++) {
			v = UINT64_MAX;
			if (len == 4 && off % 4 == 0)
				continue;
			virtio_mmio_bus_ops.read(&f.t, off, &v, len);
			CHECK_EQ(v, len == 8 ? 0 : UINT64_MAX << (8 * len));
			virtio_mmio_bus_ops.write(&f.t, off, &w, len);
		}
	}
	CHECK_EQ(rd(&f, STATUS), 0);
	CHECK_EQ(f.resets + f.starts + f.writes + f.kicks[0], 0);
	/* and the holes between registers */
	CHECK_EQ(rd(&f, 0x018), 0);
	CHECK_EQ(rd(&f, 0x0c0), 0); /* QueueReset: RING_RESET isn't offered */
	CHECK_EQ(rd(&f, QUEUE_NOTIFY), 0);
	teardown(&f);
}

/* 4.2.2: no shared memory: length and base are -1 */
static void shared_memory(void)
{
	struct fixture f;

	setup(&f);
	wr(&f, SHM_SEL, 7);
	for (unsigned i = 0; i < 8; i += 4) {
		CHECK_EQ(rd(&f, SHM_LEN + i), UINT32_MAX);
		CHECK_EQ(rd(&f, SHM_BASE + i), UINT32_MAX);
	}
	teardown(&f);
}

/* ---- status ---- */

/* 3.1.1: the sequence; 2.1.1: bits are never cleared but by reset */
static void status_sequence(void)
{
	struct fixture f;

	setup(&f);
	CHECK_EQ(rd(&f, STATUS), 0);
	features(&f, COMMON);
	wr(&f, STATUS, S_FEAT); /* before the driver said who it is */
	CHECK_EQ(rd(&f, STATUS), 0);
	wr(&f, STATUS, S_ACK);
	wr(&f, STATUS, S_ACK | S_DRIVER);
	wr(&f, STATUS, S_ACK | S_DRIVER | S_OK); /* without FEATURES_OK */
	CHECK_EQ(rd(&f, STATUS), S_ACK | S_DRIVER);
	features(&f, COMMON);
	wr(&f, STATUS, S_FEAT | S_ACK | S_DRIVER);
	wr(&f, STATUS, S_ACK); /* clears nothing */
	CHECK_EQ(rd(&f, STATUS), S_ACK | S_DRIVER | S_FEAT);
	wr(&f, STATUS, S_NEEDS | 0xffffff00); /* not the driver's */
	CHECK_EQ(rd(&f, STATUS), S_ACK | S_DRIVER | S_FEAT);
	wr(&f, STATUS, S_OK);
	CHECK_EQ(rd(&f, STATUS), S_ACK | S_DRIVER | S_FEAT | S_OK);
	CHECK_EQ(f.starts, 1);
	wr(&f, STATUS, S_OK);
	CHECK_EQ(f.starts, 1);
	wr(&f, STATUS, 0);
	CHECK_EQ(rd(&f, STATUS), 0);
	CHECK_EQ(f.resets, 1);
	teardown(&f);
}

/* 2.1: a driver that gave up must reset first */
static void status_failed(void)
{
	struct fixture f;

	setup(&f);
	features(&f, COMMON);
	wr(&f, STATUS, S_ACK | S_DRIVER | S_FAILED);
	wr(&f, STATUS, S_ACK | S_DRIVER | S_FEAT | S_OK);
	CHECK_EQ(rd(&f, STATUS), S_ACK | S_DRIVER | S_FAILED);
	to_driver_ok(&f);
	teardown(&f);
}

static uint32_t negotiate(struct fixture *f, uint64_t bits, uint32_t beyond)
{
	wr(f, STATUS, 0);
	wr(f, STATUS, S_ACK | S_DRIVER);
	features(f, bits);
	if (beyond) {
		wr(f, DRIVER_FEATURES_SEL, 2);
		wr(f, DRIVER_FEATURES, beyond);
	}
	wr(f, STATUS, S_ACK | S_DRIVER | S_FEAT);
	return rd(f, STATUS) & S_FEAT;
}

/*
 * 2.2.2: FEATURES_OK doesn't stick if the driver accepts what wasn't offered; 6.2: or not VERSION_1
 */
static void features_refused(void)
{
	struct fixture f;

	setup(&f);
	CHECK(negotiate(&f, UINT64_C(1) << 32, 0));
	CHECK(negotiate(&f, OFFERED | COMMON, 0));
	CHECK(!negotiate(&f, 0, 0));
	CHECK(!negotiate(&f, OFFERED, 0));
	CHECK(!negotiate(&f, COMMON | 1 << 1, 0));
	CHECK(!negotiate(&f, COMMON | UINT64_C(1) << 34, 0)); /* RING_PACKED */
	CHECK(!negotiate(&f, UINT64_MAX, 0));
	CHECK(!negotiate(&f, COMMON, 1));
	CHECK(negotiate(&f, COMMON, 0)); /* 2.2.2: what was accepted once stays acceptable */
	teardown(&f);
}

/* 3.1.1: features don't change after FEATURES_OK */
static void features_final(void)
{
	struct fixture f;

	setup(&f);
	to_features_ok(&f);
	features(&f, UINT64_MAX);
	CHECK(f.dev.features == COMMON);
	wr(&f, STATUS, S_OK);
	features(&f, 0);
	CHECK(f.dev.features == COMMON);
	teardown(&f);
}

/* ---- queues ---- */

/* 4.2.2: QueueNumMax is 0 for queues that don't exist */
static void queue_num_max(void)
{
	struct fixture f;

	setup(&f);
	for (unsigned i = 0; i < 5; i++) {
		static const uint32_t sel[] = { 0, 1, 2, 8, UINT32_MAX };

		wr(&f, QUEUE_SEL, sel[i]);
		CHECK_EQ(rd(&f, QUEUE_NUM_MAX), sel[i] < 2 ? 16 : 0);
		CHECK_EQ(rd(&f, QUEUE_READY), 0);
	}
	to_features_ok(&f);
	queue(&f, 2); /* nobody there: nothing happens */
	queue(&f, UINT32_MAX);
	CHECK_EQ(rd(&f, QUEUE_READY), 0);
	teardown(&f);
}

/* Queue registers are writable only between FEATURES_OK and DRIVER_OK */
static void queue_registers_when(void)
{
	struct fixture f;

	setup(&f);
	wr(&f, STATUS, S_ACK | S_DRIVER);
	queue(&f, 0);
	CHECK_EQ(rd(&f, QUEUE_READY), 0);
	CHECK_EQ(f.dev.vq[0].desc_gpa, 0);
	CHECK_EQ(f.dev.vq[0].size, 16);
	to_features_ok(&f);
	queue(&f, 0);
	CHECK_EQ(rd(&f, QUEUE_READY), 1);
	wr(&f, QUEUE_DESC, 0x1230000); /* 4.2.2.2: not while it is ready */
	wr(&f, QUEUE_NUM, 2);
	CHECK_EQ(f.dev.vq[0].desc_gpa, DESC_GPA);
	CHECK_EQ(f.dev.vq[0].size, 8);
	wr(&f, QUEUE_READY, 0);
	CHECK_EQ(rd(&f, QUEUE_READY), 0);
	queue(&f, 0);
	wr(&f, STATUS, S_OK);
	queue(&f, 1); /* too late */
	CHECK_EQ(rd(&f, QUEUE_READY), 0);
	wr(&f, QUEUE_SEL, 0);
	wr(&f, QUEUE_READY, 0);
	wr(&f, QUEUE_DESC, 0x1230000);
	CHECK_EQ(rd(&f, QUEUE_READY), 1);
	CHECK_EQ(f.dev.vq[0].desc_gpa, DESC_GPA);
	wr(&f, STATUS, 0);
	CHECK_EQ(rd(&f, QUEUE_READY), 0); /* 4.2.2.1 */
	teardown(&f);
}

static void queue_addresses_64bit(void)
{
	struct fixture f;

	setup(&f);
	to_features_ok(&f);
	wr(&f, QUEUE_DESC, 0x89abcdef);
	wr(&f, QUEUE_DESC + 4, 0x01234567);
	wr(&f, QUEUE_DRIVER + 4, 1);
	wr(&f, QUEUE_DRIVER, 2);
	wr(&f, QUEUE_DEVICE + 4, 3);
	wr(&f, QUEUE_DEVICE, 4);
	CHECK(f.dev.vq[0].desc_gpa == UINT64_C(0x0123456789abcdef));
	CHECK(f.dev.vq[0].avail_gpa == UINT64_C(0x100000002));
	CHECK(f.dev.vq[0].used_gpa == UINT64_C(0x300000004));
	teardown(&f);
}

/* An impossible queue isn't enabled: the device needs a reset, and recovers by it */
static void queue_invalid(void)
{
	struct fixture f;

	for (unsigned i = 0; i < 4; i++) {
		setup(&f);
		to_features_ok(&f);
		wr(&f, QUEUE_NUM, i == 0 ? 17 : i == 1 ? 65536 + 8 : 8);
		wr(&f, QUEUE_DESC, i == 2 ? DESC_GPA + 8 : DESC_GPA);
		wr(&f, QUEUE_DRIVER, AVAIL_GPA);
		wr(&f, QUEUE_DEVICE, USED_GPA);
		wr(&f, QUEUE_DEVICE + 4, i == 3 ? 1 : 0);
		wr(&f, QUEUE_READY, 1);
		CHECK_EQ(rd(&f, QUEUE_READY), 0);
		CHECK(rd(&f, STATUS) & S_NEEDS);
		wr(&f, STATUS, S_OK | S_ACK);
		CHECK_EQ(f.starts, 0);
		to_driver_ok(&f);
		CHECK_EQ(f.starts, 1);
		teardown(&f);
	}
}

/* ---- config space ---- */

/* 4.2.2: byte-wise, bounded; 2.5.3: readable before FEATURES_OK */
static void config_space(void)
{
	struct fixture f;
	uint8_t v[8];

	setup(&f);
	for (unsigned len = 1; len <= 8; len *= 2) {
		for (unsigned off = 0; off < 0x100; off++) {
			memset(v, 0xee, sizeof(v));
			virtio_mmio_bus_ops.read(&f.t, CONFIG + off, v, len);
			for (unsigned i = 0; i < len; i++)
				CHECK_EQ(v[i], off + i < 10 ? f.config[off + i] : 0);
		}
	}
	memset(v, 0, sizeof(v));
	for (unsigned len = 1; len <= 8; len *= 2) {
		for (unsigned off = 0; off < 0xf00; off++) {
			unsigned writes = f.writes;

			virtio_mmio_bus_ops.write(&f.t, CONFIG + off, v, len);
			CHECK_EQ(f.writes - writes, off + len <= 10);
		}
	}
	teardown(&f);
}

/* 2.5, 4.2.2.1: the generation changes with the contents */
static void config_generation(void)
{
	struct fixture f;
	uint32_t before;

	setup(&f);
	before = rd(&f, CONFIG_GENERATION);
	virtio_config_changed(&f.dev);
	CHECK(rd(&f, CONFIG_GENERATION) != before);
	CHECK_EQ(rd(&f, INTERRUPT_STATUS), 0); /* 2.1.2: nothing is sent before DRIVER_OK */
	CHECK_EQ(interrupts(&f), 0);
	to_driver_ok(&f);
	virtio_config_changed(&f.dev);
	CHECK_EQ(rd(&f, INTERRUPT_STATUS), 2);
	CHECK_EQ(interrupts(&f), 1);
	teardown(&f);
}

/* ---- interrupts ---- */

/* 4.2.2.1: a bit per event until it is acknowledged; reset clears all */
static void interrupt_status(void)
{
	struct fixture f;
	struct vdriver v = { .dev = &f.dev };
	volatile uint16_t *avail;
	struct vq_chain c;

	setup(&f);
	to_driver_ok(&f);
	avail = vdriver_ptr(&v, AVAIL_GPA, 64);
	memset((void *)(uintptr_t)avail, 0, 64);
	memset(vdriver_ptr(&v, DESC_GPA, 128), 0, 128);
	memset(vdriver_ptr(&v, USED_GPA, 128), 0, 128);
	avail[1] = 2; /* heads 0 and 0 (again, later) */
	REQUIRE(vq_pop(&f.dev.vq[0], &c) == 1);
	vq_push(&f.dev.vq[0], c.head, 0);
	virtio_notify(&f.dev, 0);
	CHECK_EQ(interrupts(&f), 1);
	virtio_notify(&f.dev, 0); /* nothing new */
	CHECK_EQ(interrupts(&f), 0);
	virtio_config_changed(&f.dev);
	CHECK_EQ(rd(&f, INTERRUPT_STATUS), 3);
	wr(&f, INTERRUPT_ACK, 0xfffffff0);
	CHECK_EQ(rd(&f, INTERRUPT_STATUS), 3);
	wr(&f, INTERRUPT_ACK, 1);
	CHECK_EQ(rd(&f, INTERRUPT_STATUS), 2);
	wr(&f, STATUS, 0);
	CHECK_EQ(rd(&f, INTERRUPT_STATUS), 0);
	teardown(&f);
}

/* InterruptStatus and InterruptACK don't wait for the device lock; the bus takes none either */
static void interrupt_lockfree(void)
{
	struct fixture f;

	setup(&f);
	CHECK(virtio_mmio_bus_ops.lockfree);
	pthread_mutex_lock(&lock); /* not recursive: taking it again would hang */
	atomic_store(&f.t.interrupt, 3);
	CHECK_EQ(rd(&f, INTERRUPT_STATUS), 3);
	wr(&f, INTERRUPT_ACK, 3);
	CHECK_EQ(rd(&f, INTERRUPT_STATUS), 0);
	CHECK_EQ(rd(&f, MAGIC), 0x74726976);
	pthread_mutex_unlock(&lock);
	teardown(&f);
}

/* 2.1.2: DEVICE_NEEDS_RESET comes with a configuration change notification if DRIVER_OK is set */
static void needs_reset(void)
{
	struct fixture f;

	setup(&f);
	to_driver_ok(&f);
	for (unsigned i = 0; i < 3; i++)
		virtio_needs_reset(&f.dev, "a test says so");
	CHECK_EQ(rd(&f, STATUS), S_ACK | S_DRIVER | S_FEAT | S_OK | S_NEEDS);
	CHECK_EQ(rd(&f, INTERRUPT_STATUS), 2);
	CHECK_EQ(interrupts(&f), 1);
	CHECK(f.dev.vq[0].broken && f.dev.vq[1].broken);
	virtio_kick(&f.dev, 0);
	CHECK_EQ(f.kicks[0], 0);
	to_driver_ok(&f);
	virtio_kick(&f.dev, 0);
	CHECK_EQ(f.kicks[0], 1);
	teardown(&f);
}

/* ---- kicks ---- */

static bool kicked(void *ctx)
{
	struct fixture *f = ctx;

	return f->kicks[1];
}

/* An ioeventfd reaches the queue it belongs to, again and again; 2.1.2: not before DRIVER_OK */
static void kick_by_eventfd(void)
{
	struct fixture f;
	int fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	uint64_t one = 1;

	setup(&f);
	REQUIRE(virtio_mmio_listen(&f.t, 1, fd) == 0);
	CHECK(write(fd, &one, 8) == 8);
	vdriver_run(loop, 5);
	CHECK_EQ(f.kicks[1], 0);
	to_driver_ok(&f);
	CHECK(vdriver_run_until(loop, kicked, &f, 1000)); /* the early one counts now */
	for (unsigned i = 0; i < 3; i++) {
		f.kicks[0] = f.kicks[1] = 0;
		CHECK(write(fd, &one, 8) == 8);
		CHECK(vdriver_run_until(loop, kicked, &f, 1000));
		CHECK_EQ(f.kicks[0], 0);
	}
	teardown(&f);
	close(fd);
}

/* A write that no ioeventfd took: a real queue's index kicks it, anything else is ignored */
static void kick_by_register(void)
{
	struct fixture f;
	uint16_t narrow = 1;

	setup(&f);
	wr(&f, QUEUE_NOTIFY, 1);
	to_features_ok(&f);
	queue(&f, 1);
	wr(&f, STATUS, S_OK);
	vdriver_run(loop, 5);
	f.kicks[0] = f.kicks[1] = 0;
	wr(&f, QUEUE_NOTIFY, 2);
	wr(&f, QUEUE_NOTIFY, UINT32_MAX);
	wr(&f, QUEUE_NOTIFY, 0); /* not enabled */
	virtio_mmio_bus_ops.write(&f.t, QUEUE_NOTIFY, &narrow, 2);
	vdriver_run(loop, 5);
	CHECK_EQ(f.kicks[0] + f.kicks[1], 0);
	wr(&f, QUEUE_NOTIFY, 1);
	CHECK(vdriver_run_until(loop, kicked, &f, 1000));
	CHECK_EQ(f.kicks[1], 1);
	wr(&f, QUEUE_NOTIFY, 1);
	wr(&f, STATUS, 0); /* 2.4.1: a reset forgets it */
	vdriver_run(loop, 5);
	CHECK_EQ(f.kicks[1], 1);
	teardown(&f);
}

int main(void)
{
	struct error e;

	REQUIRE(loop_create(&loop, 64, &e) == 0);
	REQUIRE(loop_start(loop, false, &e) == 0);
	REQUIRE(gmem_create(&mem, 32 * MIB, &e) == 0);
	identity();
	empty_slot();
	device_features();
	access_width();
	shared_memory();
	status_sequence();
	status_failed();
	features_refused();
	features_final();
	queue_num_max();
	queue_registers_when();
	queue_addresses_64bit();
	queue_invalid();
	config_space();
	config_generation();
	interrupt_status();
	interrupt_lockfree();
	needs_reset();
	kick_by_eventfd();
	kick_by_register();
	gmem_destroy(mem);
	loop_destroy(loop);
	TEST_END();
}

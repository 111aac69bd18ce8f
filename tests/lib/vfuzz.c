#include "tests/lib/vfuzz.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>

#define OPS_MAX 256

struct input {
	const uint8_t *p;
	size_t left;
};

struct vfuzz {
	struct virtio_dev *dev;
	struct virtio_mmio t;
	struct input in;
	uint16_t next_desc[VIRTIO_QUEUES_MAX];
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static void die(const char *why)
{
	fprintf(stderr, "vfuzz: %s\n", why);
	abort();
}

struct loop *vfuzz_loop(void)
{
	static struct loop *loop;
	struct error e;

	if (!loop && (loop_create(&loop, 256, &e) || loop_start(loop, true, &e)))
		die(e.msg);
	return loop;
}

struct gmem *vfuzz_mem(void)
{
	static struct gmem *mem;
	struct error e;

	if (!mem && gmem_create(&mem, 32 * MIB, &e))
		die(e.msg);
	return mem;
}

/* The next @n bytes, little-endian; zero where the input has ended. */
static uint64_t get(struct input *in, unsigned n)
{
	uint64_t v = 0;

	for (unsigned i = 0; i < n && in->left; i++, in->p++, in->left--)
		v |= (uint64_t)*in->p << (8 * i);
	return v;
}

static void reg_write(struct vfuzz *z, uint64_t off, uint32_t v)
{
	virtio_mmio_bus_ops.write(&z->t, off, &v, sizeof(v));
}

static void reg_access(struct vfuzz *z)
{
	unsigned how = (unsigned)get(&z->in, 1), len = 1u << (how >> 1 & 3);
	uint64_t off = get(&z->in, 2) % VM_VIRTIO_MMIO_LEN, v = get(&z->in, 8);

	if (off > VM_VIRTIO_MMIO_LEN - len)
		return; /* the bus never crosses the end of a range */
	if (how & 1)
		virtio_mmio_bus_ops.write(&z->t, off, &v, len);
	else
		virtio_mmio_bus_ops.read(&z->t, off, &v, len);
}

static void memory(struct vfuzz *z)
{
	uint64_t gpa = get(&z->in, 3);
	unsigned len = (unsigned)get(&z->in, 1);
	uint8_t *p = gmem_map(z->dev->mem, gpa, len);

	for (unsigned i = 0; p && i < len && z->in.left; i++)
		p[i] = (uint8_t)get(&z->in, 1);
}

static uint8_t *ring(struct vfuzz *z, unsigned q, unsigned off)
{
	uint8_t *p = gmem_map(
		z->dev->mem, VFUZZ_RINGS + (uint64_t)q * VFUZZ_STRIDE + off, VFUZZ_STRIDE - off);

	if (!p)
		die("the rings aren't RAM");
	return p;
}

static void publish(struct vfuzz *z, unsigned q, uint16_t head, uint16_t idx)
{
	uint16_t *avail = (uint16_t *)(void *)ring(z, q, VFUZZ_AVAIL);

	avail[2 + (uint16_t)(idx - 1) % VFUZZ_SIZE] = head;
	avail[1] = idx;
}

static void chain(struct vfuzz *z)
{
	unsigned q = (unsigned)get(&z->in, 1) % z->dev->class->nqueues;
	unsigned n = (unsigned)get(&z->in, 1) % VFUZZ_SIZE + 1;
	struct vdesc *desc = (struct vdesc *)(void *)ring(z, q, 0);
	uint16_t head = z->next_desc[q] % VFUZZ_SIZE, idx;

	for (unsigned i = 0; i < n; i++) {
		struct vdesc *d = &desc[z->next_desc[q]++ % VFUZZ_SIZE];
		unsigned flags;

		d->addr = get(&z->in, 3);
		d->len = (uint32_t)get(&z->in, 2);
		flags = (unsigned)get(&z->in, 1);
		d->flags = (uint16_t)(flags & 0x80 ? flags & 7 : (flags & 6) | (i + 1 < n));
		d->next = z->next_desc[q] % VFUZZ_SIZE;
	}
	memcpy(&idx, ring(z, q, VFUZZ_AVAIL) + 2, sizeof(idx));
	publish(z, q, head, (uint16_t)(idx + 1));
}

/* One turn: what is ready completes, nothing is waited for. */
struct turn {
	struct loop_task task;
	unsigned left;
};

static void turn_run(struct loop_task *t)
{
	struct turn *turn = container_of(t, struct turn, task);

	if (turn->left--)
		loop_defer(vfuzz_loop(), t);
	else
		loop_stop(vfuzz_loop());
}

static void turn(unsigned n)
{
	struct turn t = { .task.run = turn_run, .left = n };

	loop_defer(vfuzz_loop(), &t.task);
	if (loop_run(vfuzz_loop()))
		die("the loop broke");
}

static void setup(struct vfuzz *z)
{
	struct virtio_dev *d = z->dev;
	uint64_t features = (get(&z->in, 4) & d->offered) | UINT64_C(1) << VIRTIO_F_VERSION_1;
	uint32_t status = VIRTIO_STATUS_ACKNOWLEDGE | VIRTIO_STATUS_DRIVER;

	reg_write(z, 0x070, 0);
	reg_write(z, 0x070, status);
	for (unsigned i = 0; i < 2; i++) {
		reg_write(z, 0x024, i);
		reg_write(z, 0x020, (uint32_t)(features >> (32 * i)));
	}
	reg_write(z, 0x070, status |= VIRTIO_STATUS_FEATURES_OK);
	for (unsigned q = 0; q < d->class->nqueues; q++) {
		uint32_t base = VFUZZ_RINGS + q * VFUZZ_STRIDE;

		memset(ring(z, q, 0), 0, VFUZZ_STRIDE);
		z->next_desc[q] = 0;
		reg_write(z, 0x030, q);
		reg_write(z, 0x038, VFUZZ_SIZE);
		reg_write(z, 0x080, base);
		reg_write(z, 0x090, base + VFUZZ_AVAIL);
		reg_write(z, 0x0a0, base + VFUZZ_USED);
		reg_write(z, 0x044, 1);
	}
	reg_write(z, 0x070, status | VIRTIO_STATUS_DRIVER_OK);
}

static void step(struct vfuzz *z)
{
	switch (get(&z->in, 1) % 8) {
	case VFUZZ_WRITE: {
		uint64_t off = get(&z->in, 2) % (VM_VIRTIO_MMIO_LEN - 3);

		reg_write(z, off, (uint32_t)get(&z->in, 4));
		break;
	}
	case VFUZZ_ACCESS:
		reg_access(z);
		break;
	case VFUZZ_MEMORY:
		memory(z);
		break;
	case VFUZZ_CHAIN:
		chain(z);
		break;
	case VFUZZ_KICK:
		reg_write(
			z, VIRTIO_MMIO_QUEUE_NOTIFY, (uint32_t)get(&z->in, 1) % VIRTIO_QUEUES_MAX);
		break;
	case VFUZZ_TURN:
		turn(1);
		break;
	case VFUZZ_SETUP:
		setup(z);
		break;
	case VFUZZ_PUBLISH: {
		unsigned q = (unsigned)get(&z->in, 1) % z->dev->class->nqueues;
		uint16_t head = (uint16_t)get(&z->in, 2);

		publish(z, q, head, (uint16_t)get(&z->in, 2));
		break;
	}
	}
}

/* What must hold whatever the driver does. */
static void check(const struct virtio_dev *d)
{
	for (unsigned q = 0; q < d->class->nqueues; q++) {
		const struct vq *vq = &d->vq[q];
		unsigned n = 0;

		for (unsigned i = 0; i < ARRAY_SIZE(vq->inflight); i++)
			n += (unsigned)__builtin_popcountll(vq->inflight[i]);
		if (n != vq->ninflight || n > vq->size_max)
			die("chains in flight don't add up");
		if (!vq->ready && n)
			die("chains in flight on a queue that is off");
	}
}

static bool idle(void *d)
{
	return !virtio_busy(d);
}

void vfuzz_run(struct virtio_dev *dev, const uint8_t *data, size_t size)
{
	struct vfuzz z = { .dev = dev, .in = { data, size } };

	log_init("vfuzz", LOG_ERROR);
	virtio_mmio_init(&z.t, dev, &lock, -1);
	memset(gmem_map(dev->mem, 0, 256 * KIB), 0, 256 * KIB);
	for (unsigned i = 0; i < OPS_MAX && z.in.left; i++) {
		step(&z);
		check(dev);
	}
	turn(2);
	check(dev);
	virtio_stop(dev);
	if (!vdriver_run_until(vfuzz_loop(), idle, dev, 10000))
		die("operations are still in flight after 10 s");
	virtio_destroy(dev);
}

#include "vmm/virtio_mmio.h"

#include <assert.h>
#include <endian.h>
#include <errno.h>
#include <string.h>

/* Registers, VIRTIO 1.2, 4.2.2 */
enum {
	REG_MAGIC = 0x000,
	REG_VERSION = 0x004,
	REG_DEVICE_ID = 0x008,
	REG_VENDOR_ID = 0x00c,
	REG_DEVICE_FEATURES = 0x010,
	REG_DEVICE_FEATURES_SEL = 0x014,
	REG_DRIVER_FEATURES = 0x020,
	REG_DRIVER_FEATURES_SEL = 0x024,
	REG_QUEUE_SEL = 0x030,
	REG_QUEUE_NUM_MAX = 0x034,
	REG_QUEUE_NUM = 0x038,
	REG_QUEUE_READY = 0x044,
	REG_QUEUE_NOTIFY = VIRTIO_MMIO_QUEUE_NOTIFY,
	REG_INTERRUPT_STATUS = 0x060,
	REG_INTERRUPT_ACK = 0x064,
	REG_STATUS = 0x070,
	REG_QUEUE_DESC = 0x080, /* low half; high half 4 further; so the next two */
	REG_QUEUE_DRIVER = 0x090,
	REG_QUEUE_DEVICE = 0x0a0,
	REG_SHM_LEN = 0x0b0,
	REG_SHM_BASE = 0x0b8,
	REG_CONFIG_GENERATION = 0x0fc,
	REG_CONFIG = 0x100,
};

#define MAGIC     UINT32_C(0x74726976) /* "virt" */
#define VERSION   2
#define VENDOR_ID UINT32_C(0x52454b53) /* "SKER" */

#define INTERRUPT_USED   1
#define INTERRUPT_CONFIG 2

/* ---- interrupts ---- */

static void interrupt_raise(struct virtio_mmio *t, uint32_t bit)
{
	uint64_t one = 1;

	atomic_fetch_or(&t->interrupt, bit);
	/* A full counter (EAGAIN) means that the interrupt is on its way. */
	if (t->irq_fd >= 0 && write(t->irq_fd, &one, sizeof(one)) < 0 && errno != EAGAIN &&
		log_limited(&t->dev->log_limit))
		log_error("%s: interrupt: %s", t->dev->tag, strerror(errno));
}

static void notify_queue(struct virtio_dev *d, unsigned q unused_arg)
{
	interrupt_raise(d->transport_ctx, INTERRUPT_USED);
}

static void notify_config(struct virtio_dev *d)
{
	interrupt_raise(d->transport_ctx, INTERRUPT_CONFIG);
}

/* ---- registers ---- */

static uint32_t queue_num_max(const struct virtio_mmio *t)
{
	return t->queue_sel < t->dev->class->nqueues ? t->dev->vq[t->queue_sel].size_max : 0;
}

static uint32_t queue_ready(const struct virtio_mmio *t)
{
	return t->queue_sel < t->dev->class->nqueues && t->dev->vq[t->queue_sel].ready;
}

static uint32_t reg_read(struct virtio_mmio *t, uint64_t off)
{
	struct virtio_dev *d = t->dev;

	switch (off) {
	case REG_DEVICE_FEATURES:
		return t->device_features_sel > 1
			       ? 0
			       : (uint32_t)(d->offered >> (32 * t->device_features_sel));
	case REG_QUEUE_NUM_MAX:
		return queue_num_max(t);
	case REG_QUEUE_READY:
		return queue_ready(t);
	case REG_STATUS:
		return d->status;
	case REG_SHM_LEN:
	case REG_SHM_LEN + 4:
	case REG_SHM_BASE:
	case REG_SHM_BASE + 4:
		return UINT32_MAX; /* no shared memory region exists */
	case REG_CONFIG_GENERATION:
		return d->config_generation;
	default:
		return 0;
	}
}

static void set_half(uint64_t *p, bool high, uint32_t v)
{
	unsigned shift = high ? 32 : 0;

	*p = (*p & ~(UINT64_C(0xffffffff) << shift)) | (uint64_t)v << shift;
}

/* Size and addresses of the selected queue; writes at the wrong time vanish. */
static void queue_reg_write(struct virtio_mmio *t, uint64_t off, uint32_t v)
{
	struct vq *vq = virtio_queue_setup(t->dev, t->queue_sel);

	if (!vq || vq->ready)
		return;
	switch (off) {
	case REG_QUEUE_NUM:
		vq->size = (uint16_t)MIN(v, UINT16_MAX); /* vq_start() refuses what is too much */
		break;
	case REG_QUEUE_DESC:
	case REG_QUEUE_DESC + 4:
		set_half(&vq->desc_gpa, off & 4, v);
		break;
	case REG_QUEUE_DRIVER:
	case REG_QUEUE_DRIVER + 4:
		set_half(&vq->avail_gpa, off & 4, v);
		break;
	case REG_QUEUE_DEVICE:
	case REG_QUEUE_DEVICE + 4:
		set_half(&vq->used_gpa, off & 4, v);
		break;
	}
}

static void queue_ready_write(struct virtio_mmio *t, uint32_t v)
{
	struct vq *vq = virtio_queue_setup(t->dev, t->queue_sel);

	if (vq && v == 1)
		virtio_queue_enable(t->dev, t->queue_sel);
	else if (vq && v == 0 && vq->ready)
		vq_reset(vq); /* nothing was popped: the driver isn't DRIVER_OK */
}

static void status_write(struct virtio_mmio *t, uint32_t v)
{
	virtio_set_status(t->dev, v);
	if (v)
		return;
	t->device_features_sel = t->driver_features_sel = t->queue_sel = 0;
	atomic_store(&t->interrupt, 0); /* 4.2.2.1 */
}

static void reg_write(struct virtio_mmio *t, uint64_t off, uint32_t v)
{
	switch (off) {
	case REG_DEVICE_FEATURES_SEL:
		t->device_features_sel = v;
		break;
	case REG_DRIVER_FEATURES_SEL:
		t->driver_features_sel = v;
		break;
	case REG_DRIVER_FEATURES:
		virtio_set_features(t->dev, t->driver_features_sel, v);
		break;
	case REG_QUEUE_SEL:
		t->queue_sel = v;
		break;
	case REG_QUEUE_READY:
		queue_ready_write(t, v);
		break;
	case REG_QUEUE_NOTIFY:
		/* Normally an ioeventfd takes this before it gets here. */
		if (v < t->dev->class->nqueues)
			virtio_kick_later(t->dev, v);
		break;
	case REG_STATUS:
		status_write(t, v);
		break;
	default:
		queue_reg_write(t, off, v);
		break;
	}
}

/* ---- bus ---- */

static uint32_t id_read(const struct virtio_mmio *t, uint64_t off)
{
	switch (off) {
	case REG_MAGIC:
		return MAGIC;
	case REG_VERSION:
		return VERSION;
	case REG_DEVICE_ID:
		return t->dev ? t->dev->class->id : 0;
	default:
		return VENDOR_ID;
	}
}

static void mmio_read(void *ctx, uint64_t off, void *data, unsigned len)
{
	struct virtio_mmio *t = ctx;
	uint32_t v;

	memset(data, 0, len);
	if (off < REG_CONFIG && (len != 4 || off % 4))
		return; /* 4.2.2.2: control registers are accessed 32 bits wide, aligned */
	if (off <= REG_VENDOR_ID) {
		v = id_read(t, off);
	} else if (!t->dev) {
		return;
	} else if (off == REG_INTERRUPT_STATUS) {
		v = atomic_load(&t->interrupt);
	} else {
		pthread_mutex_lock(t->lock);
		if (off >= REG_CONFIG) {
			virtio_config_read(t->dev, off - REG_CONFIG, data, len);
			pthread_mutex_unlock(t->lock);
			return;
		}
		v = reg_read(t, off);
		pthread_mutex_unlock(t->lock);
	}
	v = htole32(v);
	memcpy(data, &v, sizeof(v));
}

static void mmio_write(void *ctx, uint64_t off, const void *data, unsigned len)
{
	struct virtio_mmio *t = ctx;
	uint32_t v = 0;

	if (!t->dev || (off < REG_CONFIG && (len != 4 || off % 4)))
		return;
	if (off < REG_CONFIG) {
		memcpy(&v, data, sizeof(v));
		v = le32toh(v);
	}
	if (off == REG_INTERRUPT_ACK) {
		atomic_fetch_and(&t->interrupt, ~v);
		return;
	}
	pthread_mutex_lock(t->lock);
	if (off >= REG_CONFIG)
		virtio_config_write(t->dev, off - REG_CONFIG, data, len);
	else
		reg_write(t, off, v);
	pthread_mutex_unlock(t->lock);
}

const struct bus_ops virtio_mmio_bus_ops = {
	.read = mmio_read,
	.write = mmio_write,
	.lockfree = true,
};

/* ---- kicks ---- */

static void kick_arm(struct virtio_mmio_kick *k)
{
	loop_read(k->t->dev->loop, &k->op, k->slot, &k->count, sizeof(k->count), LOOP_OFF_NONE);
}

static void kick_done(struct loop_op *op, int res)
{
	struct virtio_mmio_kick *k = container_of(op, struct virtio_mmio_kick, op);
	struct virtio_dev *d = k->t->dev;

	if (res != sizeof(k->count) && res != -EAGAIN && res != -EINTR) {
		if (res != -ECANCELED)
			log_error("%s: queue %u: reading its ioeventfd: %s; the queue is dead",
				d->tag, k->queue, strerror(-res));
		return;
	}
	virtio_kick(d, k->queue);
	kick_arm(k);
}

int virtio_mmio_listen(struct virtio_mmio *t, unsigned q, int event_fd)
{
	struct virtio_mmio_kick *k = &t->kick[q];
	int slot = loop_add_fd(t->dev->loop, event_fd);

	if (slot < 0)
		return slot;
	k->slot = slot;
	kick_arm(k);
	return 0;
}

/* ---- life ---- */

static void stop(struct virtio_dev *d)
{
	struct virtio_mmio *t = d->transport_ctx;

	for (unsigned q = 0; q < d->class->nqueues; q++)
		loop_cancel(d->loop, &t->kick[q].op);
}

static bool busy(const struct virtio_dev *d)
{
	const struct virtio_mmio *t = d->transport_ctx;

	for (unsigned q = 0; q < d->class->nqueues; q++) {
		if (t->kick[q].op.busy)
			return true;
	}
	return false;
}

static void detach(struct virtio_dev *d)
{
	virtio_mmio_finish(d->transport_ctx);
}

static void detach_free(struct virtio_dev *d)
{
	virtio_mmio_finish(d->transport_ctx);
	free(d->transport_ctx);
}

#define TRANSPORT_OPS(detach_fn)                                                                   \
	{                                                                                          \
		.notify_queue = notify_queue, .notify_config = notify_config, .stop = stop,        \
		.busy = busy, .detach = (detach_fn),                                               \
	}

static const struct virtio_transport_ops transport_ops = TRANSPORT_OPS(detach);
static const struct virtio_transport_ops transport_ops_allocated = TRANSPORT_OPS(detach_free);

void virtio_mmio_init(
	struct virtio_mmio *t, struct virtio_dev *dev, pthread_mutex_t *lock, int irq_fd)
{
	memset(t, 0, sizeof(*t));
	t->dev = dev;
	t->lock = lock;
	t->irq_fd = irq_fd;
	for (unsigned q = 0; q < VIRTIO_QUEUES_MAX; q++)
		t->kick[q] = (struct virtio_mmio_kick){
			.t = t,
			.op = { .done = kick_done },
			.queue = q,
			.slot = -1,
		};
	if (!dev)
		return;
	dev->transport = &transport_ops;
	dev->transport_ctx = t;
}

void virtio_mmio_finish(struct virtio_mmio *t)
{
	for (unsigned q = 0; t->dev && q < t->dev->class->nqueues; q++) {
		if (t->kick[q].slot >= 0)
			loop_remove_fd(t->dev->loop, t->kick[q].slot);
	}
	close_fd(&t->irq_fd);
}

static int attach_queues(struct vm *vm, struct virtio_mmio *t, uint64_t base, struct error *e)
{
	for (unsigned q = 0; q < t->dev->class->nqueues; q++) {
		autoclose int fd = vm_ioeventfd(vm, base + REG_QUEUE_NOTIFY, q, e);
		int r;

		if (fd < 0)
			return error_prefix(e, "%s: queue %u", t->dev->tag, q);
		r = virtio_mmio_listen(t, q, fd);
		if (r < 0)
			return error_set(e, -r, "%s: queue %u: no place in the event loop: %s",
				t->dev->tag, q, strerror(-r));
	}
	return 0;
}

int virtio_mmio_attach(struct vm *vm, unsigned slot, struct virtio_dev *dev, struct error *e)
{
	uint64_t base = VM_VIRTIO_MMIO_BASE + (uint64_t)slot * VM_VIRTIO_MMIO_LEN;
	struct virtio_mmio *t = malloc(sizeof(*t));
	struct bus *bus = vm_bus(vm);
	int irq_fd = -1, r;

	assert(slot < VM_VIRTIO_SLOTS);
	if (!t)
		return error_set(e, ENOMEM, "virtio slot %u: out of memory", slot);
	if (dev) {
		irq_fd = vm_irqfd(vm, VM_GSI_FIRST + slot, e);
		if (irq_fd < 0) {
			free(t);
			return error_prefix(e, "%s", dev->tag);
		}
	}
	virtio_mmio_init(t, dev, bus_lock(bus), irq_fd);
	if (dev)
		dev->transport = &transport_ops_allocated;
	r = dev ? attach_queues(vm, t, base, e) : 0;
	if (!r) {
		r = bus_add(bus, BUS_MMIO, base, VM_VIRTIO_MMIO_LEN, &virtio_mmio_bus_ops, t);
		if (r)
			error_set(e, -r, "virtio slot %u: the bus has no room for it", slot);
	}
	if (r && !dev)
		free(t); /* with a device: freed when the caller destroys it */
	return r;
}

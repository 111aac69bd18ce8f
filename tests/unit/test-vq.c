/*
 * The split virtqueue: each rule against hostile drivers, each clause of the specification that the
 * device owns.
 */
#include "tests/lib/test.h"
#include "tests/lib/vdriver.h"

#define SIZE 8 /* of the queue in most tests */

#define F_EVENT_IDX (UINT64_C(1) << VIRTIO_F_EVENT_IDX)
#define F_INDIRECT  (UINT64_C(1) << VIRTIO_F_INDIRECT_DESC)
#define F_V1        (UINT64_C(1) << VIRTIO_F_VERSION_1)

static struct loop *loop;
static struct gmem *mem;

static void probe_kick(struct virtio_dev *d, unsigned q)
{
	(void)d;
	(void)q;
}

static void probe_destroy(struct virtio_dev *d)
{
	(void)d;
}

static const struct virtio_class probe_class = {
	.name = "probe",
	.id = 42,
	.nqueues = 1,
	.queue_size = VQ_SIZE_MAX,
	.kick = probe_kick,
	.destroy = probe_destroy,
};

struct fixture {
	struct virtio_dev dev;
	struct vdriver v;
	struct vq *vq;
	struct vdqueue *q;
	struct vq_chain c;
	uint64_t buf; /* 4 KiB of guest memory */
};

static void fixture_init(struct fixture *f)
{
	memset(f, 0, sizeof(*f));
	f->dev.class = &probe_class;
	f->dev.tag = "probe";
	f->dev.loop = loop;
	f->dev.mem = mem;
	virtio_init(&f->dev);
	vdriver_init(&f->v, &f->dev);
	f->vq = &f->dev.vq[0];
	f->q = &f->v.q[0];
}

static void setup_size(struct fixture *f, uint64_t features, uint16_t size)
{
	fixture_init(f);
	REQUIRE(vdriver_negotiate(&f->v, features | F_V1) == 0);
	REQUIRE(vdriver_setup_queue(&f->v, 0, size) == 0);
	f->buf = vdriver_alloc(&f->v, 4096, 4096);
}

static void setup(struct fixture *f, uint64_t features)
{
	setup_size(f, features, SIZE);
}

static void set_desc(
	struct fixture *f, unsigned i, uint64_t addr, uint32_t len, unsigned flags, unsigned next)
{
	volatile struct vdesc *d = &f->q->desc[i];

	d->addr = addr;
	d->len = len;
	d->flags = (uint16_t)flags;
	d->next = (uint16_t)next;
}

/* Whatever was wrong: -EPROTO now and ever after, until a reset. */
static void check_refused(struct fixture *f)
{
	CHECK_EQ(vq_pop(f->vq, &f->c), -EPROTO);
	CHECK(f->vq->broken);
	CHECK(!vq_pending(f->vq));
	CHECK_EQ(vq_pop(f->vq, &f->c), -EPROTO);
	vq_reset(f->vq);
	CHECK_EQ(vq_pop(f->vq, &f->c), 0);
}

/* ---- what is right ---- */

/* 2.7.5, 2.7.4.1: readable and writable parts come out as host memory, whatever the arrangement */
static void chain_parts(void)
{
	struct fixture f;
	struct vdbuf b[] = { { 0, 3 }, { 0, 5 }, { 0, 7 }, { 0, 1 } };
	uint8_t data[8];

	setup(&f, 0);
	for (unsigned i = 0; i < 4; i++)
		b[i].gpa = f.buf + 100 * i;
	memcpy(vdriver_ptr(&f.v, f.buf, 3), "abc", 3);
	memcpy(vdriver_ptr(&f.v, f.buf + 100, 5), "defgh", 5);
	uint16_t head = vdriver_add(&f.v, 0, b, 2, 2);
	CHECK(vq_pending(f.vq));
	CHECK_EQ(vq_pop(f.vq, &f.c), 1);
	CHECK_EQ(f.c.head, head);
	CHECK_EQ(f.c.nout, 2);
	CHECK_EQ(f.c.nin, 2);
	CHECK_EQ(f.c.out_len, 8);
	CHECK_EQ(f.c.in_len, 8);
	CHECK_EQ(vq_chain_read(&f.c, 0, data, 8), 8);
	CHECK(!memcmp(data, "abcdefgh", 8));
	CHECK_EQ(vq_chain_write(&f.c, 6, "xyz", 3), 2); /* only two bytes are left from there */
	CHECK(!memcmp(vdriver_ptr(&f.v, f.buf + 206, 1), "x", 1));
	CHECK(!memcmp(vdriver_ptr(&f.v, f.buf + 300, 1), "y", 1));
	CHECK(!vq_pending(f.vq));
	CHECK_EQ(vq_pop(f.vq, &f.c), 0);
}

/* 2.7.8.2: the used element carries head and length, then idx moves */
static void used_ring(void)
{
	struct fixture f;
	uint16_t head;
	uint32_t len;

	setup(&f, 0);
	struct vdbuf b = { f.buf, 64 };
	for (unsigned i = 0; i < 3 * SIZE; i++) { /* around the ring */
		uint16_t h = vdriver_add(&f.v, 0, &b, 0, 1);
		REQUIRE(vq_pop(f.vq, &f.c) == 1);
		CHECK_EQ(f.vq->ninflight, 1);
		CHECK(!vdriver_used(&f.v, 0, NULL, NULL));
		vq_push(f.vq, f.c.head, i);
		CHECK_EQ(f.vq->ninflight, 0);
		REQUIRE(vdriver_used(&f.v, 0, &head, &len));
		CHECK_EQ(head, h);
		CHECK_EQ(len, i);
	}
}

/* 2.7.13: idx is free-running and wraps at 65536 */
static void index_wraps(void)
{
	struct fixture f;

	setup(&f, F_EVENT_IDX);
	struct vdbuf b = { f.buf, 64 };
	for (unsigned i = 0; i < 65536 + 100; i++) {
		vdriver_add(&f.v, 0, &b, 0, 1);
		REQUIRE(vq_pop(f.vq, &f.c) == 1);
		vq_push(f.vq, f.c.head, 0);
		REQUIRE(vdriver_used(&f.v, 0, NULL, NULL));
	}
	CHECK_EQ(f.q->avail[1], 100);
	CHECK_EQ(f.q->used[1], 100);
}

/* 2.7.9: without IN_ORDER the device may use buffers in any order */
static void any_order(void)
{
	struct fixture f;
	uint16_t head[SIZE], used;

	setup(&f, 0);
	struct vdbuf b = { f.buf, 64 };
	for (unsigned i = 0; i < SIZE; i++) {
		vdriver_add(&f.v, 0, &b, 1, 0);
		REQUIRE(vq_pop(f.vq, &f.c) == 1);
		head[i] = f.c.head;
	}
	CHECK_EQ(f.vq->ninflight, SIZE);
	for (unsigned i = SIZE; i--;) {
		vq_push(f.vq, head[i], 0);
		REQUIRE(vdriver_used(&f.v, 0, &used, NULL));
		CHECK_EQ(used, head[i]);
	}
}

/* 2.7.5: the number of descriptors in the table is the maximum chain length */
static void longest_chain(void)
{
	struct fixture f;
	struct vdbuf b[VQ_SIZE_MAX];

	setup_size(&f, F_INDIRECT, VQ_SIZE_MAX);
	for (unsigned i = 0; i < VQ_SIZE_MAX; i++)
		b[i] = (struct vdbuf){ f.buf + i, 1 };
	vdriver_add(&f.v, 0, b, 1, VQ_SIZE_MAX - 1);
	REQUIRE(vq_pop(f.vq, &f.c) == 1);
	CHECK_EQ(f.c.nout + f.c.nin, VQ_SIZE_MAX);
	CHECK(f.c.iov[VQ_SIZE_MAX - 1].iov_base == vdriver_ptr(&f.v, f.buf + VQ_SIZE_MAX - 1, 1));
	vq_push(f.vq, f.c.head, 0);
	REQUIRE(vdriver_used(&f.v, 0, NULL, NULL));
	/* the descriptor that refers to a table isn't part of the chain */
	vdriver_add_indirect(&f.v, 0, b, 2, VQ_SIZE_MAX - 2);
	REQUIRE(vq_pop(f.vq, &f.c) == 1);
	CHECK_EQ(f.c.nout + f.c.nin, VQ_SIZE_MAX);
}

/*
 * A zero-length descriptor counts against the limit, needs no address, and isn't shown to the
 * device
 */
static void zero_length_descriptors(void)
{
	struct fixture f;

	setup(&f, 0);
	set_desc(&f, 0, f.buf, 4, VDESC_NEXT, 1);
	set_desc(&f, 1, UINT64_MAX, 0, VDESC_NEXT, 2);
	set_desc(&f, 2, f.buf + 8, 4, VDESC_WRITE, 0);
	vdriver_publish(&f.v, 0, 0);
	REQUIRE(vq_pop(f.vq, &f.c) == 1);
	CHECK_EQ(f.c.nout, 1);
	CHECK_EQ(f.c.nin, 1);
	set_desc(&f, 3, 0, 0, VDESC_WRITE, 0);
	vdriver_publish(&f.v, 0, 3);
	REQUIRE(vq_pop(f.vq, &f.c) == 1);
	CHECK_EQ(f.c.nout + f.c.nin, 0);
	CHECK_EQ(f.c.out_len + f.c.in_len, 0);
	for (unsigned i = 4; i < 8; i++)
		set_desc(&f, i, 0, 0, VDESC_NEXT, i == 7 ? 4 : i + 1); /* a loop of nothing */
	vdriver_publish(&f.v, 0, 4);
	check_refused(&f);
}

static void unpop(void)
{
	struct fixture f;

	setup(&f, 0);
	struct vdbuf b = { f.buf, 64 };
	uint16_t head = vdriver_add(&f.v, 0, &b, 1, 0);
	REQUIRE(vq_pop(f.vq, &f.c) == 1);
	vq_unpop(f.vq, &f.c);
	CHECK_EQ(f.vq->ninflight, 0);
	CHECK(vq_pending(f.vq));
	REQUIRE(vq_pop(f.vq, &f.c) == 1);
	CHECK_EQ(f.c.head, head);
	vq_push(f.vq, f.c.head, 0);
	CHECK(vdriver_used(&f.v, 0, NULL, NULL));
}

/* ---- hostile rings ---- */

/* 2.7.13.3: at most Queue Size entries can be new; more is not believed */
static void avail_index_jumps(void)
{
	struct fixture f;

	setup(&f, 0);
	f.q->avail[1] = SIZE + 1;
	CHECK(vq_pending(f.vq));
	check_refused(&f);
	setup(&f, 0);
	f.q->avail[1] = UINT16_MAX; /* backwards */
	check_refused(&f);
}

static void head_out_of_range(void)
{
	struct fixture f;

	setup(&f, 0);
	vdriver_publish(&f.v, 0, SIZE);
	check_refused(&f);
	setup(&f, 0);
	vdriver_publish(&f.v, 0, UINT16_MAX);
	check_refused(&f);
}

/* 2.1.2: after an error only a reset helps, not a ring that looks right again */
static void broken_until_reset(void)
{
	struct fixture f;

	setup(&f, 0);
	vdriver_publish(&f.v, 0, SIZE);
	CHECK_EQ(vq_pop(f.vq, &f.c), -EPROTO);
	set_desc(&f, 0, f.buf, 4, 0, 0);
	f.q->avail[2] = 0;
	CHECK_EQ(vq_pop(f.vq, &f.c), -EPROTO);
	CHECK(!vq_pending(f.vq));
}

static void duplicate_head(void)
{
	struct fixture f;

	setup(&f, 0);
	struct vdbuf b = { f.buf, 64 };
	uint16_t head = vdriver_add(&f.v, 0, &b, 1, 0);
	REQUIRE(vq_pop(f.vq, &f.c) == 1);
	vdriver_publish(&f.v, 0, head); /* while it is in flight */
	check_refused(&f);

	setup(&f, 0);
	head = vdriver_add(&f.v, 0, &b, 1, 0);
	REQUIRE(vq_pop(f.vq, &f.c) == 1);
	vq_push(f.vq, head, 0);
	vdriver_publish(&f.v, 0, head); /* afterwards it is fine */
	CHECK_EQ(vq_pop(f.vq, &f.c), 1);
}

static void next_out_of_range(void)
{
	struct fixture f;

	setup(&f, 0);
	set_desc(&f, 0, f.buf, 4, VDESC_NEXT, SIZE);
	vdriver_publish(&f.v, 0, 0);
	check_refused(&f);
}

/* 2.7.5.2: loops are forbidden */
static void loop_in_chain(void)
{
	struct fixture f;

	setup(&f, 0);
	set_desc(&f, 0, f.buf, 4, VDESC_NEXT, 0);
	vdriver_publish(&f.v, 0, 0);
	check_refused(&f);
	setup(&f, 0);
	for (unsigned i = 0; i < SIZE; i++)
		set_desc(&f, i, f.buf, 4, VDESC_NEXT, (i + 1) % SIZE);
	vdriver_publish(&f.v, 0, 3);
	check_refused(&f);
}

/* 2.7.4.2: writable elements come after readable ones */
static void readable_after_writable(void)
{
	struct fixture f;

	setup(&f, 0);
	set_desc(&f, 0, f.buf, 4, VDESC_WRITE | VDESC_NEXT, 1);
	set_desc(&f, 1, f.buf, 4, 0, 0);
	vdriver_publish(&f.v, 0, 0);
	check_refused(&f);
}

/* 2.7.5.2: a chain has at most 2^32 bytes */
static void chain_too_many_bytes(void)
{
	struct fixture f;
	struct gmem *big;

	REQUIRE(gmem_create(&big, 3 * GIB, NULL) == 0);
	setup(&f, 0);
	f.vq->mem = big; /* rings stay where they are mapped */
	set_desc(&f, 0, 0, 1u << 31, VDESC_NEXT, 1);
	set_desc(&f, 1, 0, 1u << 31, 0, 0);
	vdriver_publish(&f.v, 0, 0);
	REQUIRE(vq_pop(f.vq, &f.c) == 1);
	CHECK(f.c.out_len == (size_t)1 << 32);
	set_desc(&f, 2, 0, 1u << 31, VDESC_NEXT, 3);
	set_desc(&f, 3, 0, 1u << 31, VDESC_NEXT, 4);
	set_desc(&f, 4, 0, 1, 0, 0);
	vdriver_publish(&f.v, 0, 2);
	CHECK_EQ(vq_pop(f.vq, &f.c), -EPROTO);
	gmem_destroy(big);
}

static void buffer_not_ram(void)
{
	static const struct vdbuf bad[] = {
		{ UINT64_MAX, 1 },
		{ UINT64_MAX - 3, 8 }, /* wraps */
		{ 32 * MIB, 1 },       /* just behind */
		{ 32 * MIB - 4, 5 },   /* half in */
		{ 0, UINT32_MAX },     /* longer than RAM */
		{ 1, 32 * MIB },       /* as long as RAM, shifted */
		{ GMEM_HOLE, 4096 },   /* device space */
		{ UINT64_C(1) << 63, 16 },
	};

	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
		for (unsigned write = 0; write < 2; write++) {
			struct fixture f;

			setup(&f, 0);
			set_desc(&f, 0, bad[i].gpa, bad[i].len, write ? VDESC_WRITE : 0, 0);
			vdriver_publish(&f.v, 0, 0);
			check_refused(&f);
		}
	}
}

static void whole_ram_is_fine(void)
{
	struct fixture f;

	setup(&f, 0);
	set_desc(&f, 0, 0, 32 * MIB, 0, 0);
	vdriver_publish(&f.v, 0, 0);
	REQUIRE(vq_pop(f.vq, &f.c) == 1);
	CHECK_EQ(f.c.out_len, 32 * MIB);
}

/* ---- indirect tables ---- */

/* 2.7.5.3.2: normal descriptors followed by an indirect one; its write flag is ignored */
static void indirect_after_normal(void)
{
	struct fixture f;

	setup(&f, F_INDIRECT);
	uint64_t table = vdriver_alloc(&f.v, 32, 16);
	volatile struct vdesc *t = vdriver_ptr(&f.v, table, 32);
	t[0] = (struct vdesc){ f.buf + 10, 10, VDESC_NEXT, 1 };
	t[1] = (struct vdesc){ f.buf + 20, 10, VDESC_WRITE, 0 };
	set_desc(&f, 5, f.buf, 10, VDESC_NEXT, 2);
	set_desc(&f, 2, table, 32, VDESC_INDIRECT | VDESC_WRITE, 0);
	vdriver_publish(&f.v, 0, 5);
	REQUIRE(vq_pop(f.vq, &f.c) == 1);
	CHECK_EQ(f.c.nout, 2);
	CHECK_EQ(f.c.nin, 1);
	CHECK(vq_in(&f.c)[0].iov_base == vdriver_ptr(&f.v, f.buf + 20, 10));
}

/* 2.7.5.3: a table may lie anywhere, also unaligned */
static void indirect_unaligned(void)
{
	struct fixture f;
	struct vdesc d;

	setup(&f, F_INDIRECT);
	d = (struct vdesc){ f.buf, 10, 0, 0 };
	memcpy(vdriver_ptr(&f.v, f.buf + 1001, 16), &d, 16);
	set_desc(&f, 0, f.buf + 1001, 16, VDESC_INDIRECT, 0);
	vdriver_publish(&f.v, 0, 0);
	CHECK_EQ(vq_pop(f.vq, &f.c), 1);
	CHECK_EQ(f.c.out_len, 10);
}

/* 2.7.5.3.1: not unless negotiated */
static void indirect_not_negotiated(void)
{
	struct fixture f;

	setup(&f, 0);
	struct vdbuf b = { f.buf, 10 };
	vdriver_add_indirect(&f.v, 0, &b, 1, 0);
	check_refused(&f);
}

/* 2.7.5.3.1: one table per descriptor */
static void indirect_in_indirect(void)
{
	struct fixture f;

	for (unsigned i = 0; i < 2; i++) { /* as first and as second entry */
		setup(&f, F_INDIRECT);
		uint64_t table = vdriver_alloc(&f.v, 32, 16);
		volatile struct vdesc *t = vdriver_ptr(&f.v, table, 32);
		t[0] = (struct vdesc){ f.buf, 10, VDESC_NEXT, 1 };
		t[i] = (struct vdesc){ table, 16, VDESC_INDIRECT, 0 };
		set_desc(&f, 0, table, 32, VDESC_INDIRECT, 0);
		vdriver_publish(&f.v, 0, 0);
		check_refused(&f);
	}
}

/* The ring's own table named as an indirect one */
static void indirect_to_ring(void)
{
	struct fixture f;

	setup(&f, F_INDIRECT);
	set_desc(&f, 0, f.q->desc_gpa, 16 * SIZE, VDESC_INDIRECT, 0);
	vdriver_publish(&f.v, 0, 0);
	check_refused(&f);
}

/* 2.7.5.3.1: INDIRECT and NEXT exclude each other */
static void indirect_and_next(void)
{
	struct fixture f;

	setup(&f, F_INDIRECT);
	uint64_t table = vdriver_alloc(&f.v, 16, 16);
	volatile struct vdesc *t = vdriver_ptr(&f.v, table, 16);
	t[0] = (struct vdesc){ f.buf, 10, 0, 0 };
	set_desc(&f, 0, table, 16, VDESC_INDIRECT | VDESC_NEXT, 1);
	set_desc(&f, 1, f.buf, 10, 0, 0);
	vdriver_publish(&f.v, 0, 0);
	check_refused(&f);
}

/* 2.7.5.3: the table is an array of 16-byte entries */
static void indirect_bad_length(void)
{
	static const uint32_t bad[] = { 0, 1, 15, 17, 24, 16 * (SIZE + 1), UINT32_MAX,
		UINT32_MAX & ~15u };
	struct fixture f;

	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
		setup(&f, F_INDIRECT);
		set_desc(&f, 0, f.buf, bad[i], VDESC_INDIRECT, 0);
		vdriver_publish(&f.v, 0, 0);
		check_refused(&f);
	}
}

/* 2.7.5.3.1: a chain is not longer than the queue, so neither is a table */
static void indirect_table_too_long(void)
{
	struct fixture f;
	struct vdbuf b[SIZE + 1];

	setup(&f, F_INDIRECT);
	for (unsigned i = 0; i < SIZE + 1; i++)
		b[i] = (struct vdbuf){ f.buf, 1 };
	vdriver_add_indirect(&f.v, 0, b, SIZE + 1, 0);
	check_refused(&f);
}

/* Nor is what precedes a table and what stands in it together */
static void indirect_chain_too_long(void)
{
	struct fixture f;
	unsigned normal;

	for (normal = 1; normal <= 2; normal++) {
		setup(&f, F_INDIRECT);
		uint64_t table = vdriver_alloc(&f.v, 16 * SIZE, 16);
		volatile struct vdesc *t = vdriver_ptr(&f.v, table, 16 * SIZE);
		for (unsigned i = 0; i < SIZE - 1; i++)
			t[i] = (struct vdesc){ f.buf, 1, i < SIZE - 2 ? VDESC_NEXT : 0,
				(uint16_t)(i + 1) };
		for (unsigned i = 0; i < normal; i++)
			set_desc(&f, i, f.buf, 1, VDESC_NEXT, i + 1);
		set_desc(&f, normal, table, 16 * SIZE, VDESC_INDIRECT, 0);
		vdriver_publish(&f.v, 0, 0);
		if (normal == 1) /* 1 + 7 == 8 */
			CHECK_EQ(vq_pop(f.vq, &f.c), 1);
		else
			check_refused(&f);
	}
}

static void indirect_next_out_of_table(void)
{
	struct fixture f;

	setup(&f, F_INDIRECT);
	uint64_t table = vdriver_alloc(&f.v, 32, 16);
	volatile struct vdesc *t = vdriver_ptr(&f.v, table, 32);
	t[0] = (struct vdesc){ f.buf, 10, VDESC_NEXT, 1 };
	t[1] = (struct vdesc){ f.buf, 10, 0, 0 };
	set_desc(&f, 0, table, 16, VDESC_INDIRECT, 0); /* only one entry long */
	vdriver_publish(&f.v, 0, 0);
	check_refused(&f);
}

static void indirect_not_ram(void)
{
	static const uint64_t bad[] = { 32 * MIB - 16, 32 * MIB, UINT64_MAX - 15, UINT64_MAX - 31,
		GMEM_HOLE };
	struct fixture f;

	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
		setup(&f, F_INDIRECT);
		set_desc(&f, 0, bad[i], 32, VDESC_INDIRECT, 0);
		vdriver_publish(&f.v, 0, 0);
		check_refused(&f);
	}
}

/* ---- queue addresses ---- */

static int start_with(uint16_t size, uint64_t desc, uint64_t avail, uint64_t used)
{
	struct vq vq;
	int r;

	vq_init(&vq, mem, VQ_SIZE_MAX);
	vq.size = size;
	vq.desc_gpa = desc;
	vq.avail_gpa = avail;
	vq.used_gpa = used;
	r = vq_start(&vq, false, false);
	CHECK_EQ(vq.ready, r == 0);
	return r;
}

/* 2.7: alignment 16, 2, 4; a power of two <= what was offered; all of it RAM */
static void queue_addresses(void)
{
	static const uint16_t bad_size[] = { 0, 3, 255, 257, 512, 32768, 65535 };
	const uint64_t d = 0x10000, a = 0x20000, u = 0x30000, end = 32 * MIB;

	CHECK_EQ(start_with(256, d, a, u), 0);
	CHECK_EQ(start_with(1, d, a, u), 0);
	for (unsigned i = 0; i < ARRAY_SIZE(bad_size); i++)
		CHECK_EQ(start_with(bad_size[i], d, a, u), -EINVAL);
	for (unsigned off = 1; off < 16; off++) {
		CHECK_EQ(start_with(8, d + off, a, u), -EINVAL);
		CHECK_EQ(start_with(8, d, a + off, u), off % 2 ? -EINVAL : 0);
		CHECK_EQ(start_with(8, d, a, u + off), off % 4 ? -EINVAL : 0);
	}
	/* the last that fits, and one step further */
	CHECK_EQ(start_with(8, end - 128, a, u), 0);
	CHECK_EQ(start_with(8, end - 112, a, u), -EINVAL);
	CHECK_EQ(start_with(8, d, end - 22, u), 0);
	CHECK_EQ(start_with(8, d, end - 20, u), -EINVAL);
	CHECK_EQ(start_with(8, d, a, end - 72), 0); /* 70 bytes, aligned to 4 */
	CHECK_EQ(start_with(8, d, a, end - 68), -EINVAL);
	for (unsigned i = 0; i < 3; i++) {
		static const uint64_t bad[] = { GMEM_HOLE, UINT64_MAX & ~UINT64_C(15),
			UINT64_C(1) << 40 };

		CHECK_EQ(start_with(8, bad[i], a, u), -EINVAL);
		CHECK_EQ(start_with(8, d, bad[i], u), -EINVAL);
		CHECK_EQ(start_with(8, d, a, bad[i]), -EINVAL);
	}
}

static void not_ready_pops_nothing(void)
{
	struct fixture f;

	fixture_init(&f);
	CHECK_EQ(vq_pop(f.vq, &f.c), 0);
	CHECK(!vq_pending(f.vq));
	CHECK(!vq_need_notify(f.vq));
}

/* ---- notifications ---- */

/* 2.7.7.2: without EVENT_IDX, flags decides and used_event is ignored */
static void notify_by_flags(void)
{
	struct fixture f;

	setup(&f, 0);
	struct vdbuf b = { f.buf, 64 };
	f.q->avail[2 + SIZE] = 0x1234;
	CHECK(!vq_need_notify(f.vq)); /* nothing was used */
	for (unsigned i = 0; i < 2; i++) {
		f.q->avail[0] = (uint16_t)i;
		vdriver_add(&f.v, 0, &b, 1, 0);
		REQUIRE(vq_pop(f.vq, &f.c) == 1);
		vq_push(f.vq, f.c.head, 0);
		CHECK_EQ(vq_need_notify(f.vq), !i);
		CHECK(!vq_need_notify(f.vq)); /* said once */
	}
}

/* 2.7.7.2: with EVENT_IDX, when the entry with index used_event was written; flags is ignored */
static void notify_by_event(void)
{
	struct fixture f;

	setup(&f, F_EVENT_IDX);
	struct vdbuf b = { f.buf, 64 };
	f.q->avail[0] = 1;
	for (unsigned i = 0; i < 3 * SIZE; i++) {
		f.q->avail[2 + SIZE] = 5;
		vdriver_add(&f.v, 0, &b, 1, 0);
		REQUIRE(vq_pop(f.vq, &f.c) == 1);
		vq_push(f.vq, f.c.head, 0);
		CHECK_EQ(vq_need_notify(f.vq), i == 5);
		REQUIRE(vdriver_used(&f.v, 0, NULL, NULL));
	}
}

/* The event lies within a batch of used buffers, also around 65536 */
static void notify_batch(void)
{
	struct fixture f;
	uint16_t head[4];

	setup(&f, F_EVENT_IDX);
	struct vdbuf b = { f.buf, 64 };
	for (unsigned i = 0; i < 65536 / 4 + 10; i++) {
		uint16_t used = f.vq->used_idx;

		f.q->avail[2 + SIZE] = i % 2 ? (uint16_t)(used + 2) : (uint16_t)(used + 4);
		for (unsigned k = 0; k < 4; k++) {
			vdriver_add(&f.v, 0, &b, 1, 0);
			REQUIRE(vq_pop(f.vq, &f.c) == 1);
			head[k] = f.c.head;
		}
		for (unsigned k = 0; k < 4; k++)
			vq_push(f.vq, head[k], 0);
		CHECK_EQ(vq_need_notify(f.vq), i % 2);
		for (unsigned k = 0; k < 4; k++)
			REQUIRE(vdriver_used(&f.v, 0, NULL, NULL));
	}
}

/* 2.7.10.2: kicks are unwanted while the device is at work, wanted once it saw the ring empty */
static void kicks(uint64_t features)
{
	struct fixture f;
	uint16_t old;

	setup(&f, features);
	struct vdbuf b = { f.buf, 64 };
	old = f.q->avail[1];
	vdriver_add(&f.v, 0, &b, 1, 0);
	CHECK(vdriver_wants_kick(&f.v, 0, old)); /* the first */
	REQUIRE(vq_pop(f.vq, &f.c) == 1);
	for (unsigned i = 0; i < 2; i++) {
		old = f.q->avail[1];
		vdriver_add(&f.v, 0, &b, 1, 0);
		CHECK(!vdriver_wants_kick(&f.v, 0, old)); /* popping hasn't ended */
	}
	REQUIRE(vq_pop(f.vq, &f.c) == 1);
	REQUIRE(vq_pop(f.vq, &f.c) == 1);
	CHECK_EQ(vq_pop(f.vq, &f.c), 0);
	old = f.q->avail[1];
	vdriver_add(&f.v, 0, &b, 1, 0);
	CHECK(vdriver_wants_kick(&f.v, 0, old));
	if (features & F_EVENT_IDX)
		CHECK_EQ(f.q->used[0], 0); /* 2.7.10.2: flags MUST be 0 */
	else
		CHECK(f.q->used[0] <= 1);
}

/* ---- iovecs ---- */

static void iovecs(void)
{
	char a[3] = "abc", b[2] = "de", c[4] = "fghi", out[16];
	struct iovec iov[] = { { a, 3 }, { b, 2 }, { c, 4 } }, s[3];

	for (size_t off = 0; off < 12; off++) {
		for (size_t len = 0; len < 12; len++) {
			size_t want = off >= 9 ? 0 : MIN(len, 9 - off), got = 0;
			unsigned n = iov_slice(s, iov, 3, off, len);

			CHECK_EQ(iov_read(iov, 3, off, out, len), want);
			CHECK(!memcmp(out, &"abcdefghi"[MIN(off, 9)], want));
			for (unsigned i = 0; i < n; i++) {
				CHECK(s[i].iov_len);
				got += s[i].iov_len;
			}
			CHECK_EQ(got, want);
			CHECK_EQ(iov_read(s, n, 0, out, 16), want);
			CHECK(!memcmp(out, &"abcdefghi"[MIN(off, 9)], want));
		}
	}
	CHECK_EQ(iov_write(iov, 3, 2, "XYZ", 3), 3);
	CHECK(!memcmp(a, "abX", 3) && !memcmp(b, "YZ", 2));
	CHECK_EQ(iov_zero(iov, 3, 4, 100), 5);
	CHECK(b[0] == 'Y' && !b[1] && !c[0] && !c[3]);
	CHECK_EQ(iov_slice(iov, iov, 3, 4, 2), 2); /* in place */
	CHECK(iov[0].iov_base == b + 1 && iov[0].iov_len == 1);
	CHECK(iov[1].iov_base == c && iov[1].iov_len == 1);
}

int main(void)
{
	struct error e;

	REQUIRE(loop_create(&loop, 64, &e) == 0);
	REQUIRE(gmem_create(&mem, 32 * MIB, &e) == 0);
	chain_parts();
	used_ring();
	index_wraps();
	any_order();
	longest_chain();
	zero_length_descriptors();
	unpop();
	avail_index_jumps();
	head_out_of_range();
	broken_until_reset();
	duplicate_head();
	next_out_of_range();
	loop_in_chain();
	readable_after_writable();
	chain_too_many_bytes();
	buffer_not_ram();
	whole_ram_is_fine();
	indirect_after_normal();
	indirect_unaligned();
	indirect_not_negotiated();
	indirect_in_indirect();
	indirect_to_ring();
	indirect_and_next();
	indirect_bad_length();
	indirect_table_too_long();
	indirect_chain_too_long();
	indirect_next_out_of_table();
	indirect_not_ram();
	queue_addresses();
	not_ready_pops_nothing();
	notify_by_flags();
	notify_by_event();
	notify_batch();
	kicks(0);
	kicks(F_EVENT_IDX);
	iovecs();
	gmem_destroy(mem);
	loop_destroy(loop);
	TEST_END();
}

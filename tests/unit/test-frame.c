/* base/frame: the framing of base/guest_proto.h, whole, in random cuts and one byte at a time. */
#include "base/frame.h"
#include "tests/lib/test.h"

static uint8_t big[GP_FRAME_MAX + 1];

static void put_header(struct buf *b, uint32_t len, uint8_t kind, uint8_t zero)
{
	uint8_t h[GP_HEADER] = { (uint8_t)len, (uint8_t)(len >> 8), (uint8_t)(len >> 16),
		(uint8_t)(len >> 24), kind, 0, 0, zero };

	REQUIRE(buf_append(b, h, sizeof(h)) == 0);
}

/* A stream of every kind of frame at its smallest and largest; returns how many. */
static unsigned sample(struct buf *b)
{
	uint8_t nonce[GP_RESET_NONCE] = { 1, 2, 3 };

	CHECK_EQ(frame_put_json(b, "{}", 2), 0);
	CHECK_EQ(frame_put_data(b, 0, "x", 1), 0);
	CHECK_EQ(frame_put_data(b, UINT64_C(0x0102030405060708), big, GP_DATA_MAX), 0);
	CHECK_EQ(frame_put_reset(b, nonce), 0);
	CHECK_EQ(frame_put_json(b, big, GP_FRAME_MAX), 0);
	CHECK_EQ(frame_put_data(b, UINT64_MAX, big, 7), 0);
	return 6;
}

static void check_sample(unsigned i, const struct frame *f)
{
	static const struct {
		enum gp_kind kind;
		uint64_t stream;
		size_t len;
	} want[] = {
		{ GP_JSON, 0, 2 },
		{ GP_DATA, 0, 1 },
		{ GP_DATA, UINT64_C(0x0102030405060708), GP_DATA_MAX },
		{ GP_RESET, 0, GP_RESET_NONCE },
		{ GP_JSON, 0, GP_FRAME_MAX },
		{ GP_DATA, UINT64_MAX, 7 },
	};

	REQUIRE(i < ARRAY_SIZE(want));
	CHECK_EQ(f->kind, want[i].kind);
	CHECK_EQ(f->len, want[i].len);
	CHECK(f->stream == want[i].stream);
	if (i == 0)
		CHECK(!memcmp(f->data, "{}", 2));
	else if (f->len > 100)
		CHECK(!memcmp(f->data, big, f->len));
}

/* Feeds the sample in pieces of 1..@most bytes. */
static void cuts(size_t most)
{
	struct frame_reader r;
	struct frame f;
	const char *why;
	struct buf all;
	unsigned n, got = 0;
	size_t off = 0;

	buf_init(&all, 0);
	n = sample(&all);
	frame_reader_init(&r);
	while (off < buf_len(&all)) {
		size_t piece = MIN(1 + (size_t)rand() % most, buf_len(&all) - off);

		CHECK_EQ(frame_reader_feed(&r, buf_ptr(&all) + off, piece), 0);
		off += piece;
		while (frame_next(&r, &f, &why) == 1)
			check_sample(got++, &f);
	}
	CHECK_EQ(got, n);
	frame_reader_finish(&r);
	buf_free(&all);
}

/* The same through frame_reader_space(), as a socket fills it. */
static void space(void)
{
	struct frame_reader r;
	struct frame f;
	const char *why;
	struct buf all;
	unsigned n, got = 0;

	buf_init(&all, 0);
	n = sample(&all);
	frame_reader_init(&r);
	while (buf_len(&all)) {
		size_t room = 0, piece;
		void *p = frame_reader_space(&r, &room);

		REQUIRE(p);
		CHECK(room >= FRAME_READ_SIZE);
		piece = MIN(room, buf_len(&all));
		memcpy(p, buf_ptr(&all), piece);
		buf_consume(&all, piece);
		frame_reader_commit(&r, piece);
		while (frame_next(&r, &f, &why) == 1)
			check_sample(got++, &f);
		CHECK(r.in.cap <= 4 * GP_FRAME_MAX);
	}
	CHECK_EQ(got, n);
	frame_reader_finish(&r);
	buf_free(&all);
}

/* guest_proto.h: a bad header ends the connection, before its payload is there. */
static void refused(void)
{
	static const struct {
		uint32_t len;
		uint8_t kind, zero;
	} bad[] = {
		{ GP_FRAME_MAX + 1, GP_JSON, 0 },
		{ UINT32_MAX, GP_JSON, 0 },
		{ 0, GP_JSON, 0 },
		{ 8, GP_DATA, 0 }, /* no data */
		{ 0, GP_DATA, 0 },
		{ 8 + GP_DATA_MAX + 1, GP_DATA, 0 },
		{ GP_RESET_NONCE - 1, GP_RESET, 0 },
		{ GP_RESET_NONCE + 1, GP_RESET, 0 },
		{ 2, 3, 0 },
		{ 2, 255, 0 },
		{ 2, GP_JSON, 1 },
	};

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		struct frame f = { .len = 4711 };
		const char *why = NULL;
		struct buf b;

		buf_init(&b, 0);
		put_header(&b, bad[i].len, bad[i].kind, bad[i].zero);
		CHECK_EQ(frame_parse(buf_ptr(&b), GP_HEADER - 1, &f, &why), 0);
		CHECK_EQ(frame_parse(buf_ptr(&b), GP_HEADER, &f, &why), -EPROTO);
		CHECK(why && *why);
		CHECK_EQ(f.len, 4711); /* written only on success */
		buf_free(&b);
	}
}

static void builders_refuse(void)
{
	struct buf b;

	buf_init(&b, 100);
	CHECK_EQ(frame_put_json(&b, "", 0), -EMSGSIZE);
	CHECK_EQ(frame_put_json(&b, big, GP_FRAME_MAX + 1), -EMSGSIZE);
	CHECK_EQ(frame_put_data(&b, 1, big, 0), -EMSGSIZE);
	CHECK_EQ(frame_put_data(&b, 1, big, GP_DATA_MAX + 1), -EMSGSIZE);
	CHECK_EQ(frame_put_json(&b, big, 93), -ENOBUFS);
	CHECK_EQ(buf_len(&b), 0);
	CHECK_EQ(frame_put_json(&b, big, 92), 0);
	CHECK_EQ(frame_put_data(&b, 1, "x", 1), -ENOBUFS);
	CHECK_EQ(buf_len(&b), 100);
	buf_free(&b);
}

/* A reader never stores more than a frame and one read. */
static void bounded(void)
{
	struct frame_reader r;
	struct frame f;
	const char *why;
	int n = 0;
	uint8_t h[GP_HEADER];

	frame_reader_init(&r);
	frame_header(h, GP_JSON, GP_FRAME_MAX);
	CHECK_EQ(frame_reader_feed(&r, h, sizeof(h)), 0);
	while (frame_reader_feed(&r, big, 4096) == 0 && n < 10000)
		n++;
	CHECK(n * 4096 <= (int)(GP_FRAME_MAX + FRAME_READ_SIZE));
	CHECK_EQ(frame_next(&r, &f, &why), 1);
	frame_reader_reset(&r);
	CHECK_EQ(frame_next(&r, &f, &why), 0);
	CHECK_EQ(buf_len(&r.in), 0);
	frame_reader_finish(&r);
}

int main(void)
{
	srand(1);
	for (size_t i = 0; i < sizeof(big); i++)
		big[i] = (uint8_t)(i * 7 + i / 251);
	cuts(1);
	cuts(17);
	for (int i = 0; i < 8; i++)
		cuts(200000);
	space();
	refused();
	builders_refuse();
	bounded();
	TEST_END();
}

/* base/buf and base/log_escape: limits, wrap-around, hostile text. */
#include "base/buf.h"
#include "base/error.h"
#include "base/log.h"
#include "tests/lib/test.h"

static void queue(void)
{
	struct buf b;
	uint8_t in[1000], expect = 0, next = 0;

	buf_init(&b, 8192);
	srand(7);
	for (int i = 0; i < 20000; i++) {
		size_t n = (size_t)rand() % sizeof(in);

		for (size_t k = 0; k < n; k++)
			in[k] = (uint8_t)(next + k);
		if (buf_append(&b, in, n) == 0)
			next = (uint8_t)(next + n);
		n = (size_t)rand() % (buf_len(&b) + 1);
		for (size_t k = 0; k < n; k++)
			if (buf_ptr(&b)[k] != (uint8_t)(expect + k))
				CHECK(!"bytes out of order");
		buf_consume(&b, n);
		expect = (uint8_t)(expect + n);
		CHECK(buf_len(&b) <= 8192 && b.cap <= 16384);
	}
	buf_free(&b);
	CHECK_EQ(buf_append(&b, in, 1000), 0);
	CHECK_EQ(buf_append(&b, in, 7193), -ENOBUFS);
	CHECK_EQ(buf_len(&b), 1000);
	CHECK(!buf_reserve(&b, SIZE_MAX));
	buf_free(&b);
}

static void escape(void)
{
	static const struct {
		const char *in, *out;
	} cases[] = {
		{ "plain \xc3\xa9", "plain \xc3\xa9" },
		{ "\x1b[2J", "\\x1b[2J" },
		{ "a\r\nb", "a\\x0d\\nb" },
		{ "\xc2\x9b" "31m", "\\xc2\\x9b31m" },      /* C1 CSI in UTF-8 */
		{ "\xc0\xaf", "\\xc0\\xaf" },                 /* overlong */
		{ "\xed\xa0\x80", "\\xed\\xa0\\x80" },        /* surrogate */
		{ "\xf0\x9f\x98\x80", "\xf0\x9f\x98\x80" },
		{ "\xe2\x82", "\\xe2\\x82" },                 /* cut short */
		{ "\x7f", "\\x7f" },
	};
	char out[128], small[6];
	struct error e;

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		log_escape(out, sizeof(out), cases[i].in, strlen(cases[i].in));
		CHECK_STR(out, cases[i].out);
	}
	log_escape(small, sizeof(small), "\x01\x02", 2); /* never half an escape */
	CHECK_STR(small, "\\x01");
	CHECK_EQ(error_set(&e, EINVAL, "disk '%s'", "\x1b]0;x\x07"), -EINVAL);
	CHECK_STR(e.msg, "disk '\\x1b]0;x\\x07'");
	CHECK_EQ(error_prefix(&e, "vm"), -EINVAL);
	CHECK_STR(e.msg, "vm: disk '\\x1b]0;x\\x07'");
}

int main(void)
{
	queue();
	escape();
	TEST_END();
}

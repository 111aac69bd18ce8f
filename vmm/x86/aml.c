#include "vmm/x86/aml.h"

#include <assert.h>
#include <string.h>

#define OP_ZERO       0x00
#define OP_ONE        0x01
#define OP_NAME       0x08
#define OP_BYTE       0x0a
#define OP_WORD       0x0b
#define OP_DWORD      0x0c
#define OP_STRING     0x0d
#define OP_QWORD      0x0e
#define OP_SCOPE      0x10
#define OP_BUFFER     0x11
#define OP_PACKAGE    0x12
#define OP_EXT        0x5b
#define OP_EXT_DEVICE 0x82

#define RES_IO             0x47 /* small item 8, 7 bytes */
#define RES_END            0x79 /* small item 15, 1 byte: checksum, 0 = none */
#define RES_MEMORY32_FIXED 0x86
#define RES_INTERRUPT      0x89

#define PKG_LENGTH_MAX 4

void aml_init(struct aml *a, void *buf, size_t cap)
{
	*a = (struct aml){ .buf = buf, .cap = cap };
}

static void put(struct aml *a, const void *data, size_t len)
{
	if (a->full || len > a->cap - a->len) {
		a->full = true;
		return;
	}
	memcpy(a->buf + a->len, data, len);
	a->len += len;
}

static void put_byte(struct aml *a, uint8_t v)
{
	put(a, &v, 1);
}

/* x86 is little endian, as AML is. */
static void put_u16(struct aml *a, uint16_t v)
{
	put(a, &v, sizeof(v));
}

static void put_u32(struct aml *a, uint32_t v)
{
	put(a, &v, sizeof(v));
}

static void put_name(struct aml *a, const char *name)
{
	if (*name == '\\')
		put_byte(a, (uint8_t)*name++);
	assert(strlen(name) == 4);
	put(a, name, 4);
}

static void put_int(struct aml *a, uint64_t v)
{
	if (v <= 1) {
		put_byte(a, v ? OP_ONE : OP_ZERO);
	} else if (v <= UINT8_MAX) {
		put_byte(a, OP_BYTE);
		put(a, &v, 1);
	} else if (v <= UINT16_MAX) {
		put_byte(a, OP_WORD);
		put(a, &v, 2);
	} else if (v <= UINT32_MAX) {
		put_byte(a, OP_DWORD);
		put(a, &v, 4);
	} else {
		put_byte(a, OP_QWORD);
		put(a, &v, 8);
	}
}

/* 20.2.4: the length counts its own bytes; the first byte's two high bits say how many follow. */
static size_t encode_length(uint8_t out[PKG_LENGTH_MAX], size_t body)
{
	size_t n = body + 1 < 1 << 6 ? 1 : body + 2 < 1 << 12 ? 2 : body + 3 < 1 << 20 ? 3 : 4;
	size_t len = body + n;

	if (n == 1) {
		out[0] = (uint8_t)len;
		return n;
	}
	out[0] = (uint8_t)((n - 1) << 6 | (len & 0xf));
	for (size_t i = 1; i < n; i++)
		out[i] = (uint8_t)(len >> (4 + 8 * (i - 1)));
	return n;
}

/* Puts @head before what was written since @mark. */
static void insert(struct aml *a, size_t mark, const uint8_t *head, size_t n)
{
	if (a->full || n > a->cap - a->len) {
		a->full = true;
		return;
	}
	memmove(a->buf + mark + n, a->buf + mark, a->len - mark);
	memcpy(a->buf + mark, head, n);
	a->len += n;
}

void aml_end(struct aml *a, size_t mark)
{
	uint8_t head[PKG_LENGTH_MAX];

	if (!a->full)
		insert(a, mark, head, encode_length(head, a->len - mark));
}

size_t aml_scope(struct aml *a, const char *name)
{
	size_t mark;

	put_byte(a, OP_SCOPE);
	mark = a->len;
	put_name(a, name);
	return mark;
}

size_t aml_device(struct aml *a, const char *name)
{
	size_t mark;

	put_byte(a, OP_EXT);
	put_byte(a, OP_EXT_DEVICE);
	mark = a->len;
	put_name(a, name);
	return mark;
}

static void name_op(struct aml *a, const char *name)
{
	put_byte(a, OP_NAME);
	put_name(a, name);
}

void aml_name_int(struct aml *a, const char *name, uint64_t value)
{
	name_op(a, name);
	put_int(a, value);
}

void aml_name_string(struct aml *a, const char *name, const char *value)
{
	name_op(a, name);
	put_byte(a, OP_STRING);
	put(a, value, strlen(value) + 1);
}

static unsigned hex_digit(char c)
{
	return c >= 'A' ? (unsigned)(c - 'A' + 10) : (unsigned)(c - '0');
}

/* 19.3.4: letters of five bits, then digits of four, as a big-endian number. */
void aml_name_eisaid(struct aml *a, const char *name, const char *id)
{
	uint32_t v = 0;

	for (unsigned i = 0; i < 3; i++)
		v = v << 5 | ((unsigned)(id[i] - '@') & 0x1f);
	for (unsigned i = 3; i < 7; i++)
		v = v << 4 | hex_digit(id[i]);
	name_op(a, name);
	put_byte(a, OP_DWORD);
	put_u32(a, __builtin_bswap32(v));
}

void aml_name_package(struct aml *a, const char *name, const uint8_t *values, uint8_t n)
{
	size_t mark;

	name_op(a, name);
	put_byte(a, OP_PACKAGE);
	mark = a->len;
	put_byte(a, n);
	for (uint8_t i = 0; i < n; i++)
		put_int(a, values[i]);
	aml_end(a, mark);
}

/* ---- resources ---- */

size_t aml_resources(struct aml *a)
{
	name_op(a, "_CRS");
	put_byte(a, OP_BUFFER);
	return a->len;
}

void aml_resources_end(struct aml *a, size_t mark)
{
	uint8_t size[3] = { OP_WORD };
	size_t len;

	put_byte(a, RES_END);
	put_byte(a, 0);
	if (a->full)
		return;
	len = a->len - mark;
	assert(len <= UINT16_MAX);
	memcpy(size + 1, &(uint16_t){ (uint16_t)len }, 2);
	insert(a, mark, size, sizeof(size)); /* BufferSize */
	aml_end(a, mark);
}

void aml_res_memory(struct aml *a, uint32_t base, uint32_t len)
{
	put_byte(a, RES_MEMORY32_FIXED);
	put_u16(a, 9);
	put_byte(a, 1); /* read-write */
	put_u32(a, base);
	put_u32(a, len);
}

void aml_res_ports(struct aml *a, uint16_t base, uint8_t len)
{
	put_byte(a, RES_IO);
	put_byte(a, 1); /* 16 address bits are decoded */
	put_u16(a, base);
	put_u16(a, base);
	put_byte(a, 1); /* alignment */
	put_byte(a, len);
}

void aml_res_interrupt(struct aml *a, uint32_t gsi)
{
	put_byte(a, RES_INTERRUPT);
	put_u16(a, 6);
	put_byte(a, 0x03); /* consumer, edge; active high, exclusive */
	put_byte(a, 1);
	put_u32(a, gsi);
}

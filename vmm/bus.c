#include "vmm/bus.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

struct bus_range {
	uint64_t base, len;
	const struct bus_ops *ops;
	void *ctx;
};

/* One address space: ranges in ascending order, disjoint. */
struct bus_table {
	struct bus_range range[BUS_RANGES_MAX];
	unsigned n;
};

struct bus {
	struct bus_table table[2]; /* by enum bus_space */
	pthread_mutex_t lock;
};

int bus_create(struct bus **ret, struct error *e)
{
	struct bus *b = calloc(1, sizeof(*b));
	int r;

	if (!b)
		return error_set(e, ENOMEM, "bus: out of memory");
	r = pthread_mutex_init(&b->lock, NULL);
	if (r) {
		free(b);
		return error_set(e, r, "bus: mutex: %s", strerror(r));
	}
	*ret = b;
	return 0;
}

void bus_destroy(struct bus *b)
{
	if (!b)
		return;
	pthread_mutex_destroy(&b->lock);
	free(b);
}

pthread_mutex_t *bus_lock(struct bus *b)
{
	return &b->lock;
}

/* Index of the first range that starts above @addr. */
static unsigned table_above(const struct bus_table *t, uint64_t addr)
{
	unsigned lo = 0, hi = t->n;

	while (lo < hi) {
		unsigned mid = (lo + hi) / 2;

		if (t->range[mid].base > addr)
			hi = mid;
		else
			lo = mid + 1;
	}
	return lo;
}

int bus_add(struct bus *b, enum bus_space space, uint64_t base, uint64_t len,
	const struct bus_ops *ops, void *ctx)
{
	struct bus_table *t = &b->table[space];
	unsigned i = table_above(t, base);

	assert(len && len - 1 <= UINT64_MAX - base);
	assert(!i || t->range[i - 1].len <= base - t->range[i - 1].base);
	assert(i == t->n || len <= t->range[i].base - base);
	if (t->n == BUS_RANGES_MAX)
		return -ENOSPC;
	memmove(&t->range[i + 1], &t->range[i], (t->n - i) * sizeof(t->range[0]));
	t->range[i] = (struct bus_range){ .base = base, .len = len, .ops = ops, .ctx = ctx };
	t->n++;
	return 0;
}

static const struct bus_range *table_find(const struct bus_table *t, uint64_t addr, unsigned len)
{
	unsigned i = table_above(t, addr);
	const struct bus_range *r;

	if (!i)
		return NULL;
	r = &t->range[i - 1];
	return len > r->len || addr - r->base > r->len - len ? NULL : r;
}

void bus_access(
	struct bus *b, enum bus_space space, uint64_t addr, void *data, unsigned len, bool write)
{
	const struct bus_range *r = table_find(&b->table[space], addr, len);

	if (!r) {
		if (!write)
			memset(data, 0xff, len);
		return;
	}
	if (!r->ops->lockfree)
		pthread_mutex_lock(&b->lock);
	if (write)
		r->ops->write(r->ctx, addr - r->base, data, len);
	else
		r->ops->read(r->ctx, addr - r->base, data, len);
	if (!r->ops->lockfree)
		pthread_mutex_unlock(&b->lock);
}

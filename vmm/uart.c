#include "vmm/uart.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/serial_reg.h>
#include <poll.h>
#include <string.h>

#define FLUSH_DELAY_NS (2 * NSEC_PER_MSEC) /* gathers a line's bytes: each wakes nobody by itself */
#define FIFO_SIZE      16
#define IIR_FIFO_ON    0xc0 /* the FIFOs work: a 16550A */

struct uart {
	struct loop *loop;
	int console_fd, irq_fd;
	int slot; /* console_fd in the loop, for poll; -1: none */
	struct loop_op poll_op;
	struct loop_timer flush_timer;
	bool flush_armed;

	uint8_t ier, lcr, mcr, scr, dll, dlm;
	bool fifo_on;
	bool thre_pending; /* the transmitter ran empty and nobody read that from IIR yet */
	bool irq_high;
	uint8_t rx[FIFO_SIZE]; /* loopback only */
	unsigned rx_len;
	bool overrun;

	uint8_t queue[UART_QUEUE];
	uint32_t head, tail; /* bytes in and out so far; index modulo UART_QUEUE */
	uint64_t dropped;
};

/* ---- the console descriptor ---- */

static uint32_t queued(const struct uart *u)
{
	return u->head - u->tail;
}

static void poll_done(struct loop_op *op, int res)
{
	struct uart *u = container_of(op, struct uart, poll_op);

	if (res != -ECANCELED)
		uart_flush(u);
}

static void reader_gone(struct uart *u)
{
	u->console_fd = -1;
	u->dropped += queued(u);
	u->tail = u->head;
}

void uart_flush(struct uart *u)
{
	while (u->console_fd >= 0 && queued(u)) {
		uint32_t pos = u->tail % UART_QUEUE;
		ssize_t n = write(u->console_fd, u->queue + pos, MIN(queued(u), UART_QUEUE - pos));

		if (n > 0) {
			u->tail += (uint32_t)n;
		} else if (n < 0 && errno == EAGAIN) {
			if (!u->poll_op.busy)
				loop_poll(u->loop, &u->poll_op, u->slot, POLLOUT);
			return;
		} else if (!(n < 0 && errno == EINTR)) {
			reader_gone(u);
		}
	}
}

static void flush_due(struct loop_timer *t)
{
	struct uart *u = container_of(t, struct uart, flush_timer);

	u->flush_armed = false;
	if (!u->poll_op.busy)
		uart_flush(u);
}

static void transmit(struct uart *u, uint8_t byte)
{
	if (u->console_fd < 0 || queued(u) == UART_QUEUE) {
		u->dropped++;
		return;
	}
	u->queue[u->head++ % UART_QUEUE] = byte;
	if (!u->flush_armed) {
		u->flush_armed = true;
		loop_timer_set(u->loop, &u->flush_timer, loop_now_ns() + FLUSH_DELAY_NS);
	}
}

/* ---- registers ---- */

static uint8_t interrupt_id(const struct uart *u)
{
	if (u->ier & UART_IER_RLSI && u->overrun)
		return UART_IIR_RLSI;
	if (u->ier & UART_IER_RDI && u->rx_len)
		return UART_IIR_RDI;
	if (u->ier & UART_IER_THRI && u->thre_pending)
		return UART_IIR_THRI;
	return UART_IIR_NO_INT;
}

/* The line is an edge: the interrupt is raised when it goes from low to high. */
static void update_irq(struct uart *u)
{
	bool high = interrupt_id(u) != UART_IIR_NO_INT;
	uint64_t one = 1;

	if (high && !u->irq_high)
		(void)!write(u->irq_fd, &one, sizeof(one)); /* a full counter is pending already */
	u->irq_high = high;
}

/* In loopback the modem control outputs are wired to the modem status inputs. */
static uint8_t modem_status(const struct uart *u)
{
	uint8_t v = 0;

	if (!(u->mcr & UART_MCR_LOOP))
		return UART_MSR_DCD | UART_MSR_DSR | UART_MSR_CTS;
	v |= u->mcr & UART_MCR_DTR ? UART_MSR_DSR : 0;
	v |= u->mcr & UART_MCR_RTS ? UART_MSR_CTS : 0;
	v |= u->mcr & UART_MCR_OUT1 ? UART_MSR_RI : 0;
	v |= u->mcr & UART_MCR_OUT2 ? UART_MSR_DCD : 0;
	return v;
}

static void receive(struct uart *u, uint8_t byte)
{
	if (u->rx_len < (u->fifo_on ? FIFO_SIZE : 1))
		u->rx[u->rx_len++] = byte;
	else
		u->overrun = true;
}

static uint8_t read_rx(struct uart *u)
{
	uint8_t byte;

	if (!u->rx_len)
		return 0;
	byte = u->rx[0];
	memmove(u->rx, u->rx + 1, --u->rx_len);
	return byte;
}

static uint8_t read_iir(struct uart *u)
{
	uint8_t id = interrupt_id(u);

	if (id == UART_IIR_THRI)
		u->thre_pending = false;
	return id | (u->fifo_on ? IIR_FIFO_ON : 0);
}

static uint8_t read_lsr(struct uart *u)
{
	uint8_t v = UART_LSR_TEMT | UART_LSR_THRE;

	v |= u->rx_len ? UART_LSR_DR : 0;
	v |= u->overrun ? UART_LSR_OE : 0;
	u->overrun = false;
	return v;
}

static uint8_t read_register(struct uart *u, uint64_t reg)
{
	bool dlab = u->lcr & UART_LCR_DLAB;

	switch (reg) {
	case UART_RX:
		return dlab ? u->dll : read_rx(u);
	case UART_IER:
		return dlab ? u->dlm : u->ier;
	case UART_IIR:
		return read_iir(u);
	case UART_LCR:
		return u->lcr;
	case UART_MCR:
		return u->mcr;
	case UART_LSR:
		return read_lsr(u);
	case UART_MSR:
		return modem_status(u);
	default:
		return u->scr;
	}
}

static void write_fcr(struct uart *u, uint8_t v)
{
	bool on = v & UART_FCR_ENABLE_FIFO;

	if (on != u->fifo_on || v & UART_FCR_CLEAR_RCVR)
		u->rx_len = 0;
	u->fifo_on = on;
}

static void write_data(struct uart *u, uint8_t v)
{
	if (u->mcr & UART_MCR_LOOP)
		receive(u, v);
	else
		transmit(u, v);
	/* Empty again at once: the line drops and rises, so that an edge is seen each time. */
	u->thre_pending = false;
	update_irq(u);
	u->thre_pending = true;
}

static void write_register(struct uart *u, uint64_t reg, uint8_t v)
{
	bool dlab = u->lcr & UART_LCR_DLAB;

	switch (reg) {
	case UART_TX:
		if (dlab)
			u->dll = v;
		else
			write_data(u, v);
		break;
	case UART_IER:
		if (dlab) {
			u->dlm = v;
		} else {
			/* Enabling it while the transmitter is empty is an event, too. */
			if (v & UART_IER_THRI && !(u->ier & UART_IER_THRI))
				u->thre_pending = true;
			u->ier = v & 0xf;
		}
		break;
	case UART_FCR:
		write_fcr(u, v);
		break;
	case UART_LCR:
		u->lcr = v;
		break;
	case UART_MCR:
		u->mcr = v & 0x1f;
		break;
	case UART_SCR:
		u->scr = v;
		break;
	}
}

static void uart_read(void *ctx, uint64_t off, void *data, unsigned len)
{
	struct uart *u = ctx;
	uint8_t *p = data;

	for (unsigned i = 0; i < len; i++)
		p[i] = read_register(u, off + i);
	update_irq(u);
}

static void uart_write(void *ctx, uint64_t off, const void *data, unsigned len)
{
	struct uart *u = ctx;
	const uint8_t *p = data;

	for (unsigned i = 0; i < len; i++)
		write_register(u, off + i, p[i]);
	update_irq(u);
}

static const struct bus_ops uart_ops = { .read = uart_read, .write = uart_write };

/* ---- life ---- */

int uart_create(struct uart **ret, struct loop *l, int console_fd, int irq_fd, struct error *e)
{
	struct uart *u = calloc(1, sizeof(*u));
	int flags;

	if (!u)
		return error_set(e, ENOMEM, "console: out of memory");
	u->loop = l;
	u->console_fd = console_fd;
	u->slot = -1;
	u->poll_op.done = poll_done;
	u->flush_timer.fire = flush_due;
	u->dll = 1; /* 115200 baud */
	if (console_fd >= 0) {
		flags = fcntl(console_fd, F_GETFL);
		if (flags < 0 || !(flags & O_NONBLOCK)) {
			free(u);
			return error_set(e, EINVAL,
				"console: descriptor %d is not a non-blocking one", console_fd);
		}
		u->slot = loop_add_fd(l, console_fd);
		if (u->slot < 0) {
			int r = u->slot;

			free(u);
			return error_set(e, -r, "console: %s", strerror(-r));
		}
	}
	u->irq_fd = irq_fd;
	*ret = u;
	return 0;
}

void uart_destroy(struct uart *u)
{
	if (!u)
		return;
	loop_timer_clear(u->loop, &u->flush_timer);
	close_fd(&u->irq_fd);
	free(u);
}

int uart_attach(struct uart *u, struct bus *b, struct error *e)
{
	int r = bus_add(b, BUS_PIO, UART_PORT, UART_PORTS, &uart_ops, u);

	return r ? error_set(e, -r, "console: %s", strerror(-r)) : 0;
}

uint64_t uart_dropped(const struct uart *u)
{
	return u->dropped;
}

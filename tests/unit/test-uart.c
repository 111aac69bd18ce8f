/* vmm/uart: the 16550A as a driver sees it, and a console that never makes the guest wait. */
#include "vmm/uart.h"

#include <fcntl.h>
#include <linux/serial_reg.h>
#include <signal.h>
#include <sys/eventfd.h>

#include "tests/lib/test.h"

struct port {
	struct loop *loop;
	struct bus *bus;
	struct uart *uart;
	int irq, pipe[2];
	struct loop_timer stop;
};

static void port_open(struct port *p, bool console)
{
	struct error e = { 0 };

	memset(p, 0, sizeof(*p));
	REQUIRE(!pipe2(p->pipe, O_CLOEXEC | O_NONBLOCK));
	REQUIRE(!bus_create(&p->bus, &e) && !loop_create(&p->loop, 8, &e));
	p->irq = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	REQUIRE(!uart_create(&p->uart, p->loop, console ? p->pipe[1] : -1, dup(p->irq), &e));
	REQUIRE(!uart_attach(p->uart, p->bus, &e));
	REQUIRE(!loop_start(p->loop, false, &e));
	loop_set_lock(p->loop, bus_lock(p->bus));
}

static void port_close(struct port *p)
{
	uart_destroy(p->uart);
	loop_destroy(p->loop);
	bus_destroy(p->bus);
	close(p->irq);
	close(p->pipe[0]);
	close(p->pipe[1]);
}

static uint8_t in(struct port *p, unsigned reg)
{
	uint8_t v;

	bus_access(p->bus, BUS_PIO, UART_PORT + reg, &v, 1, false);
	return v;
}

static void out(struct port *p, unsigned reg, uint8_t v)
{
	bus_access(p->bus, BUS_PIO, UART_PORT + reg, &v, 1, true);
}

static unsigned edges(struct port *p)
{
	uint64_t n = 0;

	return read(p->irq, &n, sizeof(n)) == sizeof(n) ? (unsigned)n : 0;
}

static void stop_fire(struct loop_timer *t)
{
	loop_stop(container_of(t, struct port, stop)->loop);
}

/* Lets the loop run for @ms. */
static void turn(struct port *p, unsigned ms)
{
	p->stop.fire = stop_fire;
	loop_timer_set(p->loop, &p->stop, loop_now_ns() + ms * NSEC_PER_MSEC);
	CHECK_EQ(loop_run(p->loop), 0);
}

/* Data sheet 8.1: register addresses, DLAB, what can be written is read back. */
static void registers(void)
{
	struct port p;

	port_open(&p, true);
	CHECK_EQ(in(&p, UART_LSR), UART_LSR_THRE | UART_LSR_TEMT);
	CHECK_EQ(in(&p, UART_IIR), UART_IIR_NO_INT);
	out(&p, UART_LCR, UART_LCR_DLAB | UART_LCR_WLEN8);
	out(&p, UART_DLL, 12);
	out(&p, UART_DLM, 34);
	CHECK(in(&p, UART_DLL) == 12 && in(&p, UART_DLM) == 34);
	out(&p, UART_LCR, UART_LCR_WLEN8);
	CHECK_EQ(in(&p, UART_IER), 0);
	out(&p, UART_IER, 0xff);
	CHECK_EQ(in(&p, UART_IER), 0x0f);
	out(&p, UART_IER, 0);
	out(&p, UART_MCR, 0xef);
	CHECK_EQ(in(&p, UART_MCR), 0x0f);
	out(&p, UART_SCR, 0xa5);
	CHECK_EQ(in(&p, UART_SCR), 0xa5);
	out(&p, UART_FCR, UART_FCR_ENABLE_FIFO);
	CHECK_EQ(in(&p, UART_IIR) & 0xc0, 0xc0); /* a 16550A */
	out(&p, UART_FCR, 0);
	CHECK_EQ(in(&p, UART_IIR) & 0xc0, 0);
	CHECK_EQ(in(&p, UART_MSR), UART_MSR_DCD | UART_MSR_DSR | UART_MSR_CTS);
	CHECK_EQ(in(&p, UART_RX), 0);
	port_close(&p);
}

/* 8.6.5 loopback: as Linux' autoconfig() probes it, and the data path. */
static void loopback(void)
{
	struct port p;

	port_open(&p, true);
	out(&p, UART_MCR, UART_MCR_LOOP | UART_MCR_OUT2 | UART_MCR_RTS);
	CHECK_EQ(in(&p, UART_MSR) & 0xf0, UART_MSR_DCD | UART_MSR_CTS);
	out(&p, UART_MCR, UART_MCR_LOOP | UART_MCR_OUT1 | UART_MCR_DTR);
	CHECK_EQ(in(&p, UART_MSR) & 0xf0, UART_MSR_RI | UART_MSR_DSR);
	out(&p, UART_IER, UART_IER_RDI | UART_IER_RLSI);
	out(&p, UART_FCR, UART_FCR_ENABLE_FIFO);
	for (int i = 0; i < 16; i++)
		out(&p, UART_TX, (uint8_t)(100 + i));
	CHECK_EQ(edges(&p), 1);
	CHECK_EQ(in(&p, UART_IIR) & 0xf, UART_IIR_RDI);
	CHECK_EQ(in(&p, UART_LSR) & (UART_LSR_DR | UART_LSR_OE), UART_LSR_DR);
	out(&p, UART_TX, 1);
	CHECK_EQ(in(&p, UART_IIR) & 0xf, UART_IIR_RLSI);
	CHECK_EQ(in(&p, UART_LSR) & (UART_LSR_DR | UART_LSR_OE), UART_LSR_DR | UART_LSR_OE);
	CHECK_EQ(in(&p, UART_LSR) & UART_LSR_OE, 0); /* reading it resets it */
	for (int i = 0; i < 16; i++)
		CHECK_EQ(in(&p, UART_RX), 100 + i);
	CHECK_EQ(in(&p, UART_LSR) & UART_LSR_DR, 0);
	CHECK_EQ(in(&p, UART_IIR) & 0xf, UART_IIR_NO_INT);
	out(&p, UART_TX, 7);
	out(&p, UART_FCR, UART_FCR_ENABLE_FIFO | UART_FCR_CLEAR_RCVR);
	CHECK_EQ(in(&p, UART_LSR) & UART_LSR_DR, 0);
	turn(&p, 20);
	CHECK_EQ(read(p.pipe[0], (char[1]){ 0 }, 1), -1); /* none of it left the chip */
	port_close(&p);
}

/* 8.6.1, table 3: the transmitter's interrupt, and when it goes away. */
static void transmit_interrupt(void)
{
	struct port p;

	port_open(&p, true);
	CHECK_EQ(edges(&p), 0);
	out(&p, UART_IER, UART_IER_THRI);
	CHECK_EQ(edges(&p), 1);
	CHECK_EQ(in(&p, UART_IIR) & 0xf, UART_IIR_THRI);
	CHECK_EQ(in(&p, UART_IIR) & 0xf, UART_IIR_NO_INT); /* reading IIR resets it */
	/* Linux' test for chips that don't raise it again: off and on must. */
	out(&p, UART_IER, 0);
	out(&p, UART_IER, UART_IER_THRI);
	CHECK_EQ(edges(&p), 1);
	CHECK_EQ(in(&p, UART_IIR) & 0xf, UART_IIR_THRI);
	/* Each byte empties the transmitter again, also one that is written before IIR was read. */
	for (int i = 0; i < 5; i++) {
		out(&p, UART_TX, 'x');
		CHECK_EQ(edges(&p), 1);
	}
	CHECK_EQ(in(&p, UART_IIR) & 0xf, UART_IIR_THRI);
	out(&p, UART_IER, 0);
	out(&p, UART_TX, 'x');
	CHECK_EQ(edges(&p), 0);
	port_close(&p);
}

/* Bytes arrive in order, whatever there is in them, by the loop alone. */
static void output(void)
{
	char got[1024];
	struct port p;

	port_open(&p, true);
	for (unsigned i = 0; i < 600; i++)
		out(&p, UART_TX, (uint8_t)i);
	CHECK_EQ(read(p.pipe[0], got, sizeof(got)), -1); /* gathered, not one by one */
	turn(&p, 50);
	CHECK_EQ(read(p.pipe[0], got, sizeof(got)), 600);
	for (unsigned i = 0; i < 600; i++)
		CHECK_EQ((uint8_t)got[i], (uint8_t)i);
	port_close(&p);
}

/* A reader that is slow loses what doesn't fit, and gets the rest in order as soon as it reads. */
static void slow_reader(void)
{
	static uint8_t got[1 << 20];
	size_t room = 4096, sent = 400000, have = 0;
	struct port p;
	ssize_t n;

	port_open(&p, true);
	REQUIRE(fcntl(p.pipe[1], F_SETPIPE_SZ, (int)room) == (int)room);
	for (size_t i = 0; i < sent; i++)
		out(&p, UART_TX, (uint8_t)(i % 251));
	CHECK_EQ(uart_dropped(p.uart), sent - UART_QUEUE);
	for (unsigned i = 0; i < 60; i++) {
		turn(&p, 5);
		n = read(p.pipe[0], got + have, sizeof(got) - have);
		have += n > 0 ? (size_t)n : 0;
	}
	CHECK_EQ(have, UART_QUEUE);
	for (size_t i = 0; i < have; i++)
		CHECK_EQ(got[i], i % 251);
	out(&p, UART_TX, '!');
	uart_flush(p.uart);
	CHECK_EQ(read(p.pipe[0], got, sizeof(got)), 1);
	CHECK_EQ(got[0], '!');
	port_close(&p);
}

static void no_reader(void)
{
	struct port p;

	port_open(&p, false);
	out(&p, UART_TX, 'x');
	CHECK_EQ(uart_dropped(p.uart), 1);
	turn(&p, 10);
	port_close(&p);

	port_open(&p, true);
	close(p.pipe[0]);
	p.pipe[0] = -1;
	out(&p, UART_TX, 'x');
	turn(&p, 20);
	out(&p, UART_TX, 'x');
	CHECK_EQ(uart_dropped(p.uart), 2);
	port_close(&p);
}

static void blocking_descriptor(void)
{
	struct error e = { 0 };
	struct uart *u = NULL;
	struct loop *l;
	int fd[2];

	REQUIRE(!pipe(fd) && !loop_create(&l, 8, &e));
	CHECK_EQ(uart_create(&u, l, fd[1], -1, &e), -EINVAL);
	CHECK(!u && strstr(e.msg, "non-blocking"));
	loop_destroy(l);
	close(fd[0]);
	close(fd[1]);
}

/* Any access a guest can make. */
static void noise(void)
{
	static uint8_t sink[UART_QUEUE];
	struct port p;

	port_open(&p, true);
	srand(11);
	for (unsigned i = 0; i < 300000; i++) {
		uint64_t v = (uint64_t)rand();
		unsigned len = 1u << rand() % 3;

		bus_access(p.bus, BUS_PIO, UART_PORT + (unsigned)rand() % 8, &v, len, rand() & 1);
		if (i % 4096 == 0) {
			uart_flush(p.uart);
			(void)!read(p.pipe[0], sink, sizeof(sink));
		}
	}
	edges(&p);
	port_close(&p);
}

int main(void)
{
	signal(SIGPIPE, SIG_IGN);
	registers();
	loopback();
	transmit_interrupt();
	output();
	slow_reader();
	no_reader();
	blocking_descriptor();
	noise();
	TEST_END();
}

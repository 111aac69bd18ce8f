/*
 * vmm/uart.h - a 16550A serial port that only sends: the guest's console
 *
 * What:    the registers that Linux's 8250 driver and early console use. A byte is "on the line" at
 *          once; it waits in a bounded queue until the loop thread writes it to the console
 *          descriptor.
 * Limits:  UART_QUEUE bytes wait; when the reader is slower than the guest, what comes then is
 *          dropped. A vCPU never waits for the reader.
 * Threads: registers on vCPU threads under the device lock, the queue's other end on the loop
 *          thread.
 * Spec:    TI PC16550D data sheet, 8
 */
#pragma once

#include "base/loop.h"
#include "vmm/bus.h"

#define UART_PORT  0x3f8
#define UART_PORTS 8
#define UART_QUEUE 65536 /* power of two */

struct uart;

/**
 * uart_create() - Before loop_start()
 * @console_fd: borrowed, non-blocking; -1: everything is dropped
 * @irq_fd: eventfd that raises the interrupt; owned by the UART once this succeeded
 */
int uart_create(
	struct uart **ret, struct loop *l, int console_fd, int irq_fd, struct error *e) must_check;
/* uart_destroy() - The loop runs no more, but still exists. */
void uart_destroy(struct uart *u);
int uart_attach(struct uart *u, struct bus *b, struct error *e) must_check;
/* uart_flush() - Write what waits, as far as the descriptor takes it. Under the device lock. */
void uart_flush(struct uart *u);
/* uart_dropped() - Bytes lost so far. Under the device lock. */
uint64_t uart_dropped(const struct uart *u);

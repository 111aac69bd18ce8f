/*
 * api/emu/emu.h - the emulated host: running a command line of skerry where KVM works
 *
 * What:    QEMU emulates an AMD machine with SVM; a stock kernel and our guest-init run in it ("L1"), with this
 *          machine's file system read-only over 9p. The same command line then runs there. One L1 serves all
 *          commands of a user; a daemon (this binary as "skerry-emu") owns it and ends it when idle.
 *
 *          client 1 --\                         /-- virtio-serial port 0 --\
 *          client 2 ---+- Unix socket - daemon +--- port 1 ------------------ QEMU: agent (PID 1) - skerry run ...
 *          client 3 --/                         \-- port 2 --/
 */
#pragma once

#include "base/error.h"

struct emu_opts {
	bool icount;
	bool scratch_ok;    /* it writes nothing to the state folder that must be kept: see below */
	bool forward_stdin; /* else the inner command reads from /dev/null */
	bool quiet;         /* say nothing but errors */
	const char *say;    /* one line for stderr unless quiet, or NULL */
};

/**
 * emu_exec() - Run this binary with a command line inside the emulated host
 * @argv: without argv[0]: {"run", "--", "uname"}; NULL-terminated
 *
 * What is written to the state and cache folders is kept on a disk that only one emulated host can have. If another
 * one (of another build, or from before the last setup) has it and runs commands, a command waits for them, or
 * with scratch_ok uses a host whose writes are not kept.
 *
 * The inner process gets this environment, working directory and stdio. SIGINT, SIGTERM and SIGHUP are passed on.
 * Return: what the inner process returned, 128 + n after signal n, or 125 with a message printed.
 */
int emu_exec(int argc, char *const *argv, const struct emu_opts *opts) must_check;

/* emu_exec_program() - The same for any program of this machine, by path or name; runs as root in L1. */
int emu_exec_program(int argc, char *const *argv, const struct emu_opts *opts) must_check;

/**
 * emu_stop() - End this user's emulated hosts
 * @force: also those with commands running (which get SIGKILL)
 * @ret_stopped: how many were ended
 */
int emu_stop(bool force, unsigned *ret_stopped, struct error *e) must_check;

/* emu_daemon_main() - The role "skerry-emu". */
int emu_daemon_main(int argc, char **argv);

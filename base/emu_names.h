/*
 * base/emu_names.h - what the daemon of the emulated host (api/emu) and its PID 1 (guest-init/emu.c) agree on
 */
#pragma once

/* 9p mount tags: this machine's file system, read-only. Fresh, and cached for what never changes. */
#define EMU_TAG_ROOT  "skerry-root"
#define EMU_TAG_STORE "skerry-store"

/* virtio-serial port numbers: 1 for control, then one for each command. */
#define EMU_PORT_CTL   1
#define EMU_PORT_AGENT 2

/* A byte on the control port: write everything back and power off. */
#define EMU_CTL_END 'Q'

/*
 * A file in the root of L1's initramfs, lines of KEY=VALUE:
 *   state, cache, runtime  absolute paths that are the same here and there
 *   hostname               of this machine
 *   ports                  number of ports for commands
 *   scratch                1: what is written is gone when L1 ends; else it is kept on /dev/vda (ext4)
 *   packages               1: system folders change with the package manager only, and may be cached
 */
#define EMU_CONF     "emu.conf"
#define EMU_CONF_MAX 16384

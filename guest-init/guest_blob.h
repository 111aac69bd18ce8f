/*
 * guest-init/guest_blob.h - the initramfs with guest-init in it, part of this binary
 *
 * A "newc" cpio archive: /init, /dev/console and the folders that it mounts on. The kernel unpacks
 * several archives one after the other, so the one with a kernel's modules goes before or after it.
 * Aligned to 4 bytes, and its length is a multiple of 512.
 */
#pragma once

extern const unsigned char guest_blob_start[], guest_blob_end[];

/* guest-init/guest_blob.S - guest-init/guest_blob.h */
	.section .rodata.guest_blob, "a"
	.balign 16
	.globl guest_blob_start
	.type guest_blob_start, @object
guest_blob_start:
	.incbin GUEST_BLOB
	.globl guest_blob_end
	.type guest_blob_end, @object
guest_blob_end:
	.byte 0
	.section .note.GNU-stack, "", @progbits

ldr x3, [x2, #16]
blr x3
add sp, x2, #0x20

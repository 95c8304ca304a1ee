stp x29, x30, [sp, #-32]!
str x19, [sp, #16]
mov x3, sp
str x3, [x1, #-16]!
add sp, x2, #0x20
mov x29, x1
mov x2, sp
adr x30, pc+0xc
ldr x3, [x1, #8]
br x3
brk #0x0

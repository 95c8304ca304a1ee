stp x19, x29, [sp, #-32]!
adr x30, pc+0x1c
str x30, [sp, #16]
ldr x2, [x2]
mov x1, sp
ldr x19, [x2, #16]
ldp x29, x30, [x2]
ret
stp x29, x30, [sp, #-32]!
str x19, [sp, #16]
mov x3, sp
stur x3, [x1, #-16]
ldp x19, x29, [x2]
add sp, x2, #0x20

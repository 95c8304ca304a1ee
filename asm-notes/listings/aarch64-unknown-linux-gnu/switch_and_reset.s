ldr x2, [reg]
ldr x19, [x2, #16]
ldp x29, x30, [x2]
ret

push rbp
mov QWORD PTR [rsi-0x10],rsp
sub rsi,0x10
lea rsp,[rdx+0x8]
mov rbp,rsi
mov rdx,rsp
lea rcx,[rip+0x4]
push rcx
jmp QWORD PTR [rsi+0x8]
int3

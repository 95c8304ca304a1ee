push rbp
push rbx
lea rax,[rip+0x9]
push rax
mov rsi,rsp
mov rsp,QWORD PTR [rdx]
pop rbp
ret
push rbp
mov QWORD PTR [rsi-0x10],rsp
lea rsp,[rdx+0x8]
pop rbx
pop rbp

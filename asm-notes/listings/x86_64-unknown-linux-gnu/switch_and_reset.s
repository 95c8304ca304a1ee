mov rsp,QWORD PTR [reg]
pop rbp
ret

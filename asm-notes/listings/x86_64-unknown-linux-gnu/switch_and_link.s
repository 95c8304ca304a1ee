push rbx
call QWORD PTR [rdx]
pop rbx

// Runs a program under a kernel that does not know MADV_GUARD_INSTALL (before Linux 6.13):
//
//     without_guards PROGRAM [ARGUMENTS]
//
// A filter of system calls, which the program's own programs inherit, answers EINVAL to it.

#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { GUARD_INSTALL = 102 };

static void die(const char *what) {
    perror(what);
    exit(111);
}

int main(int count, char **arguments) {
    if (count < 2) {
        fprintf(stderr, "usage: without_guards PROGRAM [ARGUMENTS]\n");
        return 2;
    }
    // The low half of the third argument: madvise takes an int. x86_64 and aarch64 put it first.
    struct sock_filter lines[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_madvise, 0, 3),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[2])),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, GUARD_INSTALL, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EINVAL),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog filter = {sizeof lines / sizeof *lines, lines};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)) die("PR_SET_NO_NEW_PRIVS");
    if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter)) die("PR_SET_SECCOMP");
    size_t page = sysconf(_SC_PAGESIZE);
    void *mapped = mmap(NULL, page, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (mapped == MAP_FAILED) die("mmap");
    if (madvise(mapped, page, GUARD_INSTALL) == 0 || errno != EINVAL) die("the filter does nothing");
    munmap(mapped, page);
    execv(arguments[1], arguments + 1);
    die(arguments[1]);
}

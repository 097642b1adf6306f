/* Hide from a process what a processor has beyond AVX2, so that all its libraries choose the code of an older one.
 *
 * Preloaded (LD_PRELOAD) on Linux and x86-64 processors that can trap CPUID: each CPUID instruction then raises SIGSEGV,
 * whose handler answers it with the bits of AVX-512, AVX-VNNI and AMX taken away. Environment variables of single
 * libraries do not do: OpenVINO plans for the processor that it sees. benchmarks/measuring.py compiles this.
 */
#define _GNU_SOURCE
#include <cpuid.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#define ARCH_CPUID 0x1012 /* of arch_prctl: whether this thread, and those that it starts, may use CPUID */
#define BIT(n) (1u << (n))

static const unsigned EBX_7 = BIT(16) | BIT(17) | BIT(21) | BIT(26) | BIT(27) | BIT(28) | BIT(30) | BIT(31);
static const unsigned ECX_7 = BIT(1) | BIT(6) | BIT(11) | BIT(12) | BIT(14);
static const unsigned EDX_7 = BIT(2) | BIT(3) | BIT(8) | BIT(22) | BIT(23) | BIT(24) | BIT(25);
static const unsigned STATES = BIT(5) | BIT(6) | BIT(7) | BIT(17) | BIT(18); /* of leaf 0xd: registers to be saved */

static void answer(int number, siginfo_t *info, void *context) {
    greg_t *registers = ((ucontext_t *)context)->uc_mcontext.gregs;
    const unsigned char *code = (const unsigned char *)registers[REG_RIP];
    (void)info;
    if (code[0] != 0x0f || code[1] != 0xa2) { /* a fault of another kind: let it end the process as ever */
        signal(number, SIG_DFL);
        return;
    }
    unsigned leaf = (unsigned)registers[REG_RAX], part = (unsigned)registers[REG_RCX], a, b, c, d;
    syscall(SYS_arch_prctl, ARCH_CPUID, 1);
    __cpuid_count(leaf, part, a, b, c, d);
    syscall(SYS_arch_prctl, ARCH_CPUID, 0);
    if (leaf == 7 && part == 0) {
        b &= ~EBX_7;
        c &= ~ECX_7;
        d &= ~EDX_7;
    } else if (leaf == 7) { /* AVX-VNNI, bfloat16 and all that is newer */
        a = b = c = d = 0;
    } else if (leaf == 0xd && part == 0) {
        a &= ~STATES;
    }
    registers[REG_RAX] = a;
    registers[REG_RBX] = b;
    registers[REG_RCX] = c;
    registers[REG_RDX] = d;
    registers[REG_RIP] += 2;
}

__attribute__((constructor)) static void begin(void) {
    struct sigaction action = {0};
    action.sa_sigaction = answer;
    action.sa_flags = SA_SIGINFO | SA_NODEFER;
    sigaction(SIGSEGV, &action, NULL);
    if (syscall(SYS_arch_prctl, ARCH_CPUID, 0)) {
        perror("this processor or kernel cannot trap CPUID");
        exit(3);
    }
}

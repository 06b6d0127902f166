// SPDX-License-Identifier: Apache-2.0
// The allow-list, with the reason beside each entry. Not in it, on purpose: open and its kin (everything is open),
// execve, clone (all threads exist), ptrace, process_vm_*, mmap or mprotect with PROT_EXEC (translated code was
// mapped before the seal), kill of others.
#include "sandbox/syscalls.h"

#include <asm/prctl.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/kvm.h>
#include <linux/userfaultfd.h>
#include <seccomp.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>

#define ALWAYS(name)                                                                                                   \
    { SCMP_SYS(name), SEAL_ALWAYS, SEAL_ARG_ANY, 0, 0 }
#define EQUAL(name, argument, val)                                                                                     \
    { SCMP_SYS(name), SEAL_ALWAYS, SEAL_ARG_EQUAL, argument, val }
#define KVM(request)                                                                                                   \
    { SCMP_SYS(ioctl), SEAL_KVM, SEAL_ARG_EQUAL, 1, request }
#define NETWORK(name)                                                                                                  \
    { SCMP_SYS(name), SEAL_NETWORK, SEAL_ARG_ANY, 0, 0 }

const struct seal_rule seal_rules[] = {
    // Threads: locks, waiting, ending. Hot ones first.
    ALWAYS(futex),                                           // every lock, condition and vCPU wake
    ALWAYS(rt_sigreturn),                                    // return from the engine's fault and kick handlers
    ALWAYS(clock_nanosleep),                                 // console coalescing
    ALWAYS(nanosleep),                                       // the same on older libcs
    ALWAYS(sched_yield),                                     // spinning with manners
    ALWAYS(membarrier),                                      // the engine's cross-vCPU invalidation
    ALWAYS(restart_syscall),                                 // the kernel's own way to go on after SIGCONT
    ALWAYS(exit),                                            // threads end
    ALWAYS(exit_group),                                      // the process ends
    ALWAYS(set_robust_list),                                 // glibc, thread start and end
    ALWAYS(rseq),                                            // glibc, the same
    ALWAYS(sched_getaffinity),                               // glibc malloc counts CPUs for its arenas
    ALWAYS(getcpu),                                          // glibc sched_getcpu without the vDSO
    ALWAYS(gettid),                                          // logging, pthread_kill
    ALWAYS(getpid),                                          // raise, control info
    ALWAYS(geteuid),                                         // cleaning up the run directory
    ALWAYS(rt_sigprocmask),                                  // pthread_kill, abort, thread end
    ALWAYS(rt_sigaction),                                    // the crash handler gives a signal its default action back
    ALWAYS(rt_sigpending),                                   // the event loop at its end
    ALWAYS(sigaltstack),                                     // thread end
    {SCMP_SYS(tgkill), SEAL_ALWAYS, SEAL_ARG_OWN_PID, 0, 0}, // kicks between our own threads, raise, abort
    EQUAL(arch_prctl, 0, ARCH_SET_GS),                       // a vCPU's thread changes to the translator
    EQUAL(prctl, 0, PR_SET_NAME),                            // names of threads
    EQUAL(prctl, 0, PR_GET_NAME),                            // a crash report reads its own
    // Memory, never executable.
    {SCMP_SYS(mmap), SEAL_ALWAYS, SEAL_ARG_NO_EXEC, 2, 0},     // malloc, windows of guest memory
    {SCMP_SYS(mprotect), SEAL_ALWAYS, SEAL_ARG_NO_EXEC, 2, 0}, // malloc arenas
    ALWAYS(munmap),                                            // malloc, end
    ALWAYS(mremap),                                            // realloc of large blocks
    ALWAYS(brk),                                               // malloc
    ALWAYS(madvise),                                           // malloc, balloon, thread end
    // Descriptors that are already open.
    ALWAYS(read),                 // eventfd, timerfd, signalfd, console
    ALWAYS(write),                // eventfd, console, log
    ALWAYS(readv),                // console, network
    ALWAYS(writev),               // console, network
    ALWAYS(pread64),              // disks without io_uring
    ALWAYS(pwrite64),             // the same
    ALWAYS(preadv),               // the same
    ALWAYS(pwritev),              // the same
    ALWAYS(preadv2),              // the same
    ALWAYS(pwritev2),             // the same
    ALWAYS(io_uring_enter),       // disks
    ALWAYS(fsync),                // disk flush
    ALWAYS(fdatasync),            // disk flush
    ALWAYS(fallocate),            // disk discard and write-zeroes
    ALWAYS(lseek),                // holes in disks; stdio at exit
    ALWAYS(ftruncate),            // the lock file
    ALWAYS(fstat),                // stdio's first use of a stream
    ALWAYS(close),                // clients, sockets, end
    ALWAYS(flock),                // locks given back
    ALWAYS(unlink),               // control and serial socket, at the end
    ALWAYS(rmdir),                // the VM's run directory, at the end
    EQUAL(fcntl, 1, F_GETFL),     // sockets
    EQUAL(fcntl, 1, F_SETFL),     // sockets
    EQUAL(fcntl, 1, F_GETFD),     // sockets
    EQUAL(fcntl, 1, F_SETFD),     // sockets
    EQUAL(fcntl, 1, F_OFD_SETLK), // disk locks given back
    EQUAL(newfstatat, 3, 0x1000), // AT_EMPTY_PATH alone: fstat of newer libcs
    EQUAL(ioctl, 1, TCGETS),      // is a stream a terminal; terminal modes
    EQUAL(ioctl, 1, TCSETS),      // the terminal's modes restored
    EQUAL(ioctl, 1, TCSETSW),     // the same
    EQUAL(ioctl, 1, TCSETSF),     // the same
    EQUAL(ioctl, 1, TIOCGWINSZ),  // size of the console
    EQUAL(ioctl, 1, TIOCGPGRP),   // are we in the foreground, after SIGCONT
    EQUAL(ioctl, 1, FIONREAD),    // network: how much is there
    EQUAL(ioctl, 1, FIONBIO),     // network: non-blocking sockets
    EQUAL(ioctl, 1, FICLONE),     // disks copied into a snapshot
    EQUAL(ioctl, 1, BLKDISCARD),  // block devices as disks
    EQUAL(ioctl, 1, BLKZEROOUT),  // the same
    // Guest memory that comes when it is used; the descriptor exists.
    EQUAL(ioctl, 1, UFFDIO_COPY),       // a page of the source's
    EQUAL(ioctl, 1, UFFDIO_ZEROPAGE),   // a page that it has nothing for
    EQUAL(ioctl, 1, UFFDIO_WAKE),       // two waited for one page
    EQUAL(ioctl, 1, UFFDIO_REGISTER),   // post-copy begins
    EQUAL(ioctl, 1, UFFDIO_UNREGISTER), // and ends
    // The kvm engine. They do nothing without a descriptor of /dev/kvm, which the process has from before the seal or
    // gets from a client that changes the engine. Hot ones first.
    KVM(KVM_RUN),                    // guest code
    KVM(KVM_IRQ_LINE),               // devices raise and lower lines
    KVM(KVM_SET_GSI_ROUTING),        // chips split: which EOIs to report
    KVM(KVM_SIGNAL_MSI),             // devices send messages
    KVM(KVM_IOEVENTFD),              // doorbells that do not leave KVM_RUN
    KVM(KVM_INTERRUPT),              // chips in user space: an interrupt goes in
    KVM(KVM_NMI),                    // the same for an NMI
    KVM(KVM_GET_REGS),               // canonical state: reset, start-up IPI, failure report, debugger
    KVM(KVM_SET_REGS),               // the same
    KVM(KVM_GET_SREGS),              // the same
    KVM(KVM_SET_SREGS),              // the same
    KVM(KVM_GET_FPU),                // the same, where the host has no XSAVE
    KVM(KVM_SET_FPU),                // the same
    KVM(KVM_GET_XSAVE),              // the same
    KVM(KVM_SET_XSAVE),              // the same
    KVM(KVM_GET_XCRS),               // the same
    KVM(KVM_SET_XCRS),               // the same
    KVM(KVM_GET_MSRS),               // the same
    KVM(KVM_SET_MSRS),               // the same
    KVM(KVM_GET_DEBUGREGS),          // the same
    KVM(KVM_SET_DEBUGREGS),          // the same
    KVM(KVM_GET_VCPU_EVENTS),        // the same
    KVM(KVM_SET_VCPU_EVENTS),        // the same
    KVM(KVM_GET_MP_STATE),           // the same
    KVM(KVM_SET_MP_STATE),           // the same
    KVM(KVM_GET_DEVICE_ATTR),        // offset of the TSC
    KVM(KVM_SET_DEVICE_ATTR),        // the same
    KVM(KVM_SET_CLOCK),              // paravirtual clock
    KVM(KVM_GET_LAPIC),              // chips in the kernel: reset, save and load
    KVM(KVM_GET_IRQCHIP),            // the same
    KVM(KVM_GET_PIT2),               // the same
    KVM(KVM_SET_LAPIC),              // the same
    KVM(KVM_SET_IRQCHIP),            // the same
    KVM(KVM_SET_PIT2),               // the same
    KVM(KVM_SET_GUEST_DEBUG),        // single steps
    KVM(KVM_TRANSLATE),              // failure report: the bytes at RIP
    KVM(KVM_GET_DIRTY_LOG),          // dirty log
    KVM(KVM_CLEAR_DIRTY_LOG),        // the same
    KVM(KVM_RESET_DIRTY_RINGS),      // the same, as rings
    KVM(KVM_SET_USER_MEMORY_REGION), // starts and ends it; the engine is changed, as all that follows
    KVM(KVM_GET_API_VERSION),        // what was handed over is /dev/kvm
    KVM(KVM_CHECK_EXTENSION),        // what it can do
    KVM(KVM_GET_SUPPORTED_CPUID),    // the same
    KVM(KVM_GET_VCPU_MMAP_SIZE),     // the same
    KVM(KVM_CREATE_VM),              // the VM
    KVM(KVM_ENABLE_CAP),             // the same
    KVM(KVM_SET_TSS_ADDR),           // the same
    KVM(KVM_SET_IDENTITY_MAP_ADDR),  // the same
    KVM(KVM_CREATE_IRQCHIP),         // interrupt controllers in the kernel
    KVM(KVM_CREATE_PIT2),            // the same
    KVM(KVM_X86_SET_MSR_FILTER),     // chips in user space
    KVM(KVM_CREATE_VCPU),            // the vCPUs
    KVM(KVM_SET_CPUID2),             // the same
    // The event loop.
    ALWAYS(epoll_wait),      // the loop itself
    ALWAYS(epoll_pwait),     // the same
    ALWAYS(epoll_pwait2),    // the same
    ALWAYS(epoll_ctl),       // sources come and go
    ALWAYS(poll),            // console output, network
    ALWAYS(ppoll),           // the same
    ALWAYS(select),          // network library
    ALWAYS(pselect6),        // the same
    ALWAYS(timerfd_settime), // timers
    ALWAYS(timerfd_gettime), // timers
    // Time, randomness, figures, where the vDSO does not answer.
    ALWAYS(clock_gettime), // clocks without a vDSO
    ALWAYS(clock_getres),  // clocks without a vDSO
    ALWAYS(gettimeofday),  // clocks without a vDSO
    ALWAYS(time),          // clocks without a vDSO
    ALWAYS(getrandom),     // core/nondet
    ALWAYS(getrusage),     // control: stats
    ALWAYS(times),         // clock()
    ALWAYS(sysinfo),       // glibc qsort looks at the size of memory
    // Clients of the control and serial sockets.
    ALWAYS(accept4),    // a client comes
    ALWAYS(recvfrom),   // serial sockets
    ALWAYS(recvmsg),    // requests, and open files with them
    ALWAYS(sendto),     // our answers
    ALWAYS(shutdown),   // it goes
    ALWAYS(getsockopt), // pending errors
    // The user-mode network makes a host socket for each connection of the guest.
    {SCMP_SYS(socket), SEAL_NETWORK, SEAL_ARG_SOCKET, 0, 0}, // IPv4 and IPv6 alone
    NETWORK(connect),                                        // guest connects out
    NETWORK(bind),                                           // source address, forwarded ports
    NETWORK(listen),                                         // FTP-like helpers of the library
    NETWORK(accept),                                         // forwarded ports
    NETWORK(sendmsg),                                        // datagrams
    NETWORK(setsockopt),                                     // TCP_NODELAY, SO_OOBINLINE...
    NETWORK(getsockname),                                    // forwarded ports
    NETWORK(getpeername),                                    // forwarded ports
    // The library looks whether /etc/resolv.conf has changed and reads it anew; it may not create or write.
    {SCMP_SYS(newfstatat), SEAL_NETWORK, SEAL_ARG_ANY, 0, 0},
    {SCMP_SYS(stat), SEAL_NETWORK, SEAL_ARG_ANY, 0, 0},
    {SCMP_SYS(openat), SEAL_NETWORK, SEAL_ARG_EQUAL, 2, O_RDONLY},
    {SCMP_SYS(openat), SEAL_NETWORK, SEAL_ARG_EQUAL, 2, O_RDONLY | O_CLOEXEC},
};
const size_t seal_rule_count = sizeof(seal_rules) / sizeof(seal_rules[0]);

const int seal_refused[] = {
    SCMP_SYS(open),      SCMP_SYS(openat),     SCMP_SYS(openat2),  SCMP_SYS(stat),
    SCMP_SYS(lstat),     SCMP_SYS(newfstatat), SCMP_SYS(statx),    SCMP_SYS(access),
    SCMP_SYS(faccessat), SCMP_SYS(faccessat2), SCMP_SYS(readlink), SCMP_SYS(readlinkat),
    SCMP_SYS(getcwd),    SCMP_SYS(getdents64), SCMP_SYS(uname),    SCMP_SYS(prlimit64),
};
const size_t seal_refused_count = sizeof(seal_refused) / sizeof(seal_refused[0]);

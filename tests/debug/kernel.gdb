# For Debian's kernel with the names that tests/debug/kernel.sh gives it.
hbreak start_kernel
continue
info registers rip
delete
break __x64_sys_sethostname
continue
backtrace 3
# The user's string: struct pt_regs.di.
x/s *(char **)($rdi + 0x70)
info threads
delete
watch *(char *)((char *)&init_uts_ns + 65)
continue
delete
# Into the kernel and out of user code, in one step over SYSCALL.
tbreak entry_SYSCALL_64
continue
set $user = $rcx - 2
tbreak *$user
continue
x/i $rip
print/x $cs
stepi
x/i $rip
print/x $cs
stepi
stepi
# Ctrl-C.
shell (sleep 1; kill -INT $PPID) &
continue
info threads
monitor registers
thread 1
stepi
detach

# For tests/guest/src/debuggee.c in an outer machine whose processor takes no breakpoints (kvm/gdb.sh).
info registers rip
stepi
stepi
info registers rip
shell (sleep 6; kill -INT $PPID) &
continue
backtrace 2
stepi
stepi
stepi
stepi
info threads
print rounds
print/x *(char *)&spin@4
set variable spins = 1
set $rdx = 0x1122334455667788
print/x $edx
detach

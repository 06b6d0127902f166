# For tests/guest/src/debuggee.c; guest.sh says what gdb must have said.
info registers rip cr0
hbreak station2
break station5
continue
backtrace 2
set variable rounds = 2
continue
finish
delete
# More than there are debug registers.
break station1
break station2
break station3
break station4
break station5
break station6
continue
continue
continue
continue
continue
set $rdi = 1000
print v
set $rdi = 27
delete
watch watched[1]
rwatch watched[2]
awatch bytes[10]
continue
continue
continue
continue
delete
# One with breakpoints of ours about.
watch watched[3]
break station1
break before_own_traps
continue
delete
tbreak spin
continue
stepi
stepi
print spins
set variable spins = 1
print $xmm0.uint128
monitor translate 0x100000
monitor info
detach

# For tests/guest/src/debuggee.c on engine kvm: breakpoints in debug registers, and steps. No watchpoints: a KVM that
# emulates kernel code (docs/KVM.md) does not look for them; tests/unit/test_kvm_points.c has how they are laid out.
info registers rip
hbreak station2
break station5
continue
set variable rounds = 2
continue
finish
stepi
stepi
info registers rip
delete
tbreak before_own_traps
continue
detach

#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# gdb on Debian's kernel with two vCPUs: a breakpoint before there is paging, one in a system call and the way back to
# its caller, the user's memory, a watchpoint on kernel data, a step over SYSCALL, Ctrl-C, vCPUs as threads.
. "$(dirname "$0")/../lib.sh"
. "$(dirname "$0")/lib.sh"
images kernel vmlinux plain
NAMES="start_kernel x64_sys_call __x64_sys_sethostname do_syscall_64 entry_SYSCALL_64 init_uts_ns"

# The kernel comes without symbols; it tells them itself (nokaslr: they are where it was linked).
cat >"$T/names" <<END
echo 0 >/proc/sys/kernel/kptr_restrict
for name in $NAMES; do grep " \$name\$" /proc/kallsyms; done
END
with_script "$PLAIN" "$T/names" "$T/initrd"
vm 60 --kernel "$VMLINUX" --initrd "$T/initrd" --cmdline "console=ttyS0 quiet nokaslr cicada.mode=script"
shows " start_kernel"

# section NAME: its address without the upper half, which is the same for all of the kernel.
section() {
    readelf -SW "$VMLINUX" | sed -n "s/^.* $1  *PROGBITS  *ffffffff\([0-9a-f]*\) .*/\1/p"
}
options=
tr -d '\r' <"$CONSOLE" | grep -a "^ffffffff.* [TtDd] " >"$T/symbols"
while read -r addr type name; do
    case $type$name in
    [Tt]start_kernel) in=.init.text ;;
    [Tt]*) in=.text ;;
    *) in=.data ;;
    esac
    case $type in [Tt]) kind=function ;; *) kind=object ;; esac
    offset=$((0x${addr#ffffffff} - 0x$(section "$in")))
    options="$options --add-symbol $name=$in:$offset,$kind,global"
done <"$T/symbols"
# shellcheck disable=SC2086 # a list
objcopy $options "$VMLINUX" "$T/vmlinux" || fail "objcopy"

cat >"$T/script" <<'END'
hostname first
hostname second
sleep 3
echo "seen: $(hostname)"
END
with_script "$PLAIN" "$T/script" "$T/initrd"
debug ,wait --kernel "$VMLINUX" --initrd "$T/initrd" --cpus 2 \
    --cmdline "console=ttyS0 quiet nokaslr cicada.mode=script"
gdb_script 60 "$T/vmlinux" <"$ROOT/tests/debug/kernel.gdb"
finish 30
said "hit Breakpoint 1, .* start_kernel"
said "hit Breakpoint 2, .* __x64_sys_sethostname"
said "^#1 .* in (do_syscall_64|x64_sys_call) "
said '"first"'
said "^. [12] +Thread [12] \"vCPU [01]\" \(kernel\)"
said "hit Hardware watchpoint 3"
said "^New value = 102 'f'"
said "^=> 0x[0-9a-f]+:.syscall"
said "= 0x33$"
said "^=> 0x[0-9a-f]+ <entry_SYSCALL_64>:.swapgs"
said "= 0x10$"
said "received signal SIGINT"
said "^. 2 +Thread 2 \"vCPU 1\" \(halted\)"
said "^.*lstar +$(sed -n 's/ . entry_SYSCALL_64$//p' "$T/symbols")"
shows "seen: second"
ends_with 0

#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# timeout: 900
# stress-ng checks its own results: every CPU method in turn, then memory patterns by two workers, with one vCPU and
# with two. STRESS_SECONDS=60 each.
. "$(dirname "$0")/../lib.sh"
images kernel boot test
seconds=${STRESS_SECONDS:-20}
mkdir "$T/www"
cat >"$T/www/stress" <<END
stress-ng --quiet --cpu \$(nproc) --cpu-method all --verify --timeout ${seconds}s || echo "CICADA: cpu fails (\$?)"
stress-ng --quiet --vm 2 --vm-bytes 128M --verify --timeout ${seconds}s || echo "CICADA: vm fails (\$?)"
dmesg | grep -E 'BUG:|Oops|soft lockup|rcu.*stall|segfault|general protection' && echo "CICADA: the kernel complains"
echo "CICADA: stress ran on \$(nproc)"
poweroff
END
serve "$T/www"
for cpus in 1 2; do
    copy_disk test
    rm -f "$T/keys"
    start --kernel "$KERNEL" --initrd "$BOOT" --disk "$DISK" --net user --cpus $cpus --memory 1G \
        --cmdline "console=ttyS0 quiet root=/dev/vda"
    wait_console 120 "root@cicada:~#"
    echo "wget -q -O /tmp/stress http://10.0.2.2:$PORT/stress; sh /tmp/stress" >&3
    wait_console $((2 * seconds + 120)) "CICADA: stress ran on $cpus"
    grep -aqE 'CICADA: (cpu|vm|the kernel)' "$CONSOLE" && fail "a check of stress-ng failed on $cpus vCPUs"
    finish 90
    exec 3>&-
    ends_with 0
done

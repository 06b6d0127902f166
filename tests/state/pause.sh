#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# cicada pause and resume: the guest stands, and its clock goes on from where it stood or at the present time, as asked for.
. "$(dirname "$0")/../lib.sh"
images kernel plain
export XDG_RUNTIME_DIR="$T"
cat >"$T/script" <<'END'
i=0
while :; do i=$((i + 1)); echo "GUEST: tick $i at $(date +%s)"; sleep 0.2; done
END
with_script "$PLAIN" "$T/script" "$T/initrd"
start --name p -m 128M --kernel "$KERNEL" --initrd "$T/initrd" --cmdline "console=ttyS0 quiet cicada.mode=script"
wait_console 60 "GUEST: tick 5 "
# gap POLICY: by how many seconds the guest's clock moves between the last line before a pause of 5 s and the first after.
gap() {
    "$CICADA" pause p || fail "pause"
    sleep 0.5
    lines=$(grep -ac "GUEST: tick" "$CONSOLE")
    sleep 4.5
    [ "$(grep -ac "GUEST: tick" "$CONSOLE")" = "$lines" ] || fail "a paused guest goes on"
    "$CICADA" resume p "$@" || fail "resume"
    wait_console 20 "GUEST: tick" $((lines + 2))
    sed -n 's/.*tick .* at \([0-9]*\).*/\1/p' "$CONSOLE" | sed -n "${lines}p;$((lines + 2))p" | tr '\n' ' ' >"$T/times"
    read -r before after <"$T/times"
    gap=$((after - before))
}
gap
[ $gap -lt 4 ] || fail "the clock moved by $gap s"
gap --clock continue
[ $gap -lt 4 ] || fail "--clock continue: the clock moved by $gap s"
gap --clock jump
[ $gap -ge 4 ] || fail "--clock jump: the clock moved by $gap s"
"$CICADA" resume p --clock back 2>"$T/err" && fail "a policy that there is not"
grep -q "continue or jump" "$T/err" || fail "the policies are not named"
"$CICADA" stop p

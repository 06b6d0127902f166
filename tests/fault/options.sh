#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Values and options that make no sense: exit code 1 and a message that names the option and the value.
. "$(dirname "$0")/../lib.sh"
images kernel plain

for value in 0 -1 -512M 1000001 4097 999999T 18446744073709551616 0x abc '' 512X 1.5.2G ' '; do
    refused --memory --kernel "$KERNEL" --memory "$value"
done
for value in 0 -1 100000 abc '' 1x 99999999999999999999 1.5; do
    refused --cpus --kernel "$KERNEL" --cpus "$value"
done
refused warp --kernel "$KERNEL" --engine warp
refused toaster --kernel "$KERNEL" --board toaster
refused z80 --kernel "$KERNEL" --cpu z80
refused floppy --kernel "$KERNEL" --boot floppy
refused --serial --kernel "$KERNEL" --serial pigeon
refused --net --kernel "$KERNEL" --net pigeon
refused --net --kernel "$KERNEL" --net user,hostfwd=tcp:99999:22
refused --net --kernel "$KERNEL" --net user,hostfwd=rubbish
refused --net --kernel "$KERNEL" --net user,mac=zz:00
refused --memroy --kernel "$KERNEL" --memroy 512M
refused --no-such-option --kernel "$KERNEL" --no-such-option
refused stray --kernel "$KERNEL" stray
refused --memory --kernel "$KERNEL" --memory
refused --kernel --memory 512M

# A wrong word for a command.
"$CICADA" rnu >"$T/out" 2>"$T/err"
code=$?
ends_with 1
grep -q rnu "$T/err" || fail "the message does not name the command"
# Help and the version are no errors.
"$CICADA" --help >"$T/out" 2>"$T/err" || fail "--help ends with $?"
grep -q run "$T/out" || fail "--help does not show the commands"
"$CICADA" run --help >"$T/out" 2>"$T/err" || fail "run --help ends with $?"
grep -q -- --memory "$T/out" || fail "run --help does not show --memory"
"$CICADA" version >"$T/out" 2>"$T/err" || fail "version ends with $?"
all_refused

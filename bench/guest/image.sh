#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Builds what the benchmark runs, from bench/guest and Debian's packages:
#   .cache/bench/images/tree       the folder /bench of the guests; the native runs use the same files
#   .cache/bench/images/base.cpio  initramfs with the benchmark's own static programs and the virtio modules
#   .cache/bench/images/full.cpio  the same with python3, lua, gcc, gzip, sqlite3 and zstd and their libraries, as installed here
#
# usage: image.sh

# shellcheck source=../../tools/guest/lib.sh
. "$(dirname "$0")/../../tools/guest/lib.sh"

need gcc busybox cpio openssl lua5.4 gzip sqlite3 zstd ldd readlink
"$ROOT/tools/guest/kernel.sh"

MODULES="virtio_pci virtio_blk virtio_net"
PYTHON=$(readlink -f /usr/bin/python3)
PROGRAMS="$PYTHON /usr/bin/lua5.4 /usr/bin/gzip /usr/bin/sqlite3 /usr/bin/zstd"
CC1=$(gcc -print-prog-name=cc1)
AS=$(command -v as)
PYTHON_LIB=/usr/lib/${PYTHON##*/}
[ -d "$PYTHON_LIB" ] || die "found no $PYTHON_LIB"

versions=$(dpkg-query -W busybox-static gcc python3 python3-minimal lua5.4 gzip sqlite3 zstd libc6 binutils libssl-dev 2>/dev/null || true)
# shellcheck disable=SC2046 # a list of names without spaces
KEY=$(key_of "$versions" "$0" "$CACHE/kernel.key" $(find "$GUEST_DIR" -type f ! -name image.sh | LC_ALL=C sort))
mkdir -p "$CACHE/bench"
lock bench
is_fresh bench/images "$KEY" && exit 0
start=$(now_ms)
scratch
images=$SCRATCH/images
root=$SCRATCH/root
tree=$root/bench
mkdir -p "$images" "$tree/data" "$root/bin" "$root/usr/bin" "$root/proc" "$root/sys" "$root/dev" "$root/tmp"

compile() {
    log=$SCRATCH/log
    gcc -std=gnu17 -O2 -g1 -Wall -Wextra -static "$@" 2>"$log" || { cat "$log" >&2; die "cannot compile the programs"; }
}

sources=$(find "$GUEST_DIR" -maxdepth 1 -name '*.c' ! -name crypto.c)
# shellcheck disable=SC2086 # a list of names without spaces
compile -o "$tree/bench" $sources -lm -lpthread
# libcrypto's name service wants shared libraries at run time; the benchmark does not use it.
# shellcheck disable=SC2086
compile -o "$tree/bench-crypto" $sources "$GUEST_DIR/crypto.c" -lcrypto -lm -lpthread
compile -o "$root/init" "$GUEST_DIR/agent/agent.c"
cp "$root/init" "$tree/agent"
cp "$GUEST_DIR"/data/* "$tree/data/"
"$tree/bench" text 16777216 42 >"$tree/data/text"
"$tree/bench" source 50 >"$tree/data/source.c"
# A key made anew with each image: the results are compared within one run, where all use the same one.
openssl genrsa -traditional -out "$tree/data/rsa.pem" 2048 2>/dev/null
chmod 644 "$tree/data/rsa.pem"

modules_dir=$CACHE/kernel/modules/lib/modules/$(cat "$CACHE/kernel/version")
module_order() {
    awk -v wanted="$MODULES" '
        { path = $1; sub(":$", "", path); name = path; sub(".*/", "", name); sub("[.]ko.*", "", name)
          order[name] = ""; for (i = NF; i > 1; i--) order[name] = order[name] " " $i; order[name] = order[name] " " path }
        END { n = split(wanted, want, " ")
              for (w = 1; w <= n; w++) { m = split(order[want[w]], list, " ")
                  for (i = 1; i <= m; i++) if (!(list[i] in seen)) { seen[list[i]]; print list[i] } } }' "$1/modules.dep"
}
mkdir "$tree/modules"
module_order "$modules_dir" | while read -r path; do
    cp "$modules_dir/$path" "$tree/modules/"
    echo "/bin/busybox insmod /bench/modules/${path##*/}" >>"$tree/modules/load.sh"
done
[ -s "$tree/modules/load.sh" ] || die "found no modules in $modules_dir"
cp -L "$(command -v busybox)" "$root/bin/busybox"
ln -s busybox "$root/bin/sh"

pack() { (cd "$root" && find . -mindepth 1 | LC_ALL=C sort | cpio --quiet -o -H newc -R 0:0) >"$images/$1"; }

# The programs with every library that ldd names, at the paths where they are here.
install_program() {
    for file in "$1" $(ldd "$1" | grep -o '/[^ ]*'); do
        [ -e "$root$file" ] || install -D "$(readlink -f "$file")" "$root$file"
    done
}

# The long text is for the programs only.
mv "$tree/data/text" "$SCRATCH/text"
pack base.cpio
mv "$SCRATCH/text" "$tree/data/text"
for program in $PROGRAMS "$CC1" "$AS"; do install_program "$program"; done
(cd "$PYTHON_LIB" && find . -type f -name '*.py*' ! -path './test/*' ! -path './idlelib/*' ! -path './ensurepip/*' \
    ! -path './lib2to3/*' ! -path './config-*' ! -path './pydoc_data/*' ! -path './distutils/*' ! -path './tkinter/*' \
    -print0 | cpio --quiet -0 -pdm "$root$PYTHON_LIB")
mkdir -p "$root$PYTHON_LIB/lib-dynload"
pack full.cpio
cp -a "$tree" "$images/tree"
publish "$images" bench/images "$KEY"
say "benchmark images: $(du -h "$CACHE/bench/images/base.cpio" | cut -f1), $(du -h "$CACHE/bench/images/full.cpio" | cut -f1) ($(took "$start"))"

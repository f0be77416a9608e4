#!/bin/sh
# Builds raystream with its hot paths laid out as a load uses them (profile-guided optimisation): builds it with counters,
# runs the scenarios of `raystream bench` against it, and builds it again with what was counted. Run by `make profiled`.
#
# The program is left in the target folder as `profiled/raystream`. Takes two builds of the profile `dist` and a minute; each
# scenario runs for PROFILE_SECONDS (2).
set -eu
cd "$(dirname "$0")/.."

target="${CARGO_TARGET_DIR:-target}/profiled"
seconds=${PROFILE_SECONDS:-2}

say() { printf '%s\n' "$*" >&2; }

# The load is for a server of its own, whatever else is configured here; where the programs of Postgres are stays known.
for variable in $(env | sed -n 's/^\(RAYSTREAM_[A-Z0-9_]*\)=.*/\1/p'); do
    [ "$variable" = RAYSTREAM_PG_BIN ] || unset "$variable"
done

# The tool has to be of the compiler's own LLVM: what it writes is read by that one alone.
sysroot=$(rustc --print sysroot)
host=$(rustc -vV | sed -n 's/^host: //p')
profdata="$sysroot/lib/rustlib/$host/bin/llvm-profdata"
if [ ! -x "$profdata" ]; then
    command -v rustup >/dev/null 2>&1 && rustup component add llvm-tools >&2 || true
    [ -x "$profdata" ] || { say "profiled: llvm-profdata is missing: install the component llvm-tools of this Rust"; exit 1; }
fi

mkdir -p "$target"
target=$(cd "$target" && pwd)

# build FOLDER FLAG; with --target, so that the flag reaches the program alone and not what builds it.
build() {
    RUSTFLAGS="${RUSTFLAGS:-} $2" cargo build --profile dist --locked --bin raystream --target "$host" --target-dir "$target/$1"
}

work=$(mktemp -d "${TMPDIR:-/tmp}/raystream-profile.XXXXXX")
# As root, Postgres runs as another user, who has to pass through.
chmod 711 "$work"
server=
stop() {
    if [ -n "$server" ]; then
        kill -TERM "$server" 2>/dev/null || true
        wait "$server" 2>/dev/null || true
        server=
    fi
}
trap 'stop; rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM

count() {
    "$raystream" bench "$@" --duration "${seconds}s" >"$work/bench" 2>&1 || { cat "$work/bench" >&2; say "profiled: bench $* failed"; exit 1; }
}

raw=$target/counted merged=$target/counted.profdata
raystream=$target/counting/$host/dist/raystream

say "profiled: building with counters"
# What is built with counts is built anew each time: cargo does not see that others lie at the same place.
rm -rf "$raw" "$target/laid-out"
build counting "-Cprofile-generate=$raw"

say "profiled: counting"
"$raystream" dev --listen 127.0.0.1:0 --data "$work/data" >"$work/url" 2>"$work/log" &
server=$!
waited=0
until [ -s "$work/url" ]; do
    kill -0 "$server" 2>/dev/null && [ "$waited" -lt 600 ] || { cat "$work/log" >&2; say "profiled: the server did not start"; exit 1; }
    sleep 0.1
    waited=$((waited + 1))
done
tcp=$(head -n 1 "$work/url")
websocket=raystream+ws:${tcp#raystream:}

for url in "$tcp" "$websocket"; do
    for cipher in chacha aes; do
        count "$url" echo --cipher "$cipher"
        count "$url" echo --cipher "$cipher" --in-flight 64
        count "$url" echo --cipher "$cipher" --connections 16 --in-flight 16
        count "$url" echo --cipher "$cipher" --payload 1KiB
        count "$url" bulk --cipher "$cipher" --in-flight 16
    done
done
count "$tcp" connect
count "$tcp" idle --connections 200
count "$tcp" get
count "$tcp" get --in-flight 64
count "$tcp" query --in-flight 16
count "$tcp" set
count "$tcp" set --connections 16 --in-flight 16
count "$tcp" sub
count "$tcp" sub --connections 200 --in-flight 32
# The counters are written when the program ends in order.
kill -TERM "$server"
wait "$server" || { cat "$work/log" >&2; say "profiled: the server did not end in order"; exit 1; }
server=
"$profdata" merge --output="$merged" "$raw"

say "profiled: building with what was counted"
build laid-out "-Cprofile-use=$merged"
cp "$target/laid-out/$host/dist/raystream" "$target/raystream.new"
mv -f "$target/raystream.new" "$target/raystream"
printf '%s\n' "$target/raystream"

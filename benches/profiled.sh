#!/bin/sh
# Builds a program with its hot paths laid out as a load uses them (profile-guided optimisation): builds it with counters,
# puts it under load, and builds it again with what was counted.
#
#   benches/profiled.sh            raystream, under the scenarios of `raystream bench`; run by `make profiled`
#   benches/profiled.sh peers      what the end_to_end benchmark compares it with, under that benchmark
#
# The program is left in the target folder under `profiled/`. Takes two builds as one piece and a minute.
set -eu
cd "$(dirname "$0")/.."

target="${CARGO_TARGET_DIR:-target}/profiled"
seconds=${PROFILE_SECONDS:-2}

say() { printf '%s\n' "$*" >&2; }

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

# build FOLDER FLAG CARGO_ARGUMENTS...; with --target, so that the flag reaches the program alone and not what builds it.
build() {
    folder=$1 flag=$2
    shift 2
    RUSTFLAGS="${RUSTFLAGS:-} $flag" cargo build --locked --target "$host" --target-dir "$target/$folder" "$@"
}

# What is built with counters is built again when its source has changed; with what was counted, always: cargo does not see that
# another count lies at the same place.
twice() {
    name=$1 load=$2
    shift 2
    raw=$target/$name.counted merged=$target/$name.profdata
    say "profiled: building $name with counters"
    rm -rf "$raw" "$target/laid-out"
    build counting "-Cprofile-generate=$raw" "$@"
    say "profiled: counting"
    "$load" "$target/counting/$host"
    "$profdata" merge --output="$merged" "$raw"
    say "profiled: building $name with what was counted"
    build laid-out "-Cprofile-use=$merged" "$@"
    find "$target/laid-out/$host" -maxdepth 2 -name "$name" -type f -exec cp {} "$target/$name" \;
    printf '%s\n' "$target/$name"
}

# What the benchmark compares raystream with is built as one piece in its release profile.
load_peers() {
    "$1/release/raystream-end-to-end" --raystream "$target/raystream" --quick --rounds 1 >&2
}
if [ "${1:-}" = peers ]; then
    [ -x "$target/raystream" ] || { say "profiled: build raystream first (make profiled)"; exit 1; }
    twice raystream-end-to-end load_peers --release --manifest-path benches/end_to_end/Cargo.toml
    exit
fi

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
trap 'exit 1' INT TERM

count() {
    "$raystream" bench "$@" --duration "${seconds}s" >"$work/bench" 2>&1 || { cat "$work/bench" >&2; say "profiled: bench $* failed"; exit 1; }
}

load_raystream() {
    raystream=$1/dist/raystream
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
    # The counters are written when the program ends.
    stop
}

twice raystream load_raystream --profile dist --bin raystream

#!/bin/sh
# The demonstration: a private Postgres and a server in a temporary folder, calls, a live subscription, a killed client, a
# killed server, latency. Takes less than a minute, needs no network, leaves nothing behind. Run by `make demo`, which
# builds first.
#
# Every number it prints is measured in this run. The exit status is not zero when something is not as it says.
set -eu
cd "$(dirname "$0")/.."

bin="${CARGO_TARGET_DIR:-target}/release"
raystream="$bin/raystream"
orders="$bin/orders"
for program in "$raystream" "$orders"; do
    [ -x "$program" ] || { echo "demo: $program is not built: run \`make demo\`" >&2; exit 1; }
done

# Patience in tenths of a second, for machines that are busy.
PATIENCE=600

work=$(mktemp -d "${TMPDIR:-/tmp}/raystream-demo.XXXXXX")
# As root, Postgres runs as another user, who has to pass through. The key inside is its owner's alone.
chmod 711 "$work"
server= subscriber= writer=

if [ -t 1 ] && [ -z "${NO_COLOR:-}" ]; then
    bold=$(printf '\033[1m') dim=$(printf '\033[2m') plain=$(printf '\033[0m')
else
    bold= dim= plain=
fi

heading() { printf '\n%s%s%s\n' "$bold" "$*" "$plain"; }
say() { printf '%s\n' "$*"; }
fail() { printf '\ndemo: FAILED: %s\n' "$*" >&2; exit 1; }

# Shows a command as a person would type it, then runs it.
show() {
    # The URL is long: the key is shown once.
    printf '%s$ raystream%s' "$dim" "$plain"
    for word in "$@"; do
        case $word in
            "$url") printf ' URL' ;;
            *[\ \{\"]*) printf " '%s'" "$word" ;;
            *) printf ' %s' "$word" ;;
        esac
    done
    printf '\n'
    "$raystream" "$@" 2>&1
}

# The same for a command that is to fail with this status.
show_failure() {
    expected=$1
    shift
    status=0
    show "$@" || status=$?
    [ "$status" = "$expected" ] || fail "exit status $status instead of $expected"
}

# Cuts long lines, at once and not when a buffer is full.
pane() {
    while IFS= read -r line; do
        dots=
        [ "${#line}" -le 112 ] || dots=" ..."
        printf '%s%-6s|%s %.112s%s\n' "$dim" "$1" "$plain" "$line" "$dots"
    done
}

# Waits until a test succeeds.
wait_for() {
    what=$1
    shift
    tenths=0
    until "$@"; do
        tenths=$((tenths + 1))
        [ "$tenths" -lt "$PATIENCE" ] || fail "waited in vain for $what"
        sleep 0.1
    done
}

lines_of() { wc -l <"$1" | tr -d ' '; }
has_lines() { [ "$(lines_of "$1")" -ge "$2" ]; }
has_id() { grep -qs "\"id\":\"$2\"" "$1"; }
is_over() { ! kill -0 "$1" 2>/dev/null; }

# Lines of complete events, without the rest of one that a kill cut off.
ids_of() { sed -n 's/^{"type":"event".*"id":"\([^"]*\)".*}$/\1/p' "$1"; }
last_cursor_of() { sed -n 's/^{"type":"[a-z_]*","cursor":"\([^"]*\)".*}$/\1/p' "$1" | tail -n 1; }

start_server() {
    : >"$work/url"
    "$raystream" dev --data "$work/data" --listen "127.0.0.1:$1" >"$work/url" 2>>"$work/server.log" &
    server=$!
    wait_for "the server" server_is_ready
    url=$(cat "$work/url")
}

server_is_ready() {
    is_over "$server" && { cat "$work/server.log" >&2; fail "the server did not start"; }
    has_lines "$work/url" 1
}

# How many orders are open.
open_orders() {
    "$raystream" call "$url" table.count '{"table":"orders","filter":{"status":"open"}}' | tr -dc '0-9'
}

# Watches the orders into a file; returns when all that are there have come.
watch_orders() {
    "$raystream" sub "$url" orders >"$1" 2>"$work/notes" &
    subscriber=$!
    wait_for "the snapshot" grep -q '"type":"snapshot_end"' "$1"
    snapshot=$(lines_of "$1")
}

has_changes() { has_lines "$1" $((snapshot + $2)); }

stop_subscriber() {
    kill "$subscriber"
    wait "$subscriber" || fail "the subscriber did not end in order"
    subscriber=
}

# Sets `cursor` to the present position in the table.
find_position() {
    watch_orders "$work/position"
    stop_subscriber
    cursor=$(last_cursor_of "$work/position")
}

# Compares what was written with what was received.
judge() {
    written=$(lines_of "$1")
    received=$(lines_of "$2")
    sort "$1" >"$work/written.sorted"
    sort "$2" >"$work/received.sorted"
    missed=$(comm -23 "$work/written.sorted" "$work/received.sorted" | wc -l | tr -d ' ')
    twice=$(uniq -d "$work/received.sorted" | wc -l | tr -d ' ')
    if cmp -s "$1" "$2"; then order="the same"; else order="ANOTHER"; fi
    say "  written   $written"
    say "  received  $received"
    say "  ${bold}missed    $missed${plain}"
    say "  twice     $twice"
    say "  order     $order"
    [ "$missed $twice $order" = "0 0 the same" ] || fail "the subscriber has not what was written"
}

clean_up() {
    status=$?
    trap - EXIT INT TERM
    for process in $writer $subscriber $server; do
        kill "$process" 2>/dev/null || true
    done
    [ -z "$server" ] || wait "$server" 2>/dev/null || true
    rm -rf "$work"
    exit "$status"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

heading "1. A server with a database of its own"
say "\`raystream dev\` makes a key, starts a private Postgres in a folder, and prints its URL. The URL holds the server's"
say "public key: whoever has it knows whom to expect."
start_server 0
port=${url##*:}
say "  $url"

heading "2. Calls"
say "One encrypted round trip each. What is acknowledged is committed."
show call "$url" table.set '{"table":"notes","id":"1","data":{"text":"hello","done":false}}'
show call "$url" table.update '{"table":"notes","id":"1","data":{"done":true}}'
show call "$url" table.get '{"table":"notes","id":"1"}'
say "A guarded write of version 1 is too late by now, and says so:"
show_failure 1 call "$url" table.set '{"table":"notes","id":"1","data":{},"if_version":1}'
say "A server with another key than the URL's gets not a byte of a call:"
other=$("$raystream" keygen --out "$work/other.key" | tail -n 1)
show_failure 2 call "raystream://$other@127.0.0.1:$port" table.get '{"table":"notes","id":"1"}'

heading "3. Three hundred orders"
say "Written one after the other by clients/rust/orders.rs, each committed before the next."
"$orders" "$url" 1 300 >"$work/first"
show call "$url" table.count '{"table":"orders"}'
show call "$url" table.query '{"table":"orders","filter":{"city":"Graz","status":"paid"},"limit":2}'
[ "$(lines_of "$work/first")" = 300 ] || fail "not all orders were written"

heading "4. A live subscription"
say "The subscriber watches orders that are open, while orders are written. Those that are paid do not concern it."
open_before=$(open_orders)
find_position
mkfifo "$work/live"
tee "$work/seen" <"$work/live" | pane sub &
pane=$!
"$raystream" sub "$url" orders --filter '{"status":"open"}' --from "$cursor" >"$work/live" &
subscriber=$!
"$orders" "$url" 301 9 100 | pane write
wait_for "the open ones among them" has_lines "$work/seen" "$(($(open_orders) - open_before))"
stop_subscriber
wait "$pane"

heading "5. A client that is killed"
say "A subscriber gets every change of the table. It is killed (-9) in the middle, orders go on being written, and another"
say "process takes over from the last cursor that was printed."
watch_orders "$work/before"
"$orders" "$url" 1001 300 3 >"$work/written" &
writer=$!
wait_for "the first hundred changes" has_changes "$work/before" 100
kill -9 "$subscriber"
wait "$subscriber" 2>/dev/null || true
say "  killed after $(ids_of "$work/before" | lines_of /dev/stdin) changes; $(lines_of "$work/written") orders are written by now"
wait "$writer" || fail "the orders could not be written"
writer=
cursor=$(last_cursor_of "$work/before")
"$raystream" sub "$url" orders --from "$cursor" >"$work/after" 2>/dev/null &
subscriber=$!
wait_for "the last order" has_id "$work/after" order-01300
stop_subscriber
say "  taken over at cursor $cursor: $(ids_of "$work/after" | lines_of /dev/stdin) changes"
{ ids_of "$work/before"; ids_of "$work/after"; } >"$work/received"
judge "$work/written" "$work/received"

heading "6. A server that is killed"
say "Now the server is killed (-9) under a subscriber and a writer, and started again. Both come back by themselves."
watch_orders "$work/through"
"$orders" "$url" 2001 300 3 >"$work/written" &
writer=$!
wait_for "the first hundred changes" has_changes "$work/through" 100
kill -9 "$server"
wait "$server" 2>/dev/null || true
say "  killed after $(lines_of "$work/written") orders"
start_server "$port"
wait "$writer" || fail "the orders could not be written"
writer=
wait_for "the last order" has_id "$work/through" order-02300
stop_subscriber
sed 's/^/  the subscriber says: /' "$work/notes"
ids_of "$work/through" >"$work/received"
judge "$work/written" "$work/received"

heading "7. Latency"
say "Ten thousand calls of sys.echo, one after the other, each encrypted, over TCP on this machine:"
show ping "$url" --count 10000 --method sys.echo
say "The same over WebSocket, on the same port:"
show ping "raystream+ws://${url#raystream://}" --count 10000 --method sys.echo

heading "8. The end"
postgres=$(head -n 1 "$work/data/postgres/postmaster.pid" 2>/dev/null || true)
kill "$server"
wait "$server" || fail "the server did not stop in order"
server=
if [ -n "$postgres" ]; then
    wait_for "the end of Postgres" is_over "$postgres"
fi
say "The server and its Postgres have stopped in order; the folder is removed. All of it worked."

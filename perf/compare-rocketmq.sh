#!/usr/bin/env bash
# Measures the original RocketMQ 5.3.3 and our broker with the same generator, on the same disk, in one run.
#
#   perf/compare-rocketmq.sh [--dir DIR] [--rounds N] [--seconds N] [--size BYTES] [--in-flight AxB,CxD]
#                            [--out DIR] [--broker BIN] [--perf BIN] [--pair]
#
# Both flush before they acknowledge. With --pair, each is a leader with a slave that it waits for: the original as
# SYNC_FLUSH + SYNC_MASTER with inSyncReplicas=2, whose ack waits for the slave's memory; ours waits for the slave's
# disk. All brokers and the generator share this machine, and both stores of a pair lie on one disk.
#
# They take turns, one round after the other, so that neither gets the quieter half of the hour; all stores lie under
# --dir (a fresh folder on the disk to be measured, default target/compare) and are removed between rounds. Everything
# raw (the generator's JSON and text, all configurations, the machine) stays in perf/records/<date>-rocketmq/ (or
# -rocketmq-pair/); the medians over the rounds and their ratio are printed.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
dir=$root/target/compare rounds=1 seconds=10 size=1024 in_flight=1x1,64x1,8x64 out= broker= perf= pair=
while [ $# -gt 0 ]; do
  case $1 in
    --pair) pair=yes; shift; continue ;;
    --dir) dir=$2 ;;
    --rounds) rounds=$2 ;;
    --seconds) seconds=$2 ;;
    --size) size=$2 ;;
    --in-flight) in_flight=$2 ;;
    --out) out=$2 ;;
    --broker) broker=$2 ;;
    --perf) perf=$2 ;;
    *) sed -n '2,15s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
  esac
  shift 2
done
for tool in java mvn python3; do
  command -v "$tool" >/dev/null || { echo "compare-rocketmq: $tool not found" >&2; exit 2; }
done
if [ -z "$broker" ] || [ -z "$perf" ]; then
  (cd "$root" && cargo build --release -p anchorlog -p anchorlog-perf)
  target=${CARGO_TARGET_DIR:-$root/target}
  : "${broker:=$target/release/anchorlog}" "${perf:=$target/release/anchorlog-perf}"
fi
out=${out:-$root/perf/records/$(date -u +%Y-%m-%d-%H%M)-rocketmq${pair:+-pair}}
mkdir -p "$out" "$dir"
dir=$(cd "$dir" && pwd)
original=127.0.0.1:29876 original_broker_port=20931 original_slave_port=20941
ours=127.0.0.1:29976 ours_slave=127.0.0.1:29977 ours_replicas=127.0.0.1:29978 ours_slave_replicas=127.0.0.1:29979
ours_pids=

tidy_up() {
  "$root/perf/rocketmq/stop" --store "$dir/original" >/dev/null 2>&1 || true
  # shellcheck disable=SC2086 # one word a process
  [ -z "$ours_pids" ] || kill $ours_pids 2>/dev/null || true
}
trap tidy_up EXIT

measure() { # name, name server, round
  "$perf" broker --namesrv "$2" --in-flight "$in_flight" --size "$size" --seconds "$seconds" \
    --json "$out/$1-$3.json" 2>&1 | tee "$out/$1-$3.txt"
}

# A broker that listens need not be in the routes yet, and one that waits for a slave acknowledges nothing without it.
ready() {
  python3 - "$root/broker-bin/tests/clients" "$1" "$pair" <<'PY'
import sys
sys.path.insert(0, sys.argv[1])
import wire
def known():
    try:
        if wire.route(sys.argv[2], wire.TEMPLATE) is None:
            return False
        if sys.argv[3]:
            wire.create_topic(sys.argv[2], "BothAreThere")
        return True
    except (OSError, wire.Refused):
        return False
wire.until(known, 60, f"a route from {sys.argv[2]}, or a slave")
PY
}

start_ours() { # log, broker's arguments...
  local log=$1
  shift
  "$broker" broker "$@" >"$log" 2>&1 &
  ours_pids="$ours_pids $!"
}

{
  date -u +%FT%TZ
  git -C "$root" rev-parse HEAD
  uname -srm
  grep -m1 '^model name' /proc/cpuinfo || true
  echo "$(nproc) cores; load $(cut -d' ' -f1-3 /proc/loadavg)"
  df -hT "$dir" | tail -n 1
  java -version 2>&1 | head -n 1
  echo "perf broker --in-flight $in_flight --size $size --seconds $seconds, $rounds rounds${pair:+, pairs}"
} | tee "$out/machine.txt"

for round in $(seq "$rounds"); do
  rm -rf "$dir/original" "$dir/ours" "$dir/ours-slave"
  "$root/perf/rocketmq/start" --store "$dir/original" --namesrv-port "${original#*:}" \
    --broker-port "$original_broker_port" ${pair:+--slave-port "$original_slave_port"} --flush sync --heap 2g
  cp "$dir/original/broker.conf" "$out/original-broker.conf"
  [ -z "$pair" ] || cp "$dir/original/slave.conf" "$out/original-slave.conf"
  ready "$original"
  measure original "$original" "$round"
  "$root/perf/rocketmq/stop" --store "$dir/original"
  rm -rf "$dir/original"

  if [ -n "$pair" ]; then
    start_ours "$out/ours-$round.log" --store "$dir/ours" --listen "$ours" --role leader --replication sync \
      --replica-id a --replica-listen "$ours_replicas" --replicas "b=$ours_slave+$ours_slave_replicas"
    start_ours "$out/ours-slave-$round.log" --store "$dir/ours-slave" --listen "$ours_slave" --role slave \
      --replica-id b --replica-listen "$ours_slave_replicas" --replicas "a=$ours+$ours_replicas"
  else
    start_ours "$out/ours-$round.log" --store "$dir/ours" --listen "$ours"
  fi
  ready "$ours" || { tail "$out"/ours*-"$round.log" >&2; exit 1; }
  measure ours "$ours" "$round"
  for pid in $ours_pids; do
    kill "$pid"
    wait "$pid" || true
  done
  ours_pids=
  rm -rf "$dir/ours" "$dir/ours-slave"
done

python3 - "$out" "$rounds" "$pair" <<'EOF' | tee "$out/ratio.txt"
# Every number that both files have under the same path: the medians over the rounds, and ours over the original's.
import json, re, statistics, sys

out, rounds = sys.argv[1], int(sys.argv[2])
WANTED = re.compile(r"per_s|rate|p50|p90|p99|mean|median|max|lat|mib", re.IGNORECASE)


def numbers(value, path=""):
    if isinstance(value, dict):
        for key, inner in value.items():
            if key == "series":      # throughput over time: the rounds are not in step
                continue
            yield from numbers(inner, f"{path}.{key}" if path else key)
    elif isinstance(value, list):
        for i, inner in enumerate(value):
            keys = ("name", "label", "in_flight") if isinstance(inner, dict) else ()
            label = next((str(inner[k]) for k in keys if k in inner), i)
            yield from numbers(inner, f"{path}[{label}]")
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        yield path, value


def medians(name):
    found = {}
    for round in range(1, rounds + 1):
        with open(f"{out}/{name}-{round}.json") as f:
            for path, value in numbers(json.load(f)):
                found.setdefault(path, []).append(value)
    return {path: statistics.median(values) for path, values in found.items()}


original, ours = medians("original"), medians("ours")
both = [p for p in original if p in ours and WANTED.search(p.rsplit(".", 1)[-1])]
width = max(map(len, both), default=4)
print(f"{'':{width}}  {'original':>14}  {'ours':>14}  ours/original")
for path in both:
    ratio = f"{ours[path] / original[path]:.2f}" if original[path] else "-"
    print(f"{path:{width}}  {original[path]:14.6g}  {ours[path]:14.6g}  {ratio:>13}")
if sys.argv[3]:
    for row in ("broker/64", "broker/512"):
        path = f"rows[{row}].acks_per_s"
        if original.get(path) and path in ours:
            ratio = ours[path] / original[path]
            print(f"{'ok ' if ratio >= 3 else 'NOT'} pairs, {row}: {ratio:.2f} of the original's acks per second (promised: 3)")
EOF
echo "raw output: $out"

#!/bin/sh
# Does our own disk probe agree with fio? Both measure the same settings in turn, three times; medians should be within 20 %.
#
#   perf/fio-compare.sh [DIR]        DIR lies on the disk in question; default: target/anchorlog-perf
#
# Needs fio and a release build of anchorlog-perf. A busy machine disagrees with itself: run it on a quiet one, or again.
set -eu

dir=${1:-target/anchorlog-perf}
perf=${ANCHORLOG_PERF:-target/release/anchorlog-perf}
seconds=1
rounds=3

command -v fio >/dev/null || { echo "fio is not installed: nothing to compare with" >&2; exit 3; }
[ -x "$perf" ] || { echo "no $perf: cargo build --release -p anchorlog-perf" >&2; exit 3; }
mkdir -p "$dir"
work=$(mktemp -d "$dir/fio-compare.XXXXXX")
trap 'rm -rf "$work"' EXIT INT TERM

# The file is written before it is measured, as ours is.
fio --name=fill --filename="$work/file" --size=256m --rw=write --bs=1m --direct=1 --end_fsync=1 --minimal >/dev/null

# name, block size, depth, durable or not
settings="dsync_4k_qd1,4k,1,dsync dsync_4k_qd8,4k,8,dsync dsync_64k_qd1,64k,1,dsync dsync_64k_qd8,64k,8,dsync
dsync_1m_qd1,1m,1,dsync dsync_1m_qd8,1m,8,dsync write_1m_qd8,1m,8,none"

by_fio() {
    engine=io_uring
    [ "$3" = 1 ] && engine=psync
    sync=""
    [ "$4" = dsync ] && sync="--sync=dsync"
    # Field 49 of the terse form (version 3) is the rate of the writes.
    fio --name="$1" --filename="$work/file" --size=256m --rw=write --bs="$2" --iodepth="$3" --ioengine=$engine \
        --direct=1 $sync --overwrite=1 --time_based --runtime=$seconds --minimal |
        awk -F';' 'NF > 49 { print $49 }'
}

by_us() {
    awk -v name="\"$1\":" '$1 == name { here = 1 } here && $1 == "\"per_s\":" { sub(",", "", $2); print $2; exit }' "$2"
}

round=1
while [ $round -le $rounds ]; do
    "$perf" disk --dir "$work" --probe-seconds $seconds --rounds 1 --json "$work/ours.json" >/dev/null
    for setting in $settings; do
        # shellcheck disable=SC2086
        set -- $(echo "$setting" | tr ',' ' ')
        echo "$1 $(by_us "$1" "$work/ours.json") $(by_fio "$@")" >>"$work/all"
    done
    round=$((round + 1))
done

awk '
    function median(list, values, count, i, j, swap) {
        count = split(list, values, " ")
        for (i = 1; i <= count; i++)
            for (j = i + 1; j <= count; j++)
                if (values[j] + 0 < values[i] + 0) { swap = values[i]; values[i] = values[j]; values[j] = swap }
        return values[int((count + 1) / 2)] + 0
    }
    !($1 in ours) { order[++settings] = $1 }
    { ours[$1] = ours[$1] " " $2; fio[$1] = fio[$1] " " $3 }
    END {
        printf "%-15s %12s %12s %8s\n", "setting", "ours/s", "fio/s", "ratio"
        for (i = 1; i <= settings; i++) {
            name = order[i]
            mine = median(ours[name]); other = median(fio[name])
            ratio = other > 0 ? mine / other : 0
            agrees = ratio >= 0.8 && ratio <= 1.25
            if (!agrees) worst = 1
            printf "%-15s %12.0f %12.0f %8.2f %s\n", name, mine, other, ratio, agrees ? "" : "differs"
        }
        exit worst
    }' "$work/all"

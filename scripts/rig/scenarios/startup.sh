# shellcheck shell=bash disable=SC2034,SC2046,SC2016
# Proof 6: time from the start of l2fwd to the first frame that it forwards, resident memory, size
# of the binary. Under TCG the time is that of an emulated processor.
MACHINE=main

scenario() {
    local offset arrival began resident
    bind_nics 0 1
    offset=$(clock_offset)
    first_frame >"$LOG/first-frame.txt" &
    l2fwd_start -l "$LCORES" $(allow 0 1) -- -p 0x3 -q 1 -T 1
    wait $!
    arrival=$(<"$LOG/first-frame.txt")
    began=$(guest 'cat /tmp/l2fwd.began')
    resident=$(guest 'grep -E "^(VmRSS|RssAnon|RssFile|HugetlbPages)" /proc/$(cat /tmp/l2fwd.pid)/status' | tr -s '\t ' ' ' | paste -sd, )
    l2fwd_stop startup
    awk -v a="$arrival" -v b="$began" -v o="$offset" 'BEGIN { printf "%.2f\n", a - (b + o) }' >"$LOG/seconds.txt"
    say "# startup: first forwarded frame $(<"$LOG/seconds.txt") s after the start ($RIG_ACCEL)"
    say "# startup: $resident"
    strip -o "$LOG/stripped" "$L2FWD"
    say "# startup: binary $(stat -c %s "$L2FWD") bytes, without symbols and line tables $(stat -c %s "$LOG/stripped")"
    rm -f "$LOG/stripped"
    # The clocks' offset is uncertain by half of a way there and back: what took next to no time may seem to
    # have taken less than none.
    check 'startup: the first frame comes within 10 s' awk -v s="$(<"$LOG/seconds.txt")" 'BEGIN { exit !(s > -0.5 && s < 10) }'
}

# clock_offset: what must be added to the guest's clock to get the host's, in seconds; of several
# tries the one with the shortest way there and back.
clock_offset() {
    local try before there after
    for try in 1 2 3 4 5; do
        before=$EPOCHREALTIME
        there=$(guest 'date +%s.%N')
        after=$EPOCHREALTIME
        printf '%s %s %s\n' "$before" "$there" "$after"
    done | awk '{ way = $3 - $1; if (NR == 1 || way < best) { best = way; offset = ($1 + $3) / 2 - $2 } } END { printf "%.6f\n", offset }'
}

# first_frame: sends a frame each few milliseconds until one comes back; prints when that was.
first_frame() {
    "$WIRE" first-frame --port "$RUN/n0,$(nic_mac 0)" --port "$RUN/n1,$(nic_mac 1)" --timeout-s 60
}

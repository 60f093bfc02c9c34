#!/usr/bin/env bash
# What is too long for every push: run by `./dev night [PART]...`, one part after the other; a part that fails does not keep
# the next from running. What each said is kept in target/night/DATE-COMMIT/PART.log, with one line for all in summary.txt.
#
#   prove   all pairs of core crash points, 1,000,000 seeds            (./dev prove --nightly)
#   fuzz    every fuzz target for four minutes                         (./dev fuzz --seconds 240)
#   full    all tests, those that take long too                        (./dev test --full)
#   kills   the server killed at every crash point there is, four times over: 590 kills on real QEMU
#   power   25 times as many images of power cuts as every push looks at: more than 5,000
#   soak    200 whole cycles on a real guest                           (./dev soak --cycles 200)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# How often the kills go round; each round meets every point once.
kill_rounds=4
# The factor of the images of power cuts.
power_factor=25

all=(prove fuzz full kills power soak)

real_test() { cargo nextest run -p flipside-cli --profile full --run-ignored all --no-capture -E "test($1)"; }

run_part() {
    case $1 in
        prove) ./dev prove --nightly ;;
        fuzz) ./dev fuzz --seconds 240 ;;
        full) ./dev test --full ;;
        kills) for _ in $(seq "$kill_rounds"); do real_test kill_at_every_point || return; done ;;
        power) FLIPSIDE_POWER_CUTS=$power_factor real_test a_power_cut_at_any_flush ;;
        soak) ./dev soak --cycles 200 ;;
    esac
}

parts=("$@")
[ ${#parts[@]} -gt 0 ] || parts=("${all[@]}")
for part in "${parts[@]}"; do
    [[ " ${all[*]} " == *" $part "* ]] || { echo "night: unknown part '$part'; there are: ${all[*]}" >&2; exit 2; }
done

out=target/night/$(date -u +%F-%H%M)-$(git rev-parse --short HEAD)
mkdir -p "$out"
failed=0
for part in "${parts[@]}"; do
    began=$SECONDS outcome=passed
    echo "night: $part, into $out/$part.log"
    run_part "$part" >"$out/$part.log" 2>&1 || { outcome=FAILED; failed=1; }
    # The parts tell their figures in lines with this word; otherwise the last line says it.
    figures=$(grep -a 'FIGURES\|images of power cuts' "$out/$part.log" | tail -4 | tr '\n' ';' || true)
    printf '%-6s %6s s  %s  %s\n' "$part" $((SECONDS - began)) "$outcome" "${figures:-$(tail -n 1 "$out/$part.log")}" |
        tee -a "$out/summary.txt"
done
exit $failed

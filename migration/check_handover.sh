#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Checks the model of the hand-over with spin: right as it is, found wrong in each broken variant.
# usage: check_handover.sh MODEL. Exit code 77: skipped, with the reason.
set -eu

model=$(realpath "$1")
command -v spin >/dev/null || { echo "spin is not installed"; exit 77; }
command -v cc >/dev/null || { echo "there is no C compiler"; exit 77; }
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

# Prints spin's verdict on the model with these definitions: the number of errors.
errors() {
    rm -f pan pan.*
    # The C preprocessor of spin sees the definition; pan explores all states.
    spin $1 -a "$model" >spin.log 2>&1 || { cat spin.log; exit 1; }
    cc -O2 -w -DNFAIR=3 -o pan pan.c
    ./pan -a -f -m200000 >pan.log 2>&1 || { cat pan.log; exit 1; }
    if grep -q "max search depth too small" pan.log; then echo "depth too small"; exit 1; fi
    sed -n 's/.*errors: \([0-9]*\).*/\1/p' pan.log
}

[ "$(errors "")" = 0 ] || { echo "the hand-over can go wrong:"; cat pan.log; exit 1; }
echo "never two, never none: $(sed -n 's/^ *\([0-9]*\) states, stored.*/\1/p' pan.log) states"
for bug in BUG_GUESS BUG_NO_RECORD BUG_EARLY_ABORT; do
    [ "$(errors "-D$bug")" != 0 ] || { echo "the model does not find $bug"; exit 1; }
    echo "$bug is found: $(grep -m1 -E 'assertion violated|acceptance cycle' pan.log)"
done

#!/usr/bin/env bash
# Soaks greenlets and then virtual threads for so many seconds each (30 if not said), or repeats the
# one round of a seed:
#   tests/soak.sh [SECONDS [SEED]]
set -euo pipefail
cd "$(dirname "$0")/.."
export GREENLOOP_SOAK_SECONDS="${1:-30}"
[ $# -lt 2 ] || export GREENLOOP_SEED="$2"
exec cargo test --release --locked --test soak --test soak_threads

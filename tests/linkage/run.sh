#!/usr/bin/env bash
# Links programs that say greenloop::interpose!() in every way that may matter, and runs them. A few
# minutes, nearly all of them building.
#
#     tests/linkage/run.sh [ways]
set -euo pipefail
cd "$(dirname "$0")/../.."
export CARGO_TERM_COLOR=never CARGO_INCREMENTAL=0
host=$(rustc -vV | sed -n 's/^host: //p')
lib=$(rustc --print target-libdir)
[ $# -gt 0 ] || set -- plain fat thin strip gnu-ld dynamic static

for way; do
    echo "==> $way"
    expected=active
    crates=(--bins --lib)
    flags=()
    set_for_way=()
    case $way in
    plain) ;;
    fat | thin) set_for_way=(CARGO_PROFILE_RELEASE_LTO=$way) ;;
    strip) set_for_way=(CARGO_PROFILE_RELEASE_STRIP=symbols CARGO_PROFILE_RELEASE_PANIC=abort) ;;
    # The other linker than rustc's own, where there are two.
    gnu-ld) [ "$host" != x86_64-unknown-linux-gnu ] || flags=(-Clinker-features=-lld) ;;
    dynamic) flags=(-Cprefer-dynamic "-Clink-arg=-Wl,-rpath,$lib") ;;
    static)
        flags=(-Ctarget-feature=+crt-static)
        expected=static
        crates=(--bins)
        ;;
    *) echo "no such way: $way" >&2; exit 1 ;;
    esac
    # Where the linker alone decides, what it is given need not be fast.
    case $way in
    plain | fat | thin) ;;
    *) set_for_way+=(CARGO_PROFILE_RELEASE_OPT_LEVEL=0) ;;
    esac
    # With --target, build scripts are not linked that way.
    where=(--target "$host" --target-dir "target/linkage/$way")
    built=target/linkage/$way/$host/release
    # Much of this one is built already.
    [ "$way" != plain ] || where=(--target-dir target) built=target/release
    env "${set_for_way[@]}" RUSTFLAGS="${flags[*]}" \
        cargo build --release --locked -p greenloop-linkage "${crates[@]}" "${where[@]}"
    "$built/hooked" "$expected"
    [ "$way" = static ] || "$built/host" "$built/libgreenloop_linkage.so"
done

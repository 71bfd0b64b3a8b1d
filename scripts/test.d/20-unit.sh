# shellcheck shell=bash
# formatting, clippy, unit and documentation tests, a check for aarch64, address sanitizer on nightly

part_unit() {
    local arm=aarch64-unknown-linux-gnu cases=256
    need_rust
    keep_hugepages 64
    step rustfmt cargo fmt --all --check
    step clippy cargo clippy --workspace --all-targets -- -D warnings
    # Where models of the memory stack have their millions of steps in the memory part, a quarter of the
    # usual 256 cases will do for a build without optimisation.
    if also_runs memory; then cases=64; fi
    step_cargo 'unit and documentation tests' env PROPTEST_CASES="$cases" cargo test --workspace --no-fail-fast

    if has_target "$arm" || { command -v rustup >/dev/null && run rustup target add "$arm"; }; then
        step 'aarch64 compiles' cargo check --workspace --target "$arm"
    else
        without 'aarch64 compiles' "no standard library for $arm. Run: rustup target add $arm"
    fi

    if has_nightly; then
        address_sanitizer
        step_cargo 'address sanitizer' "${ASAN[@]}"
    else
        without 'address sanitizer' "$NIGHTLY_WANTED"
    fi
    give_hugepages_back
}

has_target() { [[ -d $(rustc --print sysroot)/lib/rustlib/$1/lib ]]; }

# address_sanitizer: sets ASAN. The target is named so that build scripts and macros stay without the sanitizer.
# An eighth of the usual 256 cases: each takes several times as long as without it.
address_sanitizer() {
    ASAN=(env ASAN_OPTIONS=allocator_may_return_null=1 PROPTEST_CASES=32
        RUSTFLAGS="$(with_flags -Zsanitizer=address)" CARGO_TARGET_DIR="$BUILD/asan"
        cargo +nightly test --workspace --lib --no-fail-fast --target "$(rustc -vV | sed -n 's/^host: //p')")
}

# shellcheck shell=bash
# formatting, clippy, unit and documentation tests, a check for aarch64, address sanitizer on nightly

part_unit() {
    local arm=aarch64-unknown-linux-gnu here
    need_rust
    keep_hugepages 64
    step rustfmt cargo fmt --all --check
    step clippy cargo clippy --workspace --all-targets -- -D warnings
    step_cargo 'unit and documentation tests' cargo test --workspace --no-fail-fast

    if has_target "$arm" || { command -v rustup >/dev/null && run rustup target add "$arm"; }; then
        step 'aarch64 compiles' cargo check --workspace --target "$arm"
    else
        without 'aarch64 compiles' "no standard library for $arm. Run: rustup target add $arm"
    fi

    # The target is named so that build scripts and macros stay without the sanitizer. A quarter of the
    # usual 256 cases: each takes several times as long as without it.
    here=$(rustc -vV | sed -n 's/^host: //p')
    if cargo +nightly --version >/dev/null 2>&1; then
        step_cargo 'address sanitizer' \
            env ASAN_OPTIONS=allocator_may_return_null=1 PROPTEST_CASES=64 \
            RUSTFLAGS="$(with_flags -Zsanitizer=address)" CARGO_TARGET_DIR="$BUILD/asan" \
            cargo +nightly test --workspace --lib --no-fail-fast --target "$here"
    else
        without 'address sanitizer' 'no nightly compiler. Run: rustup toolchain install nightly --profile minimal'
    fi
    give_hugepages_back
}

has_target() { [[ -d $(rustc --print sysroot)/lib/rustlib/$1/lib ]]; }

# shellcheck shell=bash
# The Rust toolchain. Source it after common.sh.

# What is installed where there is none: clippy of a later one may complain about what this accepts.
RUST_TOOLCHAIN=1.95.0
RUSTUP_PYPI=1.29.0.1

# need_rust: cargo, rustc, clippy, rustfmt and a linker on the PATH, as new as Cargo.toml asks for;
# what is missing is installed. Debian 12's own rustc (1.63) is too old for edition 2024, so this
# takes rustup: the one that is there, Debian 13's package, or the one on PyPI.
need_rust() {
    local wanted
    wanted=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' "$REPO/Cargo.toml")
    case :$PATH: in
        *":${CARGO_HOME:-$HOME/.cargo}/bin:"*) ;;
        *) PATH=${CARGO_HOME:-$HOME/.cargo}/bin:$PATH ;;
    esac
    if [[ -d $CACHE/rustup/bin ]]; then PATH=$PATH:$CACHE/rustup/bin; fi
    if ! command -v cc >/dev/null; then need_package gcc libc6-dev; fi # rustc links with it
    if ! _rust_is_new_enough "$wanted"; then
        say "Rust: wanted $wanted or newer, found $(rustc --version 2>/dev/null || echo none): installing $RUST_TOOLCHAIN"
        command -v rustup >/dev/null || _install_rustup
        run rustup toolchain install "$RUST_TOOLCHAIN" --profile minimal --component clippy --component rustfmt --no-self-update ||
            die "wanted the Rust toolchain $RUST_TOOLCHAIN, found that rustup can't install it (its messages stand above). Run: rustup toolchain install $RUST_TOOLCHAIN"
        export RUSTUP_TOOLCHAIN=$RUST_TOOLCHAIN
        hash -r
    fi
    _rust_is_new_enough "$wanted" ||
        die "wanted Rust $wanted or newer, found $(rustc --version 2>&1) at $(command -v rustc). Run: rustup default $RUST_TOOLCHAIN"
    if ! cargo clippy --version >/dev/null 2>&1 || ! cargo fmt --version >/dev/null 2>&1; then
        run rustup component add clippy rustfmt ||
            die "wanted clippy and rustfmt beside $(rustc --version), found no rustup to add them. Install them as you installed Rust"
    fi
}

_rust_is_new_enough() { # VERSION
    local found
    found=$(rustc --version 2>/dev/null | awk '{ print $2 }')
    cargo --version >/dev/null 2>&1 && [[ -n $found ]] &&
        printf '%s\n' "$1" "$found" | sort --version-sort --check=quiet
}

_install_rustup() {
    local venv=$CACHE/rustup
    if [[ $(apt-cache policy rustup 2>/dev/null) == *'Candidate: '[0-9]* ]]; then
        need_package rustup
        return
    fi
    need_package python3-venv
    if ! { [[ -x $venv/bin/pip ]] || run python3 -m venv "$venv"; } ||
        ! run "$venv/bin/pip" install --quiet "rustup==$RUSTUP_PYPI"; then
        die "wanted rustup from PyPI in $venv, found that this fails (see above). Install Rust $RUST_TOOLCHAIN by hand, then: $0"
    fi
    PATH=$venv/bin:$PATH
}

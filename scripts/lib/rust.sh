# shellcheck shell=bash
# The Rust toolchain. Source it after common.sh.

# What is installed where there is none: clippy of a later one may complain about what this accepts.
RUST_TOOLCHAIN=1.95.0

# need_rust: cargo, rustc, clippy, rustfmt and a linker on the PATH, as new as Cargo.toml asks for;
# what is missing is installed. Debian 12's own rustc (1.63) is too old for edition 2024, so this
# takes rustup: the one that is there, Debian 13's package, or the installer of the Rust project.
need_rust() {
    local wanted
    wanted=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' "$REPO/Cargo.toml")
    case :$PATH: in
        *":${CARGO_HOME:-$HOME/.cargo}/bin:"*) ;;
        *) PATH=${CARGO_HOME:-$HOME/.cargo}/bin:$PATH ;;
    esac
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
    local from file
    if [[ $(apt-cache policy rustup 2>/dev/null) == *'Candidate: '[0-9]* ]]; then
        need_package rustup
        return
    fi
    # What rustup's manual gives for an installation by hand; the same variable as in rustup itself.
    from=${RUSTUP_UPDATE_ROOT:-https://static.rust-lang.org/rustup}/dist/$(uname -m)-unknown-linux-gnu/rustup-init
    need_command curl
    need_package ca-certificates
    file=$(mktemp -d)/rustup-init
    if run curl --fail --silent --show-error --location --retry 3 -o "$file" "$from" &&
        run curl --fail --silent --show-error --location --retry 3 -o "$file.sha256" "$from.sha256" &&
        (cd "${file%/*}" && awk '{ print $1 "  rustup-init" }' rustup-init.sha256 | run sha256sum --check --quiet) &&
        chmod +x "$file" && run "$file" -y -q --no-modify-path --default-toolchain none; then
        rm -r "${file%/*}"
    else
        rm -r "${file%/*}"
        die "wanted to install rustup from $from, found that this fails (see above). Install Rust by hand (https://rustup.rs), then: $0"
    fi
}

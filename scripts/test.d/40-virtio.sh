# shellcheck shell=bash
# ten million frames between two ports of the virtio driver, on devices in process

part_virtio() {
    need_rust
    step_cargo 'ten million frames' \
        cargo test --release -p packetboat-virtio --test net -- --ignored --nocapture ten_million
}

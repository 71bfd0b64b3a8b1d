//! virtio-net poll-mode driver.
#![forbid(unsafe_code)]

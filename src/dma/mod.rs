//! dma.

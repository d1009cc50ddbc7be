"""Operations of H-Net with kernels of their own: routing, compaction, smoothing with expansion, and the SSD scan."""

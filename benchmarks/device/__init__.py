"""What a GPU or a TPU computes and how fast, checked in minutes (docs/devices.md)."""

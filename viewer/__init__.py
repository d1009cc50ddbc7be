"""A local page where one sees text being cut: `python -m viewer RUNS…` (docs/viewer.md)."""

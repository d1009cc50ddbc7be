"""Numbers from the published code, carried as data."""

from pathlib import Path

GOLDENS = Path(__file__).parent

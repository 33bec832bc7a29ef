"""What several tests are made with."""

from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
"""The checkout."""

"""The worlds: bases, tasks, and the images that they are made of."""

from pathlib import Path

WEIGHTS = Path(__file__).parent / "weights"  # of the shipped bases, with their cards

"""Numbers by which inputs are laid out for APasco's network, apart from it: reading them loads no network."""

from __future__ import annotations

MOTION_FRAMES = 2
"""Frames before a clip that its motion modules attend to."""
REGIONS = ("full", "face", "lip")
"""What is outside the face, the face around the lips, and the lips; in the order of weights and masks."""

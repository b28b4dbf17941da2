"""Radiance fields of head and torso, their cameras and grids, and how pixels come of them."""

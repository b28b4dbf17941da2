"""Talking Portrait: one portrait, one voice, one talking video."""

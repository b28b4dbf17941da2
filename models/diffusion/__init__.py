"""What AniPortrait and APasco share: Stable Diffusion 1.5's UNet for pictures and videos, reference attention, motion.

Parameters carry the names of the published files (those of diffusers), so state dicts load without a rename.
"""

"""AniTalker: stage 1 (motion encoder and warping renderer) and stage 2 (speech to motion by diffusion)."""

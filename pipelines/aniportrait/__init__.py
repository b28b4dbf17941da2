"""AniPortrait, stage by stage: pictures and sound in, head motion, then video by diffusion."""

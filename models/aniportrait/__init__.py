"""AniPortrait's own networks (Wei, Yang and Wang 2024): pose guider, audio to mesh, audio to head pose."""

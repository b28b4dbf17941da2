"""AniTalker, stage by stage: a portrait and speech to motion codes, motion codes to frames."""

"""APasco and Hallo: a portrait and speech become frames, clip by clip."""

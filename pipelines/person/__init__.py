"""A video of one person, prepared: crops, landmarks, sound. What systems that are trained for a person start from."""

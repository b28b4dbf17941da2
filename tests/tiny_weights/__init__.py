"""Generated weights of the published structure, only smaller, in the published names: for tests without downloads."""

"""Actions: the closed list of what may be done to the world, as frozen data. Pure."""

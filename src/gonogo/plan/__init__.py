"""Plans: the difference of desired and observed as ordered actions. Pure."""

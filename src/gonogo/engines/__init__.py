"""Engine adapters: pure translations from (spec, placement) to a command line, and from an engine's output to facts."""

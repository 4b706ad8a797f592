"""Programs that run an engine's own library as a process of its own. Nothing of gonogo imports them."""

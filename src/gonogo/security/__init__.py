"""Keys, certificates, canonical JSON and the event chain."""

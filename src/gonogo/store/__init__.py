"""Tables, named queries and append-only events."""

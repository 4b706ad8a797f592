"""The relay: a thin hop in the path of streamed requests, which continues an answer whose replica dies."""

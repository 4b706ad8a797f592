"""Control's HTTP API on a unix socket."""

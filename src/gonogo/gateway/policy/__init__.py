"""Policy servers: who may, and to which revision. Envoy asks them over ext_proc on a unix socket."""

"""Policy servers: who may, with what body, and to which revision. Envoy asks them over ext_authz on a unix socket."""

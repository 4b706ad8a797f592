"""The gRPC server beside Envoy: turns each call into an HTTP request to the local front, and its answer back."""

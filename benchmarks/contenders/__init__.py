"""What benchmarks/gateway.py puts side by side: the upstream itself, our gateway and its peers, as real processes."""

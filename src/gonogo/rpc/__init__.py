"""The gRPC interface as files: `proto/`, and what is generated from it (`v1/`). Imports nothing of gonogo's."""

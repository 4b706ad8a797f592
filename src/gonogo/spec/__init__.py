"""Desired state: `Spec`, `Revision`, and how to read them. Pure."""

from gonogo.spec.model import Expect, Gateway, Probe, Quantization, Replicas, Revision, Spec

__all__ = ["Expect", "Gateway", "Probe", "Quantization", "Replicas", "Revision", "Spec"]

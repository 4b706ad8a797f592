"""Desired state: `Spec`, `Revision`, and how to read them. Pure."""

from gonogo.spec.model import Expect, Gateway, Quantization, Revision, Spec
from gonogo.spec.recipe_probes import Probe
from gonogo.spec.replicas import Replicas

__all__ = ["Expect", "Gateway", "Probe", "Quantization", "Replicas", "Revision", "Spec"]

"""Desired state: `Spec`, `Revision`, and how to read them. Pure."""

from gonogo.spec.model import Expect, Gateway, Quantization, Replicas, Revision, Spec
from gonogo.spec.recipe_probes import Probe

__all__ = ["Expect", "Gateway", "Probe", "Quantization", "Replicas", "Revision", "Spec"]

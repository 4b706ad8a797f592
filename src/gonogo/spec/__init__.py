"""Desired state: `Spec`, `Revision`, and how to read them. Pure."""

from gonogo.spec.gateway import Gateway
from gonogo.spec.model import Expect, Quantization, Revision, Spec
from gonogo.spec.recipe_probes import Probe
from gonogo.spec.replicas import Replicas

__all__ = ["Expect", "Gateway", "Probe", "Quantization", "Replicas", "Revision", "Spec"]

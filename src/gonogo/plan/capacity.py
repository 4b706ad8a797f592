"""The capacity plan, where its readers look for it. It lives beside the engines, since checks ask it too."""

from gonogo.engines.capacity import (
    Ask,
    Capacity,
    Fit,
    Model,
    Predicate,
    Question,
    capacity,
    capacity_of,
    estimate_gpu_memory,
    model_of,
    serving_of,
)

__all__ = [
    "Ask",
    "Capacity",
    "Fit",
    "Model",
    "Predicate",
    "Question",
    "capacity",
    "capacity_of",
    "estimate_gpu_memory",
    "model_of",
    "serving_of",
]

"""gonogo deploys language-model services for agents and proves that they work."""

__version__ = "0.1.0"

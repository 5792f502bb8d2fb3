"""Convert the base model to LitGPT's own checkpoint format, once."""

import argparse
import shutil
from pathlib import Path

from litgpt.scripts.convert_hf_checkpoint import convert_hf_checkpoint

LITGPT_NAME = "SmolLM2-135M-Instruct"
"""The architecture is looked up by this name, which must be the folder's, too."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path, help="folder with safetensors")
    parser.add_argument("parent", type=Path, help="the checkpoint becomes a folder in here")
    options = parser.parse_args()
    target = options.parent.resolve() / LITGPT_NAME
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    for file in options.model.iterdir():
        (target / file.name).symlink_to(file.resolve())
    convert_hf_checkpoint(target)


if __name__ == "__main__":
    main()

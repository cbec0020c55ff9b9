"""A Hugging Face encoder: exported with two inputs, halved, and held against the dense model.

    python examples/text_encoder.py encoder      # a folder for the files

The encoder is a small BERT with random weights, so that nothing is downloaded: how far its embeddings move
says nothing of a trained one. For yours, put `AutoModel.from_pretrained(NAME)` and its tokenizer where it
says "yours". Wants transformers and torch.
"""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

import numpy as np
import torch
from transformers import BertConfig, BertModel

import onnxprune
from onnxprune.evaluate import evaluate

ROOT = Path(__file__).resolve().parent.parent
WORDS, LENGTH = 1000, 24


class Encoder(torch.nn.Module):
    """Sentences as the mean of their tokens."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        config = BertConfig(
            **{"vocab_size": WORDS, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4},
            **{"intermediate_size": 256, "max_position_embeddings": LENGTH},
        )
        self.bert = BertModel(config, add_pooling_layer=False)  # yours: AutoModel.from_pretrained(NAME)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        tokens = self.bert(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        mask = attention_mask.unsqueeze(-1).to(tokens.dtype)
        return (tokens * mask).sum(1) / mask.sum(1)


def tokens() -> dict[str, np.ndarray]:
    """The sentences of our pages as padded numbers of words; yours: the tokenizer of your model."""
    texts = [path.read_text("utf-8") for path in sorted((ROOT / "docs").glob("*.md"))]
    lines = [line.split() for text in texts for line in text.split(". ") if 4 < len(line.split()) <= LENGTH]
    common = Counter(word for line in lines for word in line).most_common(WORDS - 2)
    numbers = {word: number for number, (word, _) in enumerate(common, start=2)}  # 0: padding, 1: unknown
    ids = np.zeros((len(lines), LENGTH), np.int64)
    for row, line in enumerate(lines):
        ids[row, : len(line)] = [numbers.get(word, 1) for word in line]
    return {"input_ids": ids, "attention_mask": (ids > 0).astype(np.int64)}


def main(folder: Path) -> dict[str, tuple[int, float]]:
    """Make the files in `folder`; bytes, and the relative error of embeddings of new sentences."""
    folder.mkdir(parents=True, exist_ok=True)
    dense, fast, small = (folder / f"{name}.onnx" for name in ("dense", "fast", "small"))
    data = tokens()
    half = len(data["input_ids"]) // 2
    seen = {name: array[:half] for name, array in data.items()}
    new = {name: array[half:] for name, array in data.items()}
    example = tuple(torch.from_numpy(array[:2]) for array in data.values())
    torch.onnx.export(
        *(Encoder().eval(), example, dense),
        input_names=list(data),
        output_names=["sentence"],
        dynamo=True,
        dynamic_shapes=({0: "batch"}, {0: "batch"}),
        external_data=False,
        verbose=False,
    )
    # Heads and neurons go, then single weights of what is left; the embedding table is no layer and stays.
    onnxprune.compress(dense, seen, macs=0.7, output=fast)
    onnxprune.compress(dense, seen, macs=0.7, ratio=0.5, output=small)
    return {
        path.stem: (path.stat().st_size, evaluate(path, new, reference=dense).values["relative_error"])
        for path in (dense, fast, small)
    }


if __name__ == "__main__":
    for name, (size, error) in main(Path(sys.argv[1] if len(sys.argv) > 1 else "encoder")).items():
        print(f"{name:6} {size:9,} bytes  relative error {error:.3f}")

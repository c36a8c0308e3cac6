"""Which attack family a request belongs to: a second small forest, asked only where a request is not allowed.

For each family one group of trees answers "this one, rather than any other client?", legitimate clients included. The family
with the highest answer is named if that is at least `SURE`; where none fits, the answer is `UNKNOWN`. So an attack that
training never saw is told from a known one by no family claiming it, instead of being given the nearest name.

`family.onnx`: features float32[N, F] -> probability float32[N, families]; the names stand in the file's metadata.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import numpy.typing as npt

from classifier.errors import BundleError

FAMILY_FILE = "family.onnx"
UNKNOWN = "unknown"
SURE = 0.5
"""Least probability at which a family is named."""
NAMES_KEY = "families"


class Families:
    """A loaded `family.onnx`. `names` are the families that it can name."""

    def __init__(self, model: bytes) -> None:
        """Load the graph. Raises BundleError if it is no graph of ours."""
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        try:
            self._session: Any = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
            names = json.loads(self._session.get_modelmeta().custom_metadata_map[NAMES_KEY])
            self.names: tuple[str, ...] = tuple(str(name) for name in names)
        except Exception as error:  # ONNX Runtime raises many kinds
            raise BundleError(
                f"{FAMILY_FILE} cannot be used ({type(error).__name__}); train the bundle again"
            ) from error

    def probabilities(self, rows: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Return float32[n, families] for feature rows float32[n, F] with the columns that the model takes."""
        answers: npt.NDArray[np.float32] = self._session.run(None, {"features": rows})[0]
        return answers

    def of(self, rows: npt.NDArray[np.float32]) -> list[str]:
        """Return the most likely family of each row, `UNKNOWN` where none fits."""
        if not len(rows):
            return []
        answers = self.probabilities(rows)
        best = answers.argmax(axis=1)
        return [
            self.names[place] if answers[row, place] >= SURE else UNKNOWN for row, place in enumerate(best.tolist())
        ]

"""What a run of the oracle has measured so far, on disk: a killed run goes on where it was, to the same numbers."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from course_lib import models
from course_lib.feature_maps import Scores


class Pieces:
    """One file for each piece of the images, written anew after every layer.

    Args:
        folder: where; None keeps nothing.
        origin: what decides the numbers besides the images; a folder with another origin is refused.
    """

    def __init__(self, folder: str | Path | None, origin: dict):
        self.folder, self.origin = folder and Path(folder), origin
        self._header: dict = {}

    def open(self, number: int, images: Tensor, labels: Tensor) -> Scores:
        """What is there of this piece: {layer: (N, C)}, empty to begin with.

        Raises:
            ValueError: a damaged file, or one of another network, of other images or other arguments.
        """
        if self.folder is None:
            return {}
        data = models.fingerprint({"images": images, "labels": labels})
        self._header = {"origin": self.origin | {"images and labels": data}}
        path = self._path(number)
        if not path.exists():
            return {}
        found, header = models.read_safetensors(path)
        self._refuse_another(path, header.get("origin", {}))
        return found

    def save(self, number: int, piece: Scores) -> None:
        """Write what there is of this piece; the file is whole or not there."""
        if self.folder is not None:
            models.write_safetensors(self._path(number), piece, self._header)

    def _path(self, number: int) -> Path:
        return self.folder / f"piece_{number:05d}.safetensors"

    def _refuse_another(self, path: Path, origin: dict) -> None:
        different = [key for key, value in self._header["origin"].items() if origin.get(key) != value]
        if different:
            raise ValueError(
                f"{path} belongs to another run of the oracle: it differs in {', '.join(different)}. Give the same "
                "network, images and arguments to go on with it, or another folder to begin anew."
            )

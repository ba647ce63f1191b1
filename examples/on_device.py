"""Recommend on a user's own device, from a folder that `metarec export` wrote: with JAX and NumPy, and no metarec_jax.

python on_device.py FOLDER --rate "Toy Story (1995)=5" --rate "id:50=3" [-k 10] [--json]

Only the folder is read, nothing is written and no network is used: the ratings stay on the device.
"""

import argparse
import hashlib
import json
from pathlib import Path

import jax
import jax.export
import numpy as np


def read_tensors(data: bytes) -> dict[str, np.ndarray]:
    """The arrays of a safetensors file: the length of a JSON header, the header, the numbers."""
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    kinds = {"F32": np.float32, "I32": np.int32, "BF16": jax.numpy.bfloat16}
    found = {}
    for name, entry in header.items():
        if name != "__metadata__":
            start, end = (8 + size + offset for offset in entry["data_offsets"])
            found[name] = np.frombuffer(data[start:end], kinds[entry["dtype"]]).reshape(entry["shape"])
    return found


class Device:
    """An exported model, which adapts to a history and scores the catalogue."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        items = json.loads(self._read("items.json"))
        self.ids, self.titles = items["ids"], items["titles"]
        tensors = read_tensors(self._read("tensors.safetensors"))
        self._tensors = [jax.device_put(tensors[name]) for name in self.manifest["arguments"][:-3]]
        self._programs = {}

    def _read(self, name: str) -> bytes:
        data = (self.folder / name).read_bytes()
        if hashlib.sha256(data).hexdigest() != self.manifest["sha256"][name]:
            raise SystemExit(f"{self.folder / name} is not the file that was exported: copy the folder again")
        return data

    def row(self, item: str) -> int:
        """Look up the row of an item by title, or by "id:" and its id."""
        names = self.ids if item.startswith("id:") else self.titles
        wanted = item.removeprefix("id:")
        if wanted not in names:
            raise SystemExit(f"there is no item {item!r}")
        return names.index(wanted)

    def scores(self, history: list[tuple[int, float]]) -> np.ndarray:
        """The score of every item, after adapting to rows and ratings, oldest first."""
        latest = history[::-1][: self.manifest["most_ratings"]]
        length = next(n for n in self.manifest["support_lengths"] if n >= len(latest))
        item, rating, mask = np.zeros(length, np.int32), np.zeros(length, np.float32), np.zeros(length, np.float32)
        for place, (row, value) in enumerate(latest):
            item[place], rating[place], mask[place] = row, value, 1
        if length not in self._programs:
            self._programs[length] = jax.export.deserialize(bytearray(self._read(f"scores-{length}.jax")))
        return np.array(self._programs[length].call(*self._tensors, item, rating, mask))


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rate", action="append", default=[], metavar="TITLE=RATING", help="oldest first")
    parser.add_argument("-k", type=int, default=10)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    device = Device(arguments.folder)
    history = []
    for text in arguments.rate:
        title, _, rating = text.rpartition("=")
        history.append((device.row(title.strip()), float(rating)))
    scores = device.scores(history)
    scores[[row for row, _ in history]] = -np.inf
    best = np.argsort(-scores, kind="stable")[: arguments.k].tolist()
    found = [{"id": device.ids[row], "title": device.titles[row], "score": float(scores[row])} for row in best]
    if arguments.json:
        print(json.dumps(found, ensure_ascii=False))
    else:
        for item in found:
            print(f"{item['score']:.2f}  {item['title']}")


if __name__ == "__main__":
    main()

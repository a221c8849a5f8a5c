"""The record of a run's thoughts at some held-out sequences: schema, writing, reading.

docs/records.md describes every field. Neither torch nor the run's model is needed to read one.
"""

from __future__ import annotations

import base64
import binascii
import gzip
import io
import json
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from toyqs.files import ROW, Refusal, json_object, read_json, write_bytes
from toyqs.installation import program

VERSION = 1
NAME = "thoughts.json.gz"  # of the file in a run's folder
MOST_BYTES = 2**26  # of an unpacked file, so that a damaged one fills no memory
LEVEL = 6  # of gzip: at 9 a file is 1 % smaller and takes five times as long
NOT_FINITE = -(2**15)  # stands in a stored number for NaN and infinities

Array: TypeAlias = np.ndarray[Any, Any]


class Kind(NamedTuple):
    """The axes of an array, a letter each, and what its numbers are."""

    axes: str  # N sequences, P positions, T of them think, K thoughts, L symbols, Z numbers, C classes
    of: str  # token, symbol, position, class: an index; flag: 0 or 1; number; share: 0 to 1


ARRAYS = {
    "inputs": Kind("NP", "token"),
    "positions": Kind("NT", "position"),
    "truth": Kind("NT", "token"),
    "counted": Kind("NT", "flag"),
    "symbols": Kind("NTKL", "symbol"),
    "vectors": Kind("NTKLZ", "number"),
    "nearest": Kind("NTKL", "symbol"),
    "log_prob": Kind("NTK", "number"),
    "reward": Kind("NTK", "number"),
    "semantic": Kind("NTK", "number"),
    "syntactic": Kind("NTK", "number"),
    "predictive": Kind("NTK", "number"),
    "coherence": Kind("NTK", "number"),
    "attention": Kind("NTK", "share"),
    "log_q": Kind("NTK", "number"),
    "log_q_none": Kind("NT", "number"),
    "log_q_shuffled": Kind("NTK", "number"),
    "predicted": Kind("NTKC", "token"),
    "predicted_p": Kind("NTKC", "share"),
    "predicted_none": Kind("NTC", "token"),
    "predicted_p_none": Kind("NTC", "share"),
}
FEATURE = Kind("NT", "class")
ALWAYS = ("inputs", "positions", "truth", "counted", "log_q", "log_q_shuffled", "predicted_p")
STORED = {"uint8": "u1", "uint16": "<u2", "int16": "<i2"}  # dtype -> that of the bytes


class Feature(NamedTuple):
    """A value that the task computes on the way to its answer."""

    values: Array  # (N, T), an index into `classes`; their number where there is no such value
    classes: list[str]


class Evaluation(NamedTuple):
    """The thoughts at some of a record's sequences after a step of the training."""

    step: int
    rows: list[int]  # which of the record's sequences, from 0
    arrays: dict[str, Array]  # as those of the record, but for `inputs`, which stay the same


class Record(NamedTuple):
    """A run's thoughts at N held-out sequences, and what was predicted with them."""

    task: str
    held_out: int  # number of held-out sequences that the run was evaluated on
    sequences: list[int]  # which of them these are, from 0
    tokens: list[str]  # names
    symbols: list[str] | None  # names; None: the thoughts' symbols are vectors without any
    arrays: dict[str, Array]  # by the names of ARRAYS; what does not exist for a run is absent
    features: dict[str, Feature]
    evaluations: list[Evaluation]  # by their steps, with thoughts_every


def at(record: Record, evaluation: Evaluation) -> Record:
    """Return the record of one of its evaluations in training: of its sequences, without others in training.

    Features are left out where other positions thought then.
    """
    rows = evaluation.rows
    arrays = {"inputs": record.arrays["inputs"][rows], **evaluation.arrays}
    alike = np.array_equal(arrays["positions"], record.arrays["positions"][rows])
    features = {name: x._replace(values=x.values[rows]) for name, x in record.features.items() if alike}
    sequences = [record.sequences[row] for row in rows]
    return record._replace(sequences=sequences, arrays=arrays, features=features, evaluations=[])


def write(folder: Path | str, record: Record) -> None:
    """Write a run's record into its folder: whole or not at all, and equal records as equal bytes."""
    write_bytes(Path(folder) / NAME, packed(record))


def packed(record: Record) -> bytes:
    """Return the bytes of a record's file."""
    content = record._asdict() | {
        "arrays": _stored(record.arrays),
        "features": {
            name: {"classes": feature.classes, "values": _array(feature.values, FEATURE.of)}
            for name, feature in record.features.items()
        },
        "evaluations": [x._asdict() | {"arrays": _stored(x.arrays)} for x in record.evaluations],
    }
    text = json.dumps({"version": VERSION, **content}, allow_nan=False, separators=(",", ":"))
    return gzip.compress(text.encode("ascii"), LEVEL, mtime=0)


def _stored(arrays: Mapping[str, Array]) -> dict[str, Any]:
    return {name: _array(arrays[name], kind.of) for name, kind in ARRAYS.items() if name in arrays}


def _array(values: Array, of: str) -> dict[str, Any]:
    """Return an array as it is stored, in the smallest type that holds it."""
    scale: float = 1
    if of == "number":
        finite = np.isfinite(values)
        scale = float(np.abs(values[finite]).max(initial=0.0)) / (2**15 - 1) or 1
        values = np.where(finite, np.rint(np.where(finite, values, 0.0) / scale), NOT_FINITE)
    elif of == "share":
        scale = 1 / 255
        values = np.rint(values / scale)
    name = "int16" if of == "number" else "uint8" if values.max(initial=0) < 2**8 else "uint16"
    data = base64.b64encode(values.astype(STORED[name]).tobytes()).decode("ascii")
    return {"dtype": name, "shape": list(values.shape), "scale": scale, "data": data}


def read(folder: Path | str) -> Record:
    """Read the record in a run's folder.

    Returns:
        Its arrays of numbers and shares are float64, NaN where a number was not finite; all others int64.

    Raises:
        Refusal: one line: there is none, and how to make it; it is damaged, or of a newer version.
        NoRecord: there cannot be one.
    """
    path = Path(folder) / NAME
    try:
        content = path.read_bytes()
    except OSError as error:
        raise _missing(Path(folder)) from error
    try:
        with gzip.open(io.BytesIO(content)) as file:
            text = file.read(MOST_BYTES + 1)
        if len(text) > MOST_BYTES:
            raise ValueError(f"of more than {MOST_BYTES} bytes")
        return _record(json_object(text, NAME))
    except _Newer as error:
        raise Refusal(f"{path}: {error}") from error
    except (OSError, EOFError, zlib.error, ValueError, KeyError, TypeError, AttributeError) as error:
        raise Refusal(f"{path}: is damaged; {_how(folder)} makes it again") from error


class _Newer(ValueError):
    """A record that this version cannot read."""


def _how(folder: Path | str) -> str:
    return f"{program('toyqs.answers')} record {folder}"


class NoRecord(Refusal):
    """There can be no record of a run: it has no thoughts, or diverged."""


def _missing(folder: Path) -> Refusal:
    """Return a refusal that says why a folder holds no record, and how to make one where that is possible."""
    try:
        settings, row = read_json(folder / "config.json"), read_json(folder / ROW)
    except (OSError, ValueError):
        return Refusal(f"{folder}: is not the folder of a finished run; give one, runs/KEY")
    if not settings.get("use_reasoner", True) or settings.get("max_reasoning_len") == 0:
        return NoRecord(f"{folder}: this run has no thoughts; give one that thinks")
    if row.get("diverged_at") is not None:
        return NoRecord(
            f"{folder}: this run diverged, so there is no record of its thoughts; give another one"
        )
    return Refusal(f"{folder}: holds no record of thoughts ({NAME}); make it: {_how(folder)}")


def _record(content: Mapping[str, Any]) -> Record:
    """Return the record that a file holds; raise ValueError, KeyError or TypeError where it is none."""
    version = content["version"]
    if not isinstance(version, int) or version < 1:
        raise ValueError("no version")
    if version > VERSION:
        raise _Newer(f"has version {version}, and this toyqs reads up to {VERSION}; use a newer one")
    tokens, symbols = _names(content["tokens"]), content["symbols"]
    symbols = None if symbols is None else _names(symbols)
    most = {"token": len(tokens) - 1, "symbol": len(symbols or ()), "flag": 1}
    if not isinstance(content["task"], str):
        raise TypeError("task")
    sequences = _whole(content["sequences"])
    sizes = {"N": len(sequences)}
    arrays = _arrays(content["arrays"], most, sizes, ALWAYS)
    if not arrays["counted"].any():
        raise ValueError("no position counts")
    features = {
        str(name): Feature(
            _values(x["values"], FEATURE, {"class": len(_names(x["classes"]))}, sizes), x["classes"]
        )
        for name, x in content["features"].items()
    }
    evaluations = [_evaluation(x, most, sizes) for x in content["evaluations"]]
    (held_out,) = _whole([content["held_out"]])
    return Record(content["task"], held_out, sequences, tokens, symbols, arrays, features, evaluations)


def _evaluation(content: Mapping[str, Any], most: Mapping[str, int], sizes: Mapping[str, int]) -> Evaluation:
    rows = _whole(content["rows"])
    if any(row >= sizes["N"] for row in rows):
        raise ValueError("rows")
    (step,) = _whole([content["step"]])
    own_sizes, always = {"N": len(rows), "P": sizes["P"]}, [name for name in ALWAYS if name != "inputs"]
    return Evaluation(step, rows, _arrays(content["arrays"], most, own_sizes, always))


def _arrays(
    content: Mapping[str, Any], most: Mapping[str, int], sizes: dict[str, int], always: Sequence[str]
) -> dict[str, Array]:
    """Return the arrays by name; the lengths of the axes, by their letters, are added to `sizes`.

    A KeyError names one that there always is, and is not.
    """
    if missing := [name for name in always if name not in content]:
        raise KeyError(missing[0])
    found = {}
    for name, kind in ARRAYS.items():
        if name in content:
            found[name] = _values(content[name], kind, {**most, "position": sizes.get("P", 0) - 1}, sizes)
    return found


def _values(content: Mapping[str, Any], kind: Kind, most: Mapping[str, int], sizes: dict[str, int]) -> Array:
    """Return one array; ValueError where its size or an index in it is not what the others say."""
    shape, scale = _whole(content["shape"]), content["scale"]
    if len(shape) != len(kind.axes) or isinstance(scale, bool) or not 0 < float(scale) < float("inf"):
        raise ValueError("shape or scale")
    if any(sizes.setdefault(axis, size) != size for axis, size in zip(kind.axes, shape, strict=True)):
        raise ValueError("shape")
    try:
        data = base64.b64decode(content["data"], validate=True)
    except binascii.Error as error:
        raise ValueError("data") from error
    values = np.frombuffer(data, STORED[content["dtype"]]).reshape(shape)
    if kind.of == "number":
        return np.where(values == NOT_FINITE, np.nan, values * float(scale))
    if kind.of == "share":
        return values * float(scale)
    if values.size and not 0 <= values.min() <= values.max() <= most[kind.of]:
        raise ValueError("index")
    return values.astype(np.int64)


def _whole(values: Sequence[Any]) -> list[int]:
    """Return a list of numbers that are whole and not negative; ValueError where it is none."""
    if not isinstance(values, list) or not all(type(x) is int and x >= 0 for x in values):
        raise ValueError("no whole numbers")
    return values


def _names(values: Any) -> list[str]:
    """Return a list of names; ValueError where it is none."""
    if not isinstance(values, list) or not all(isinstance(x, str) for x in values):
        raise ValueError("no names")
    return values

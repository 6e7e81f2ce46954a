"""BigEarthNet as an LMDB, as written by rico-hdl: all patches in one file.

The key is the name of a patch (or ``<patch>_reference_map``), the value a safetensors blob with the
bands in their own resolution and type. https://github.com/kai-tub/rico-hdl
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple
from weakref import WeakValueDictionary

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from fusionlab.data.bigearthnet.names import Sensor, parse
from fusionlab.data.bigearthnet.sources import DTYPES, REFERENCE_MAP, SHAPES, Kind, Source, expect
from fusionlab.data.damage import reason
from fusionlab.errors import InputError

_MAP_TENSOR = "Data"
"""The name of the one tensor of a reference map."""

_DTYPES: dict[str, np.dtype[Any]] = {"U16": np.dtype("<u2"), "F32": np.dtype("<f4")}


class Entry(NamedTuple):
    """Where a tensor lies in a blob.

    Attributes:
        dtype: of its values.
        shape: of the tensor.
        number: of its values.
        start: first byte, counted from the end of the blob's header.
        end: the byte after its last.
    """

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    number: int
    start: int
    end: int


class Environment:
    """An open LMDB, one per file and process; opened anew after a fork.

    LMDB must not be used across a fork, nor be opened twice in a process.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._process = -1
        self._environment: Any = None
        self._transaction: Any = None

    def transaction(self) -> Any:  # noqa: ANN401  # lmdb has no types
        """A read transaction that stays open: what it reads stays valid as long."""
        if self._process != os.getpid():
            self._open()
        return self._transaction

    def close(self) -> None:
        """Closes it in this process; the next transaction opens it again."""
        if self._environment is not None:
            self._environment.close()
        self._environment = self._transaction = None
        self._process = -1

    def _open(self) -> None:
        try:
            import lmdb
        except ImportError as error:
            raise InputError(
                f"{self.path} is an LMDB, and the package `lmdb` to read it is not installed: "
                "pip install 'fusionlab[bigearthnet]', or read the GeoTIFFs instead (`root`)."
            ) from error
        if not (self.path / "data.mdb").is_file():
            raise InputError(
                f"{self.path} is not an LMDB folder: it holds no data.mdb. Name with `lmdb` the "
                "folder that rico-hdl wrote."
            )
        self.close()  # what is left of the process that this one was forked from
        try:
            self._environment = lmdb.open(
                str(self.path), readonly=True, lock=False, meminit=False, max_readers=1
            )
            self._transaction = self._environment.begin(buffers=True)
        except lmdb.Error as error:
            self.close()
            raise InputError(f"Cannot open the LMDB {self.path}: {reason(error)}.") from error
        self._process = os.getpid()


_environments: WeakValueDictionary[Path, Environment] = WeakValueDictionary()


class RicoDatabase(Source):
    """Patches in an LMDB of rico-hdl.

    It is opened when something is first read, in every process by itself, so that it may be
    pickled and forked.

    Args:
        path: the folder of the LMDB.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._environment: Environment | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "_environment": None}

    def close(self) -> None:
        """Closes the database in this process, for all that read it; reading opens it again."""
        if self._environment is not None:
            self._environment.close()

    def present(self, kind: Kind, names: pa.StringArray) -> NDArray[np.bool_]:
        """Looks the keys up, which touches no pixels."""
        get = self._get()
        tail = f"_{REFERENCE_MAP}" if kind == REFERENCE_MAP else ""
        keys = ((name + tail).encode() if name else None for name in names.to_pylist())
        return np.array([key is not None and get(key) is not None for key in keys], bool)

    def read(self, sensor: Sensor, name: str, bands: Sequence[str]) -> list[NDArray[Any]]:
        """Views of the database's own memory, not to be written to."""
        tensors, blob, base = self._blob(name)
        pixels = []
        for band in bands:
            tensor = tensors.get(band)
            if tensor is None or base + tensor.end > len(blob):
                raise self._no_band(name, band, tensors)
            if tensor.shape != SHAPES[band] or tensor.dtype != DTYPES[band]:
                expect(band, tensor.shape, tensor.dtype, self._key(name))
            values = np.frombuffer(blob, tensor.dtype, tensor.number, base + tensor.start)
            pixels.append(values.reshape(tensor.shape))
        return pixels

    def reference_map(self, name: str) -> NDArray[np.uint16]:
        """A view of the database's own memory."""
        key = f"{name}_{REFERENCE_MAP}"
        self.check(REFERENCE_MAP, name, [REFERENCE_MAP])
        tensors, blob, base = self._blob(key)
        tensor = tensors[_MAP_TENSOR]
        codes = np.frombuffer(blob, tensor.dtype, tensor.number, base + tensor.start)
        return codes.reshape(tensor.shape)

    def check(self, kind: Kind, name: str, bands: Sequence[str]) -> None:
        """Reads the header of the blob."""
        key = f"{name}_{REFERENCE_MAP}" if kind == REFERENCE_MAP else name
        tensors, blob, base = self._blob(key)
        for band in bands:
            tensor = tensors.get(_MAP_TENSOR if kind == REFERENCE_MAP else band)
            if tensor is None or base + tensor.end > len(blob):
                raise self._no_band(key, band, tensors)
            expect(band, tensor.shape, tensor.dtype, self._key(key))

    def names(self, sensor: Sensor) -> list[str]:
        """All keys that are names of patches of a sensor."""
        self._get()
        return [name for name in self._keys() if parse(name, sensor=sensor)]

    def where(self, kind: Kind) -> str:
        """The folder of the LMDB."""
        return str(self.path)

    def _get(self) -> Any:  # noqa: ANN401
        if self._environment is None:
            key = self.path.resolve()
            self._environment = _environments.get(key)
            if self._environment is None:
                self._environment = _environments[key] = Environment(self.path)
        return self._environment.transaction().get

    def _keys(self) -> Iterator[str]:
        assert self._environment is not None
        cursor = self._environment.transaction().cursor()
        yield from (bytes(key).decode() for key in cursor.iternext(values=False))

    def _blob(self, name: str) -> tuple[dict[str, Entry], memoryview, int]:
        blob = self._get()(name.encode())
        if blob is None:
            raise InputError(
                f"The LMDB {self.path} has no key {name!r}. Complete it, or set allow_missing: "
                "true to go on without that patch's modality."
            )
        base = 8 + int.from_bytes(blob[:8], "little")
        try:
            return _header(bytes(blob[8:base])), blob, base
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(
                f"{self._key(name)} is no safetensors blob of uint16 or float32 ({error!r})."
            ) from error

    def _no_band(self, name: str, band: str, tensors: dict[str, Entry]) -> InputError:
        return InputError(
            f"{self._key(name)} has no whole tensor {band!r}: it holds {sorted(tensors)}. Write "
            "it anew, or choose bands that it has with `modalities`."
        )

    def _key(self, name: str) -> str:
        return f"The key {name!r} of the LMDB {self.path}"


@lru_cache(maxsize=64)
def _header(content: bytes) -> dict[str, Entry]:
    """What a blob's header says; nearly all patches share one."""
    tensors = {}
    for name, entry in json.loads(content).items():
        if name == "__metadata__":
            continue
        dtype, shape = _DTYPES[entry["dtype"]], tuple(int(n) for n in entry["shape"])
        start, end = (int(n) for n in entry["data_offsets"])
        number = int(np.prod(shape))
        if end - start != number * dtype.itemsize:
            raise ValueError(f"{name} of shape {shape} in {end - start} bytes")
        tensors[name] = Entry(dtype, shape, number, start, end)
    return tensors

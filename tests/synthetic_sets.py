"""Small synthetic BigEarthNets, and what tells whether two are the same."""

import hashlib
from pathlib import Path

from fusionlab.data.synthetic.bigearthnet import BigEarthNetConfig

CONFIG = BigEarthNetConfig(train=24, validation=5, test=7, snow_cloud=6, tiles=5, unlabelled=0.5)
TINY = BigEarthNetConfig(train=3, validation=0, test=2, snow_cloud=1, tiles=2)


def digests(folder: Path) -> dict[str, str]:
    """Of every file but the lock of an LMDB, which holds process numbers."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "lock.mdb"
    }

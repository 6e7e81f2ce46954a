"""The batch contract and the schema: what data modules deliver and what models may rely on."""

from fusionlab.types.batch import (
    IGNORE_INDEX,
    Auxiliary,
    Batch,
    Grid,
    Output,
    Placement,
    Raw,
    TimeSeries,
    Tokens,
    kind_of,
)
from fusionlab.types.modality import Kind, Modality
from fusionlab.types.schema import PIXELWISE, REGRESSION, Schema, Target, class_indices
from fusionlab.types.soft_targets import is_soft, known_shares, largest_share, soft_target

__all__ = [
    "IGNORE_INDEX",
    "PIXELWISE",
    "REGRESSION",
    "Auxiliary",
    "Batch",
    "Grid",
    "Kind",
    "Modality",
    "Output",
    "Placement",
    "Raw",
    "Schema",
    "Target",
    "TimeSeries",
    "Tokens",
    "class_indices",
    "is_soft",
    "kind_of",
    "known_shares",
    "largest_share",
    "soft_target",
]

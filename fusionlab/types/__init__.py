"""The batch contract and the schema: what data modules deliver and what models may rely on."""

from fusionlab.types.batch import (
    IGNORE_INDEX,
    Auxiliary,
    Batch,
    Grid,
    Output,
    Placement,
    TimeSeries,
)
from fusionlab.types.modality import Modality
from fusionlab.types.schema import PIXELWISE, REGRESSION, Schema, Target, class_indices

__all__ = [
    "IGNORE_INDEX",
    "PIXELWISE",
    "REGRESSION",
    "Auxiliary",
    "Batch",
    "Grid",
    "Modality",
    "Output",
    "Placement",
    "Schema",
    "Target",
    "TimeSeries",
    "class_indices",
]

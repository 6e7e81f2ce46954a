"""What tasks share whose answers are maps: bringing them onto the grid of the target."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor
from torchmetrics import Metric

from fusionlab.models.align import AlignmentFactory, CentreCrop, centre_offset
from fusionlab.tasks.base import ModelFactory
from fusionlab.tasks.supervised import SupervisedTask
from fusionlab.types import Batch, Grid, Schema


class AlignedTask(SupervisedTask):
    """A task whose answers, where they are maps, lie on the grid of the target.

    Args:
        schema: what the data deliver.
        model: an expert or a fused model.
        metrics: makes the metric of an evaluation.
        alignment: how the model's answers come onto the grid of the target, where that is another:
            a Sentinel-2 expert answers at 10 m, with context around what the labels cover.
        options: as for `SupervisedTask`.
    """

    def __init__(
        self,
        schema: Schema,
        model: ModelFactory,
        *,
        metrics: Callable[[Schema], Metric],
        alignment: AlignmentFactory = CentreCrop,
        **options: Any,  # noqa: ANN401
    ) -> None:
        super().__init__(schema, model, metrics=metrics, **options)
        self.alignment = alignment()

    def on_target(self, values: Tensor, batch: Batch) -> Tensor:
        """Maps ``(B, C, h, w)`` on the grid of the target, or of the raster to predict."""
        return self.aligned(values, batch)

    def aligned(self, maps: Tensor, batch: Batch) -> Tensor:
        """Any maps ``(B, C, h, w)`` of the model on the grid that is asked for."""
        if "placement" in batch:
            placement = batch["placement"]
            rows, columns = placement["shape"][0].tolist()
            grid = Grid(rows, columns, float(placement["gsd"][0]))
        else:
            rows, columns = batch["target"].shape[-2:]
            grid = Grid(rows, columns, self._target_gsd())
        name = self.model.reference
        offset = centre_offset(batch, name, pixel=self._image_gsd(), gsd=self.model.gsd)
        aligned: Tensor = self.alignment(maps, grid, gsd=self.model.gsd, name=name, offset=offset)
        return aligned

    def _target_gsd(self) -> float:
        """Pixel size of the target: as the data say, or that of the images it belongs to."""
        return self.data_schema.gsd or self._image_gsd()

    def _image_gsd(self) -> float:
        """Pixel size of the images on whose grid the model answers."""
        images = self.data_schema.modalities.get(self.model.reference)
        return images.gsd if images is not None else self.model.gsd

    def weights_on_target(self, weights: Tensor, batch: Batch) -> Tensor:
        """Maps of a modality's share; one that is the same everywhere stays as it is."""
        return weights if weights.shape[-1] == 1 else self.aligned(weights, batch)

    def shares_on_target(self, shares: Mapping[str, Tensor], batch: Batch) -> dict[str, Tensor]:
        """Maps of the modalities' shares ``(B, h, w)`` on the grid that is asked for."""
        return {name: self.aligned(share[:, None], batch)[:, 0] for name, share in shares.items()}

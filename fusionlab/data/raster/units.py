"""Values of new rasters against those that the model was trained on: are they in the same unit?"""

from __future__ import annotations

import logging

import numpy as np
from numpy.typing import NDArray

from fusionlab.data.raster.crops import Handles
from fusionlab.data.raster.dataset import Recipe
from fusionlab.data.raster.files import metres
from fusionlab.data.raster.layers import Layers
from fusionlab.types import Modality

log = logging.getLogger(__name__)

_FILES, _IMAGE, _SERIES = 3, 256, 32  # how many files to look into, and pixels of a crop's side
_FACTOR = 100
"""Values all so many times smaller, or larger, than those of training have another unit."""


def warn_of_other_units(name: str, layers: Layers, modality: Modality, recipe: Recipe) -> None:
    """Warns once of a modality whose values are impossible in the unit of training.

    Looks at the middle of its first files, as `scale` and `offset` leave them. Where no statistics
    were published for the modality there is nothing to tell by.

    Args:
        name: of the modality.
        layers: its files.
        modality: what the model was trained with.
        recipe: how values are rescaled.
    """
    if not any(modality.mean):
        return
    handles, found = Handles(), []
    size = _SERIES if modality.temporal else _IMAGE
    for file in layers.grid[:_FILES]:
        left, bottom, right, top = file.bounds
        values, mask, _ = layers.read(
            handles,
            ((left + right) / 2, (bottom + top) / 2),
            size=size,
            gsd=modality.gsd / metres(file.crs),
            where=f"data.rasters.{name}",
            first=file.path,
            upsampling=recipe.upsampling,
        )
        physical = recipe.rescale(values, mask).astype(np.float64)
        physical *= np.asarray(modality.scale)[:, None, None]
        physical[~mask] = np.nan
        found.append(physical.swapaxes(0, 1).reshape(len(modality.bands), -1))
    reason = impossible(np.concatenate(found, axis=1), modality)
    if reason is not None:
        log.warning(
            "data.rasters.%s: %s, unlike those that the model was trained on: mean %s, standard "
            "deviation %s of the bands %s. Are they in another unit, such as linear power for dB, "
            "or reflectance in 0..1 for 0..10,000? Bring them to that of training, with "
            "data.scale.%s and data.offset.%s where that is enough.",
            name,
            reason,
            [float(f"{value:.4g}") for value in modality.mean],
            [float(f"{value:.4g}") for value in modality.std],
            list(modality.bands),
            name,
            name,
        )


def impossible(values: NDArray[np.float64], modality: Modality) -> str | None:
    """Why values cannot be in the unit of training; None if they can, as far as one sees.

    Zeros say nothing: undeclared nodata is often zero.

    Args:
        values: ``(bands, N)`` in physical units, NaN where not observed.
        modality: with the statistics of training.
    """
    values = np.where(np.isfinite(values) & (values != 0), values, np.nan)
    seen: NDArray[np.bool_] = np.any(np.isfinite(values), axis=1)
    if not seen.any():
        return None
    values = values[seen]
    bands = [band for band, one in zip(modality.bands, seen, strict=True) if one]
    mean, std = (np.asarray(of)[seen] for of in (modality.mean, modality.std))
    low, high = np.nanmin(values, axis=1), np.nanmax(values, axis=1)
    # Linear power instead of dB, or the reverse, in some of the bands or in all.
    for sign, what, absent in ((-1, "negative", low > 0), (1, "positive", high < 0)):
        signed = np.where(np.all(sign * mean > 0), True, sign * mean > std)
        wrong: NDArray[np.bool_] = absent & signed
        if wrong.any():
            named = [band for band, one in zip(bands, wrong, strict=True) if one]
            between = f"between {low[wrong].min():.4g} and {high[wrong].max():.4g}"
            return f"the values of {named} lie {between}, none of them {what}"
    # Of most of what is seen, so that a few odd pixels neither cause a warning nor hide one.
    least, most = np.nanpercentile(np.abs(values), (1, 99), axis=1)
    usual = np.abs(mean) + std
    between = f"the values lie between {low.min():.4g} and {high.max():.4g}"
    if (most * _FACTOR < usual).all():
        return f"{between}, smaller by a factor of {_FACTOR} or more in every band"
    if (least > usual * _FACTOR).all():
        return f"{between}, larger by a factor of {_FACTOR} or more in every band"
    return None

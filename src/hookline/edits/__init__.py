"""Edits as values: `hookline.edit(model, "encoder.layer.3", output=hookline.edits.zero())`.

An edit is a frozen dataclass that can be printed, compared, saved and loaded. `first >> second` applies both. Some
edits have parameters that an optimizer trains.
"""

from hookline.edits.arithmetic import add, clamp, noise, replace, scale, swap, zero
from hookline.edits.directions import low_rank, project_on, project_out, vector
from hookline.edits.edit import Edit, Spot, apply, chain
from hookline.edits.edit_document import load, save
from hookline.edits.generation import generation_step
from hookline.edits.places import at
from hookline.edits.recorded import mean, patch, resample

__all__ = [
    "Edit",
    "Spot",
    "add",
    "apply",
    "at",
    "chain",
    "clamp",
    "generation_step",
    "load",
    "low_rank",
    "mean",
    "noise",
    "patch",
    "project_on",
    "project_out",
    "replace",
    "resample",
    "save",
    "scale",
    "swap",
    "vector",
    "zero",
]

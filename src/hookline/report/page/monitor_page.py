"""The page of a training run: its series over steps, as a heat map of layers and as lines, with alerts as marks."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from hookline.messages import counted
from hookline.monitoring.monitored import Monitor
from hookline.report.page.build import document, number

MOST = 1_500_000  # numbers of a page, some 10 MB
FEWEST = 32  # points of a series


def monitor_document(monitors: Monitor | Mapping[str, Monitor], *, refresh: int = 0) -> dict[str, Any]:
    """The document of the page of a run, or of several runs by name, which are drawn over one another.

    `refresh`: seconds after which the page loads itself again; 0 for never.
    """
    runs = {"": monitors} if isinstance(monitors, Monitor) else dict(monitors)
    first = next(iter(runs.values()))
    points = points_for(sum(len(run) for run in runs.values()), max(run.pyramid.count for run in runs.values()))
    cut = points < max(run.pyramid.count for run in runs.values())
    return document(
        "monitor",
        title=first.model,
        summary="\n".join(f"{name}: {run.summary}" if name else run.summary for name, run in runs.items()),
        runs=[run_part(name, run, points) for name, run in runs.items()],
        refresh=refresh,
        notes=[f"This page has {counted(points, 'point')} of each series; the folder and to_pandas() have more."] * cut,
    )


def points_for(series: int, points: int) -> int:
    """How many points of each series a page has."""
    while points > FEWEST and 3 * series * points > MOST:
        points = -(-points // 2)
    return points


def run_part(name: str, run: Monitor, points: int) -> dict[str, Any]:
    """One run of a page. A series is [path, of, figure, first point, mean, low, high], by number of the path."""
    pyramid = run.pyramid
    size = max(1, -(-pyramid.count // points)) if points else 1
    used = slice(0, pyramid.count)
    low, mean, high = (joined(table[used].float(), size, way) for table, way in tables(pyramid))
    paths = {path: place for place, path in enumerate(run.paths)}
    steps = [
        [int(part[0, 0]), int(part[-1, 1])]
        for part in (torch.split(pyramid.steps[used], size) if pyramid.count else [])
    ]
    series = [
        [paths[path], of, figure, *(row(table[:, place]) for table in (mean, low, high))]
        for place, (path, of, figure) in enumerate(run.names)
    ]
    alerts = [
        {
            "step": alert.evidence.get("step"),
            "path": alert.path,
            "of": alert.evidence.get("of"),
            "figure": alert.evidence.get("figure"),
            "level": alert.severity,
            "text": alert.text,
            "rule": alert.rule,
            "advice": alert.advice,
        }
        for alert in run.alerts
    ]
    return {"name": name, "paths": [*paths], "steps": steps, "series": series, "alerts": alerts}


def tables(pyramid: Any) -> Sequence[tuple[Tensor, str]]:
    """The tables of a pyramid, each with the way its points are joined."""
    return ((pyramid.low, "low"), (pyramid.mean, "mean"), (pyramid.high, "high"))


def joined(table: Tensor, size: int, way: str) -> Tensor:
    """Points that follow on one another as one: the smallest, mean or largest; NaN is left out."""
    if size == 1 or not len(table):
        return table
    parts = torch.split(table, size)
    if way == "mean":
        return torch.stack([part.nanmean(0) for part in parts])
    edge = math.inf if way == "low" else -math.inf
    found = []
    for part in parts:
        filled = part.nan_to_num(nan=edge, posinf=math.inf, neginf=-math.inf)
        found.append(filled.amin(0) if way == "low" else filled.amax(0))
        found[-1][part.isnan().all(0)] = math.nan
    return torch.stack(found)


def row(values: Tensor) -> list[Any]:
    """Numbers of a page with four digits; NaN is null."""
    return [None if math.isnan(value) else number(float(f"{value:.4g}")) for value in values.tolist()]

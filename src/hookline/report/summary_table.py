"""A run as a table of the model's layers, with their outputs and parameters."""

from collections.abc import Mapping

from hookline.messages import figure
from hookline.model.console import Group, Text
from hookline.record.record import Run
from hookline.report.fit import Fitted
from hookline.report.text import call_name, tensors_text

FIGURES = ("mean", "std", "absmax")


def summary_table(run: Run, parameters: Mapping[str, int], totals: str) -> Group:
    """A table of a run's calls, indented by depth, with the parameters of each module at its first call and the totals
    below."""
    figures = FIGURES if any(info.stats for call in run for info in call.outputs) else ()
    head = ("layer", "class", "output", "parameters", *figures)
    table = Fitted(head, [head.index(name) for name in reversed(figures)], left=range(3), wrapped=(1, 2))
    counted: set[str] = set()
    for call in run:
        cells = [call.type, f"raised {call.error}" if call.error else tensors_text(call.outputs)]
        cells.append("(again)" if call.path in counted else f"{parameters[call.path]:,}")
        counted.add(call.path)
        stats = call.outputs[0].stats if call.outputs else None
        cells += [figure(getattr(stats, name)) if stats else "" for name in figures]
        table.add_row("  " * call.depth + call_name(call), *cells, style="red" if call.error else None)
    return Group(table, Text(totals))

"""How each result is shown: the one place where results find their renderers."""

import os
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from hookline.capturing.captured import Capture
from hookline.capturing.compared import CaptureDiff
from hookline.capturing.totals import Totals
from hookline.checking.finding import Findings
from hookline.compare.difference import Diff
from hookline.monitoring.monitored import Monitor
from hookline.profiling.profiled import Profile
from hookline.record.record import Run
from hookline.report.capture_table import capture_html, capture_table
from hookline.report.comparison_table import comparison_html, comparison_table
from hookline.report.diff_table import diff_html, diff_table
from hookline.report.heat import sweep_html, sweep_table
from hookline.report.html import findings_html, hooks_html, run_html
from hookline.report.monitor_table import monitor_html, monitor_table
from hookline.report.page import inline, write_page, write_table_page
from hookline.report.page.capture_page import capture_page
from hookline.report.page.diff_page import diff_document
from hookline.report.page.monitor_page import monitor_document
from hookline.report.page.profile_page import profile_document
from hookline.report.page.run_page import findings_document, run_document
from hookline.report.page.totals_page import totals_page
from hookline.report.profile_table import profile_html, profile_table
from hookline.report.summary_table import summary_table
from hookline.report.text import findings_table, hooks_table, render, run_table
from hookline.report.totals_table import totals_html, totals_table
from hookline.report.trace import run_events, span_events, write_collapsed, write_trace
from hookline.result import Renderer, Result
from hookline.sweeping.swept import Sweep
from hookline.tools.hooks import Hooks

Write: TypeAlias = Callable[[Any, str | os.PathLike[str]], None]


def of_calls(
    table: Callable[[Any], Any],
    html: Callable[[Any], str],
    document: Callable[[Any], Mapping[str, Any]],
    *,
    width: int = 140,
    tables: Mapping[str, Callable[..., Any]] | None = None,
    **files: Write,
) -> Renderer[Any]:
    """A renderer for a result whose page is a tree of calls; a notebook shows the page."""
    return Renderer(
        table=table,
        text=lambda result: render(table(result), width=width),
        html=lambda result: inline(document(result), html(result)),
        files={"page": lambda result, file: write_page(file, document(result), html(result)), **files},
        tables=tables or {},
    )


def of_rows(
    table: Callable[[Any], Any], html: Callable[[Any], str], page: Callable[[Any], str] | None = None
) -> Renderer[Any]:
    """A renderer for a result whose page is a table, or what `page` makes; a notebook shows the table."""
    whole = page or html
    return Renderer(
        table=table,
        text=lambda result: render(table(result)),
        html=html,
        files={"page": lambda result, file: write_table_page(file, result.noun, result.model, whole(result))},
    )


RENDERERS: Mapping[type[Result[Any]], Renderer[Any]] = {
    Run: of_calls(
        run_table,
        run_html,
        run_document,
        tables={"summary": summary_table},
        perfetto=lambda run, file: write_trace(file, run_events(run), run.model),
    ),
    Findings: of_calls(findings_table, findings_html, findings_document),
    Diff: of_calls(diff_table, diff_html, diff_document),
    Profile: of_calls(
        profile_table,
        profile_html,
        profile_document,
        width=170,
        perfetto=lambda profile, file: write_trace(file, span_events(profile.spans), profile.model),
        collapsed=lambda profile, file: write_collapsed(file, profile),
    ),
    Sweep: of_rows(sweep_table, sweep_html),
    Hooks: of_rows(hooks_table, hooks_html),
    Capture: of_rows(capture_table, capture_html, capture_page),
    Monitor: of_calls(
        monitor_table,
        monitor_html,
        monitor_document,
        live=lambda monitor, file: write_page(file, monitor_document(monitor, refresh=30), monitor_html(monitor)),
    ),
    CaptureDiff: of_rows(comparison_table, comparison_html),
    Totals: of_rows(totals_table, totals_html, totals_page),
}

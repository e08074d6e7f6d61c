"""Figures of what was measured, and one HTML page that holds them; the door to Bokeh."""

from dasrec.report.base import PALETTE
from dasrec.report.certain import by_unit, difference_points, interval_points
from dasrec.report.drawn import learning_curve, long_tail, metric_bars
from dasrec.report.page import Section, write_page
from dasrec.tables import certainty_table, list_table, metric_table

__all__ = [
    "PALETTE",
    "Section",
    "by_unit",
    "certainty_table",
    "difference_points",
    "interval_points",
    "learning_curve",
    "list_table",
    "long_tail",
    "metric_bars",
    "metric_table",
    "write_page",
]

"""Figures of what was measured, and one HTML page that holds them; the door to Bokeh."""

from dasrec.report.base import PALETTE
from dasrec.report.certain import by_unit, difference_points, interval_points
from dasrec.report.drawn import learning_curve, long_tail, metric_bars
from dasrec.report.groups import group_bars
from dasrec.report.page import Section, write_page
from dasrec.report.reasons import reason_bars
from dasrec.report.stores import activity_curve, heat_map
from dasrec.report.vectors import item_map
from dasrec.tables import certainty_table, fact_list, list_table, metric_table, reason_table

__all__ = [
    "PALETTE",
    "Section",
    "activity_curve",
    "by_unit",
    "certainty_table",
    "difference_points",
    "fact_list",
    "group_bars",
    "heat_map",
    "interval_points",
    "item_map",
    "learning_curve",
    "list_table",
    "long_tail",
    "metric_bars",
    "metric_table",
    "reason_bars",
    "reason_table",
    "write_page",
]

"""The report of one run: one HTML file that needs nothing but a browser."""

from exp.report.run_report.page import write_run_report

__all__ = ["write_run_report"]

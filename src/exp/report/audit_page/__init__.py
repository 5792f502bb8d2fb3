"""What an audit found: tables on the console, and one HTML file that needs only a browser."""

from exp.report.audit_page.page import write_audit_page
from exp.report.audit_page.table import print_audit

__all__ = ["print_audit", "write_audit_page"]

"""`exp audit`: every row of a task through the render code -> a table, a JSON file and a page."""

import json
import secrets
import time
from pathlib import Path

from exp.commands.auditing import audit_settings, audited
from exp.config.plain import to_plain
from exp.config.resolve import Resolved
from exp.config.schema import AuditConfig
from exp.data.render import Renderer
from exp.data.task import load_task
from exp.model.source import locate_model
from exp.model.tokenizer import load_chat_format
from exp.publish import write_atomically
from exp.redaction import redact_json
from exp.report.audit_page import print_audit, write_audit_page
from exp.report.console import print_next_steps
from exp.rundir import create_run_dir


def run(resolved: Resolved) -> int:
    """Audit all splits; 1 if there are errors, 0 with warnings or none."""
    config: AuditConfig = resolved.config
    task = load_task(config.task)
    files = locate_model(config.model)
    chat = load_chat_format(files)
    renderer = Renderer(chat, task.instruction, task.output_format, task.schema, task.notation)
    settings = audit_settings(config, files)
    report = audited(task, renderer, settings)
    print_audit(report, f"{task.name}, as {config.model.name} reads it")
    parent = Path(config.output_dir or Path("outputs") / task.name).expanduser().resolve()
    name = f"audit-{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}"
    folder = create_run_dir(parent, name).path
    content = {"config": to_plain(config), **report.to_json()}
    write_atomically(
        folder / "audit.json", json.dumps(redact_json(content), indent=2, allow_nan=False) + "\n"
    )
    page = write_audit_page(
        folder / "audit.html",
        report,
        task,
        renderer,
        model=config.model.name,
        num_random=config.num_rows,
        seed=config.seed,
    )
    print_next_steps([f"rows, token by token: {page}", f"figures: {folder / 'audit.json'}"])
    return 1 if report.errors else 0

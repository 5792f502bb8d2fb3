"""The result of an audit, kept under a key of all that decides it."""

import hashlib
import json
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict

from filelock import FileLock

from exp.cachedir import cache_dir
from exp.data.audit.audit import audit
from exp.data.audit.report import AuditReport
from exp.data.audit.settings import AuditSettings
from exp.data.expiry import mark_used, remove_unused
from exp.data.render import Renderer
from exp.data.task import Task
from exp.publish import write_atomically


def open_audit(
    task: Task,
    renderer: Renderer,
    settings: AuditSettings,
    code: str,
    watch: Callable[[], AbstractContextManager[Callable[[int], None]]] = lambda: nullcontext(
        lambda rows: None
    ),
) -> AuditReport:
    """Return the result for exactly these rows, rendered so; audit them if nobody has yet.

    Processes that ask at the same time wait for the first of them.

    Args:
        task: What is audited.
        renderer: Its digest covers tokenizer, template, instruction, output format and schema.
        settings: Limits.
        code: Changes with the code of the checks and of what they call.
        watch: Opened where rows have to be looked at; gives what `audit` calls to advance.

    Raises:
        DataError: The schema refers to something outside itself.
    """
    preimage = json.dumps(
        [
            code,
            renderer.digest,
            task.instruction,
            asdict(settings) | {"on_overlong": settings.on_overlong.name},
            [[name, rows.name, rows.content_key] for name, rows in task.splits.items()],
        ]
    )
    path = cache_dir("audits") / f"{hashlib.sha256(preimage.encode()).hexdigest()[:32]}.json"
    mark_used(path)
    remove_unused(path.parent)
    with FileLock(f"{path}.lock"):
        try:
            kept = json.loads(path.read_bytes())
            if kept["preimage"] == preimage:
                return AuditReport.from_json(kept["report"])
        except (OSError, ValueError, KeyError, TypeError):
            pass  # never made, or damaged: both are mended by auditing
        with watch() as advance:
            report = audit(task, renderer, settings, advance)
        content = {"preimage": preimage, "report": report.to_json()}
        write_atomically(path, json.dumps(content))
        return report

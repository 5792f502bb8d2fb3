"""`exp cache info|verify|clear`: look after the prediction cache."""

import argparse
import sys
from collections.abc import Sequence

from exp.errors import UserError
from exp.generation.cache.database import CacheError, DamagedError, default_path
from exp.generation.cache.maintenance import clear, take_inventory, verify
from exp.generation.cache.show import show_inventory


def main(argv: Sequence[str]) -> int:
    """Run one verb on the machine's cache; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="exp cache", description="Look after the prediction cache."
    )
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="{info,verify,clear}")
    verbs.add_parser("info", help="Show where the cache is and what it holds.")
    verbs.add_parser("verify", help="Read every prediction; exit code 1 if any is damaged.")
    clearing = verbs.add_parser("clear", help="Remove predictions.")
    clearing.add_argument(
        "--older-than-days", type=_days, metavar="N", help="Remove only those older than N days."
    )
    clearing.add_argument("--yes", action="store_true", help="Do not ask.")
    options = parser.parse_args(argv)
    try:
        if options.verb == "info":
            show_inventory(take_inventory(default_path()))
            return 0
        if options.verb == "verify":
            return _verify()
        return _clear(options.older_than_days, options.yes)
    except DamagedError as error:
        raise CacheError(
            f"The prediction cache cannot be read: {error}.",
            where=str(default_path()),
            fix="exp cache clear",
        ) from error


def _verify() -> int:
    result = verify(default_path())
    print(f"{result.count:,} predictions read, {sum(result.problems.values()):,} problems")
    for problem, count in result.problems.items():
        print(f"  {count:,} x {problem}")
    if result.problems:
        print("None of them is ever served. To be rid of them: exp cache clear")
    return 1 if result.problems else 0


def _clear(older_than_days: float | None, yes: bool) -> int:
    what = "all" if older_than_days is None else f"those older than {older_than_days:g} days"
    if not yes:
        if not sys.stdin.isatty():
            raise UserError(
                f"exp cache clear would remove {what} of the predictions and cannot ask here.",
                where=str(default_path()),
                fix=f"exp cache clear{_age(older_than_days)} --yes",
            )
        try:
            answer = input(f"Remove {what} of the predictions in {default_path()}? [y/N] ")
        except EOFError:
            answer = ""
        if answer.strip().lower() not in ("y", "yes"):
            print("Nothing was removed.")
            return 1
    print(f"{clear(default_path(), older_than_days):,} predictions removed")
    return 0


def _age(older_than_days: float | None) -> str:
    return "" if older_than_days is None else f" --older-than-days {older_than_days:g}"


def _days(text: str) -> float:
    try:
        days = float(text)
    except ValueError:
        days = -1.0
    if not 0 <= days < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a number of days of 0 or more")
    return days

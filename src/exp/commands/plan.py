"""`exp plan`: what a run needs in memory and time, on one machine or on every profile's card."""

from exp.commands.lengths import read_lengths
from exp.commands.memory import plan_card
from exp.config.groups import main_folder
from exp.config.resolve import Resolved
from exp.config.schema import HardwareConfig, PlanConfig
from exp.errors import ConfigError
from exp.hardware.machine import read_capability
from exp.hardware.memory.card import card_of
from exp.hardware.profiles import load_profiles
from exp.report.plan_table import print_plan, print_plans

CHOOSERS = ("auto",)
"""Profiles that stand for whatever is there, not for a card."""


def run(resolved: Resolved) -> int:
    """Print the plan; 1 if the run fits on none of the cards, even with what a profile suggests."""
    config: PlanConfig = resolved.config
    capability = read_capability()
    lengths = read_lengths(config)
    hardware = _profiles(config)
    plans = [
        plan_card(config, card_of(each, capability), lengths, quantize=config.profiles is not None)
        for each in hardware
    ]
    if config.profiles is None:
        print_plan(plans[0], config, lengths.lengths, lengths.shared, lengths.note)
    else:
        print_plans(plans, config, lengths.lengths, lengths.shared, lengths.note)
    return 0 if any(plan.choice.fits for plan in plans) else 1


def _profiles(config: PlanConfig) -> list[HardwareConfig]:
    if config.profiles is None:
        return [config.hardware]
    known = load_profiles(main_folder() / "hardware")
    if config.profiles == "all":
        names = [name for name in known if name not in CHOOSERS]
    else:
        names = config.profiles if isinstance(config.profiles, list) else [config.profiles]
    if not names:
        raise ConfigError("profiles names none.", where="command line", fix="profiles=all")
    unknown = [str(name) for name in names if name not in known]
    if unknown:
        raise ConfigError(
            f"profiles names {', '.join(unknown)}; there are {', '.join(known)}.",
            where="command line",
            fix="profiles=all, or profiles=[t4,rtx4090]",
        )
    found = [known[name] for name in names]
    return sorted(found, key=lambda each: (each.memory_gib or 0) * each.devices)

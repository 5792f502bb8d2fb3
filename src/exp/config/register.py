"""The schema, made known to Hydra: base_<verb> for primaries, <group>/base_<group> for groups."""

from functools import cache
from typing import Any

from hydra.core.config_store import ConfigStore

from exp.config.fields import own_fields
from exp.config.schema import PRIMARIES


@cache
def register_schema() -> None:
    """Store every schema class under the name that the YAML files' defaults lists use."""
    store = ConfigStore.instance()
    groups: dict[str, type[Any]] = {}
    for verb, primary in PRIMARIES.items():
        store.store(name=f"base_{verb}", node=primary, provider="exp")
        groups |= {field.key: field.type for field in own_fields(primary) if field.is_section}
    for group, section in groups.items():
        store.store(group=group, name=f"base_{group}", node=section, provider="exp")

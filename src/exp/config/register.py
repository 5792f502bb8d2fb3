"""The schema, made known to Hydra: base_<verb> for primaries, <group>/base_<group> for groups."""

from functools import cache

from hydra.core.config_store import ConfigStore

from exp.config.fields import own_fields
from exp.config.schema import PRIMARIES


@cache
def register_schema() -> None:
    """Store every schema class under the name that the YAML files' defaults lists use."""
    store = ConfigStore.instance()
    for verb, primary in PRIMARIES.items():
        store.store(name=f"base_{verb}", node=primary, provider="exp")
        for field in own_fields(primary):
            if field.is_section:
                store.store(
                    group=field.key, name=f"base_{field.key}", node=field.type, provider="exp"
                )

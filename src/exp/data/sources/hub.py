"""`hub:owner/name[:config][:split]` -> JSON Lines in the cache folder, by the datasets library."""

from pathlib import Path

from exp.errors import DataError

PREFIX = "hub:"
_BATCH_ROWS = 1024


def unpack_hub(source: str, split: str) -> Path:
    """Fetch a data set, or take it from the library's own cache, and write its rows.

    One part after the name is the configuration if the data set has one of that name, else the
    split.

    Args:
        source: What the user typed, with `hub:`.
        split: The split where `source` names none.

    Raises:
        DataError: There is no such data set, configuration or split, or no network.
    """
    import datasets  # takes seconds, and few need it
    from huggingface_hub.errors import HfHubHTTPError

    from exp.data.sources.columns import write_rows

    name, *parts = source.removeprefix(PREFIX).split(":")
    if not name or len(parts) > 2:
        raise DataError(
            f"{source} does not name a data set on the hub.",
            where=source,
            fix="hub:owner/name, hub:owner/name:split or hub:owner/name:config:split",
        )
    try:
        config = None
        if len(parts) == 2:
            config, split = parts[0] or None, parts[1] or split
        elif parts and parts[0] in datasets.get_dataset_config_names(name):
            config = parts[0]
        elif parts:
            split = parts[0]
        table = datasets.load_dataset(name, config, split=split)
    except (datasets.exceptions.DatasetsError, HfHubHTTPError, OSError, ValueError) as error:
        raise DataError(
            f"The data set {name} cannot be loaded: {' '.join(str(error).split())[:300]}",
            where=source,
            fix="check name, configuration, split and network, or give a file: "
            f"task.{split}=<a .jsonl, .csv or .parquet file>",
        ) from None
    # Read as Python values: as Arrow tables, objects of varying keys would come as strings.
    rows = (
        dict(zip(batch, cells, strict=True))
        for batch in table.iter(batch_size=_BATCH_ROWS)
        for cells in zip(*batch.values(), strict=True)
    )
    # The fingerprint is the library's own hash of where the rows came from and what was done.
    return write_rows(rows, f"hub-{table._fingerprint}", source)

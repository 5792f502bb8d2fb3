"""Rows of a file, a pipe or a hub data set -> examples, each row checked before any is used.

location   what the user typed -> a local, uncompressed file and its format
unpack     compressed files, Parquet and hub data sets -> plain files in the cache folder
formats    where the rows of a file begin and end: json_lines, json_array, delimited
strict_json, fields   one row's bytes -> id, input, output, meta, or the reason why not
faults     reasons -> one error with files and lines
load       the validating pass; examples   the sequence that it returns
joined     the examples of several files as one sequence
"""

from exp.data.sources.examples import Examples
from exp.data.sources.load import load_rows

__all__ = ["Examples", "load_rows"]

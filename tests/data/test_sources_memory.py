"""Reading and tokenising takes memory by the row, not by the content of the rows."""

import subprocess
import sys

import pytest

# What one process takes at its peak; VmHWM is in KiB. Run as: rows, folder, extension.
MEASURE = """
import csv, gzip, json, sys
from pathlib import Path

count, folder, extension = int(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
path = folder / f"{count}{extension}"


def write():
    import pyarrow, pyarrow.parquet, zstandard

    def rows(start, end):
        for n in range(start, end):
            answer = {"product": f"part {n % 1000}", "quantity": n % 50, "note": "as before " * 10}
            text = f"please send {n % 50} of part {n % 1000}, order {n}, " + "as before " * 10
            yield {"id": f"order-{n}", "input": text, "output": json.dumps(answer)}

    if extension == ".parquet":
        schema = pyarrow.schema([(name, "string") for name in ("id", "input", "output")])
        with pyarrow.parquet.ParquetWriter(path, schema) as table:
            for start in range(0, count, 100_000):
                part = list(rows(start, min(count, start + 100_000)))
                table.write_table(pyarrow.Table.from_pylist(part, schema))
        return
    packers = {".gz": gzip.open, ".zst": zstandard.open}
    with packers.get(path.suffix, open)(path, "wt", encoding="utf-8", newline="") as file:
        if ".csv" in extension:
            writer = csv.DictWriter(file, ["id", "input", "output"])
            writer.writeheader()
            writer.writerows(rows(0, count))
        else:
            file.writelines(json.dumps(row) + "\\n" for row in rows(0, count))


def read():
    from exp.config.schema import FieldsConfig, OutputFormat
    from exp.data.render import Renderer
    from exp.data.sources import load_rows
    from exp.data.tokens import tokenise
    from exp.model.tokenizer import byte_chat_format

    def peak():
        status = Path("/proc/self/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0]) / 1024

    start = peak()
    examples = load_rows(str(path), FieldsConfig())
    loaded = peak()
    renderer = Renderer(byte_chat_format(), "Write JSON.", OutputFormat.json, None)
    store = tokenise(examples, examples.content_key, renderer)
    assert len(store) == count
    assert store.lengths.min() > 200
    print(start, loaded, peak())


write() if sys.argv[4:] == ["write"] else read()
"""


def peaks(count, folder, extension):
    """MiB at the peak: before anything is read, when all is read, when all is tokenised."""
    words = [sys.executable, "-c", MEASURE, str(count), str(folder), extension]
    subprocess.run([*words, "write"], check=True, timeout=3000)
    done = subprocess.run(words, check=True, timeout=3000, capture_output=True, text=True)
    return [float(number) for number in done.stdout.split()]


@pytest.mark.slow
@pytest.mark.parametrize("extension", [".jsonl", ".csv", ".parquet", ".jsonl.gz", ".csv.zst"])
def test_ten_times_the_rows_take_little_more_memory(tmp_path, extension):
    _, loaded, tokenised = peaks(10_000, tmp_path, extension)
    _, more_loaded, more_tokenised = peaks(100_000, tmp_path, extension)
    # The rows themselves are 45 MiB of text, and several times as much as Python objects; an index
    # takes some 5 MiB, and Parquet some 15 MiB for the larger pages of its row groups.
    assert more_loaded - loaded < 30
    assert more_tokenised - tokenised < 30

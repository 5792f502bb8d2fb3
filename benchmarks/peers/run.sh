#!/usr/bin/env bash
# Compare the training speed of TRL, LitGPT and this project. DATA names the rows; arguments go to
# compare.py.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
data=${DATA:-$root/../shared/data/e2e/train.jsonl}
python=$root/.venv/bin/python
work=$here/.work

if [ ! -f "$data" ]; then
    echo "There are no rows at $data." >&2
    echo "  fix: make bench-peers DATA=rows.jsonl   (JSON Lines with text and target)" >&2
    exit 2
fi

for peer in trl litgpt; do
    venv=$here/.venv-$peer
    stamp=$venv/.installed
    if [ ! "$stamp" -nt "$here/requirements-$peer.txt" ]; then
        echo "Installing $peer into $venv"
        "$python" -m venv "$venv"
        "$venv/bin/pip" install --quiet --disable-pip-version-check \
            --requirement "$here/requirements-$peer.txt"
        touch "$stamp"
    fi
done

"$python" "$here/prepare.py" "$data" "$work"
"$here/.venv-litgpt/bin/python" "$here/convert_litgpt.py" "$work/model" "$work/litgpt" \
    >"$work/convert_litgpt.log" 2>&1 ||
    { cat "$work/convert_litgpt.log" >&2; exit 1; }
exec "$python" "$here/compare.py" --work "$work" "$@"

import os
import subprocess
import sys
from dataclasses import fields

import pytest

from exp.commands.cache import main
from exp.errors import UserError
from exp.generation.cache import store
from exp.generation.cache.key import KeyContext, Request
from exp.generation.cache.store import PredictionCache
from exp.records import Prediction

DAY_NS = 24 * 3600 * 10**9


def context(base="a" * 64, adapter=None):
    blank = {field.name: "" for field in fields(KeyContext)}
    return KeyContext(**{**blank, "base_weights": base, "adapter": adapter})


def finished(*numbers):
    return [(Request(str(n), (n,)), Prediction(str(n), "text", "stop", 1)) for n in numbers]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("EXP_CACHE_DIR", str(tmp_path))
    return tmp_path


@pytest.fixture
def filled(folder, monkeypatch):
    with PredictionCache.open() as cache:
        cache.store(context(), finished(1, 2, 3), label="base [model]")
        cache.store(context(adapter="b" * 64), finished(1, 2), label="run 7")
        with monkeypatch.context() as patch:
            now = store.time.time_ns()
            patch.setattr(store.time, "time_ns", lambda: now - 10 * DAY_NS)
            cache.store(context(base="c" * 64), finished(4))
    return folder / "predictions.sqlite"


def count():
    with PredictionCache.open() as cache:
        (number,) = cache._database.connection.execute("SELECT count(*) FROM prediction").fetchone()
    return number


def break_row(path):
    data = path.read_bytes()
    assert data.count(b'["text","stop",1,[]]') >= 6
    path.write_bytes(data.replace(b'["text","stop",1,[]]', b'["tixt","stop",1,[]]', 1))


def test_info_piped_gives_plain_lines(filled, capsys):
    assert main(["info"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert f"path\t{filled}" in lines
    assert "predictions\t6" in lines
    assert f"group\tbase [model]\t{'a' * 12}\tnone\t3" in lines
    assert f"group\trun 7\t{'a' * 12}\t{'b' * 12}\t2" in lines
    assert f"group\t-\t{'c' * 12}\tnone\t1" in lines


def test_info_on_a_terminal_gives_a_table(filled, capsys, monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert main(["info"]) == 0
    printed = capsys.readouterr().out
    assert "base weights" in printed
    assert "base [model]" in printed


def test_info_of_no_cache_makes_none(folder, capsys):
    assert main(["info"]) == 0
    assert "predictions\t0" in capsys.readouterr().out
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE context SET label = NULL",
        "UPDATE context SET label = x'FF'",
        'UPDATE context SET preimage = \'{"base_weights": [1], "adapter": [2]}\'',
        "UPDATE prediction SET created_ms = x'00'",
        "UPDATE prediction SET created_ms = NULL",
    ],
)
def test_info_counts_predictions_whatever_the_values_beside_them_are(filled, capsys, statement):
    with PredictionCache.open() as cache:
        cache._database.connection.execute(statement)
    assert main(["info"]) == 0
    assert "predictions\t6" in capsys.readouterr().out


def test_a_damaged_file_that_was_set_aside_counts_once_with_its_logs(filled, capsys):
    for suffix in ("", "-wal", "-shm"):
        filled.with_name(f"{filled.name}.damaged-1{suffix}").touch()
    assert main(["info"]) == 0
    assert "set aside\t1 damaged files" in capsys.readouterr().out


def test_info_of_a_damaged_file_is_a_clear_error_and_leaves_it(folder):
    path = folder / "predictions.sqlite"
    path.write_bytes(b"damaged" * 1000)
    with pytest.raises(UserError, match="cannot be read") as caught:
        main(["info"])
    assert caught.value.fix == "exp cache clear"
    assert path.read_bytes() == b"damaged" * 1000


def test_verify_of_a_whole_cache_succeeds(filled, capsys):
    assert main(["verify"]) == 0
    assert capsys.readouterr().out == "6 predictions read, 0 problems\n"


def test_verify_counts_damaged_predictions_and_fails(filled, capsys):
    break_row(filled)
    assert main(["verify"]) == 1
    printed = capsys.readouterr().out
    assert "6 predictions read, 1 problems" in printed
    assert "1 x damaged predictions" in printed
    assert "exp cache clear" in printed


@pytest.mark.parametrize(
    ("statement", "problem"),
    [
        ("UPDATE context SET preimage = zeroblob(3)", "damaged contexts"),
        ("DELETE FROM context", "without an intact context"),
        ("UPDATE prediction SET request = zeroblob(9)", "wrong key"),
    ],
)
def test_verify_names_each_kind_of_problem(filled, capsys, statement, problem):
    with PredictionCache.open() as cache:
        cache._database.connection.execute(statement)
    assert main(["verify"]) == 1
    assert problem in capsys.readouterr().out


def test_verify_of_an_unreadable_file_fails_and_leaves_it(folder, capsys):
    path = folder / "predictions.sqlite"
    path.write_bytes(b"damaged" * 1000)
    assert main(["verify"]) == 1
    assert "unreadable file" in capsys.readouterr().out
    assert path.read_bytes() == b"damaged" * 1000


def test_verify_of_no_cache_succeeds(capsys):
    assert main(["verify"]) == 0


def test_clear_removes_everything_and_what_was_set_aside(filled, capsys):
    (filled.parent / "predictions.sqlite.damaged-1").write_bytes(b"x")
    assert main(["clear", "--yes"]) == 0
    assert capsys.readouterr().out == "6 predictions removed\n"
    assert count() == 0
    assert not list(filled.parent.glob("*.damaged-*"))


def test_clear_gives_the_space_back(folder):
    with PredictionCache.open() as cache:
        long = [(Request(str(n), (n,) * 5000), finished(n)[0][1]) for n in range(100)]
        cache.store(context(), long)
    assert (folder / "predictions.sqlite").stat().st_size > 10**6
    main(["clear", "--yes"])
    assert (folder / "predictions.sqlite").stat().st_size < 10**5


def test_clear_by_age_keeps_the_younger_ones(filled, capsys):
    assert main(["clear", "--yes", "--older-than-days", "9.5"]) == 0
    assert capsys.readouterr().out == "1 predictions removed\n"
    assert count() == 5
    assert main(["verify"]) == 0


def test_clear_while_somebody_uses_the_cache_leaves_it_usable(filled):
    with PredictionCache.open() as user:
        assert main(["clear", "--yes"]) == 0
        user.store(context(), finished(9))
        assert user.lookup(context(), [Request("9", (9,)), Request("1", (1,))]).num_hits == 1


def test_clear_removes_a_file_too_damaged_to_open(folder):
    (folder / "predictions.sqlite").write_bytes(b"damaged" * 1000)
    assert main(["clear", "--yes"]) == 0
    assert not (folder / "predictions.sqlite").exists()


def test_clear_by_age_does_not_throw_a_damaged_file_away(folder):
    path = folder / "predictions.sqlite"
    path.write_bytes(b"damaged" * 1000)
    with pytest.raises(UserError):
        main(["clear", "--yes", "--older-than-days", "1"])
    assert path.exists()


def test_clear_refuses_to_guess_where_it_cannot_ask(filled, monkeypatch):
    monkeypatch.setattr(sys.stdin, "isatty", lambda: False, raising=False)
    with pytest.raises(UserError, match="cannot ask") as caught:
        main(["clear"])
    assert caught.value.fix == "exp cache clear --yes"
    with pytest.raises(UserError, match="cannot ask") as caught:
        main(["clear", "--older-than-days", "7.5"])
    assert caught.value.fix == "exp cache clear --older-than-days 7.5 --yes"
    assert count() == 6


@pytest.mark.parametrize(("answer", "left"), [("y", 0), ("YES", 0), ("", 6), ("n", 6)])
def test_clear_asks_on_a_terminal(filled, monkeypatch, answer, left):
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", lambda question: answer)
    assert main(["clear"]) == (0 if left == 0 else 1)
    assert count() == left


def test_clear_without_an_answer_removes_nothing(filled, monkeypatch):
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)

    def end_of_file(question):
        raise EOFError

    monkeypatch.setattr("builtins.input", end_of_file)
    assert main(["clear"]) == 1
    assert count() == 6


@pytest.mark.parametrize(
    "arguments",
    [[], ["drop"], *(["clear", "--older-than-days", days] for days in ("-1", "nan", "soon"))],
)
def test_a_wrong_call_exits_with_2(arguments, capsys):
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert "usage: exp cache" in capsys.readouterr().err


def test_the_command_does_not_import_torch():
    call = "from exp.commands.cache import main; main(['info'])"
    code = f"{call}; import sys; print('torch' in sys.modules)"
    printed = subprocess.run(
        [sys.executable, "-c", code], env=os.environ, capture_output=True, text=True, check=True
    ).stdout
    assert printed.endswith("False\n")

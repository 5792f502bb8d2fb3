import os
import subprocess
import sys
import types

import pytest

from exp import __version__, cli
from exp.errors import DataError

HEAVY = ("torch", "transformers", "lightning", "peft", "datasets", "wandb")


@pytest.fixture
def command(monkeypatch, tmp_path):
    """A train command that keeps what it was called with."""
    module = types.ModuleType("exp.commands.train")
    module.calls = []

    def run(resolved):
        module.calls.append((resolved, list(sys.argv)))
        return 0

    module.run = run
    monkeypatch.setitem(sys.modules, "exp.commands.train", module)
    monkeypatch.setattr(cli, "verbs", lambda: cli.VERBS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("EXP_FULL_ERROR", raising=False)
    return module


def child(words, **environment):
    """Run the command line in a fresh process; its result, and the heavy modules it imported."""
    code = (
        "import sys; from exp import cli; cli.verbs = lambda: cli.VERBS\n"
        f"code = cli.main({words!r})\n"
        f"print('heavy:', [m for m in {HEAVY!r} if m in sys.modules], file=sys.stderr)\n"
        "print('hydra:', 'hydra' in sys.modules, file=sys.stderr)\n"
        "sys.exit(code)"
    )
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
    )


@pytest.mark.parametrize("words", [["--help"], ["--version"], ["trian"], ["train", "--help"]])
def test_what_needs_no_configuration_imports_no_hydra_and_no_torch(words):
    result = child(words)
    assert result.returncode == (2 if words == ["trian"] else 0)
    assert "heavy: []" in result.stderr
    assert "hydra: False" in result.stderr


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["train", "--cfg", "job"], 0, "lora:\n  r: 16"),
        (["train", "--info", "defaults-tree"], 0, "lora: all_linear"),
        (["train", "+lora.rnk=8", "lora.dropout=2"], 2, ""),
        (["explain", "lora.r"], 0, "Rank of the update"),
    ],
)
def test_the_configuration_is_shown_and_judged_without_torch(words, code, says):
    result = child(words)
    assert (result.returncode, "heavy: []" in result.stderr) == (code, True), result.stderr
    assert says in result.stdout


def test_native_libraries_get_their_settings_and_the_user_s_own_stay(monkeypatch):
    monkeypatch.setenv("GOMP_SPINCOUNT", "")
    monkeypatch.delenv("GOMP_SPINCOUNT")  # what main sets is then taken back at the end
    monkeypatch.setenv("LRU_CACHE_CAPACITY", "7")
    cli.main(["--version"])
    assert os.environ["GOMP_SPINCOUNT"] == cli.LIBRARY_SETTINGS["GOMP_SPINCOUNT"]
    assert os.environ["LRU_CACHE_CAPACITY"] == "7"


def test_python_m_exp_runs_the_command_line():
    result = subprocess.run(
        [sys.executable, "-m", "exp", "--version"], capture_output=True, text=True, check=True
    )
    assert result.stdout == f"exp {__version__}\n"


def test_only_verbs_that_are_there_are_listed(capsys):
    assert cli.main(["--help"]) == 0
    listed = capsys.readouterr().out
    for name in cli.VERBS:
        assert (f"\n  {name} " in listed) == (name in cli.verbs())


def test_an_unknown_verb_is_refused_with_the_closest(capsys):
    assert cli.main(["explian"]) == 2
    assert "explian is no verb of exp; the closest is explain." in capsys.readouterr().err


def test_a_command_gets_the_resolved_configuration_and_the_command_line_as_typed(command):
    words = ["train", "lora.r=32", "lora.peft.bias=all"]
    before = list(sys.argv)
    assert cli.main(words) == 0
    ((resolved, argv),) = command.calls
    assert (resolved.config.lora.r, resolved.config.lora.peft) == (32, {"bias": "all"})
    assert argv[1:] == words
    assert sys.argv == before


def test_hydra_leaves_no_file_behind(command, tmp_path):
    cli.main(["train", "model=tiny"])
    assert list(tmp_path.iterdir()) == []


def test_a_bad_command_line_never_reaches_the_command(command, capsys):
    assert cli.main(["train", "lora.rnk=8", "scheduler=cosin"]) == 2
    error = capsys.readouterr().err
    assert command.calls == []
    assert "the closest is lora.r." in error
    assert "the closest is cosine." in error


def test_a_setting_without_effect_is_warned_about_before_the_run(command, capsys):
    assert cli.main(["train", "generation.top_k=5"]) == 0
    assert capsys.readouterr().err.startswith("warning: generation.top_k has no effect")


def test_a_mistake_found_by_a_command_is_shown_without_a_traceback(command, capsys):
    def fail(resolved):
        raise DataError("Row 3 has no input.", where="a.jsonl, line 3", fix="remove it")

    command.run = fail
    assert cli.main(["train"]) == 2
    assert capsys.readouterr().err == (
        "Row 3 has no input.\n  where: a.jsonl, line 3\n  fix:   remove it\n"
    )


def test_the_traceback_is_shown_when_asked_for(command, capsys, monkeypatch):
    monkeypatch.setenv("EXP_FULL_ERROR", "1")
    assert cli.main(["train", "lora.rnk=8"]) == 2
    assert "Traceback" in capsys.readouterr().err


def test_an_interrupted_run_ends_with_130(command, capsys):
    def interrupt(resolved):
        raise KeyboardInterrupt

    command.run = interrupt
    assert cli.main(["train"]) == 130
    assert capsys.readouterr().err == "Interrupted.\n"


def test_a_fault_of_ours_is_not_hidden(command):
    def fail(resolved):
        raise ZeroDivisionError

    command.run = fail
    with pytest.raises(ZeroDivisionError):
        cli.main(["train"])


def test_a_credential_in_an_error_is_not_shown(command, capsys):
    secret = "hf_" + "a" * 30
    assert cli.main(["train", f"{secret}=1"]) == 2
    assert secret not in capsys.readouterr().err


@pytest.mark.parametrize("how", ["flag", "variable"])
def test_a_folder_of_your_own_adds_choices(command, tmp_path, monkeypatch, how):
    (tmp_path / "mine" / "lora").mkdir(parents=True)
    (tmp_path / "mine" / "lora" / "wide.yaml").write_text(
        "# Wide.\ndefaults: [base_lora, _self_]\nr: 64\n"
    )
    flags = ["--config-dir", "mine"] if how == "flag" else []
    if how == "variable":
        monkeypatch.setenv("EXP_CONF_DIR", "mine")
    assert cli.main(["train", *flags, "lora=wide"]) == 0
    assert command.calls[0][0].config.lora.r == 64


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("exp ex", ["explain"]),
        ("exp train lora=ba", ["lora=base_lora", "lora=baseline"]),
        ("exp train lora.al", ["lora.alpha="]),
    ],
)
def test_the_shell_completes_verbs_choices_and_settings(
    command, line, offered, monkeypatch, capsys
):
    monkeypatch.setenv("COMP_LINE", line)
    assert cli.main(["-sc", "query=bash"]) == 0
    assert capsys.readouterr().out.split() == offered


def test_memory_that_ran_out_outside_of_training_is_no_traceback(monkeypatch, capsys):
    class OutOfMemoryError(RuntimeError):
        """Called as torch's own."""

    def fail(words):
        raise OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.\nmore")

    monkeypatch.setattr(cli, "_dispatch", fail)
    assert cli.main(["evaluate"]) == 1
    what, _where, fix = capsys.readouterr().err.splitlines()
    assert what == "The device ran out of memory: CUDA out of memory. Tried to allocate 2 GiB."
    assert "generation.slots=8" in fix


@pytest.mark.parametrize("verb", ["train", "predict", "evaluate"])
def test_verbs_that_only_decode_keep_few_kernels(verb, monkeypatch):
    for name in cli.DECODING_SETTINGS:
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)  # what main sets is then taken back at the end
    monkeypatch.setattr(cli, "_dispatch", lambda words: 0)
    assert cli.main([verb]) == 0
    found = {name: os.environ[name] for name in cli.DECODING_SETTINGS if name in os.environ}
    assert found == (cli.LIBRARY_SETTINGS if verb == "train" else cli.DECODING_SETTINGS)

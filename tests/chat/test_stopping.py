"""Runs that are stopped, killed, or go on under a changed recipe."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import PreTrainedTokenizerBase

from tandem.chat import checkpoint, loop, models, work
from tandem.chat import recipe as recipes
from tandem.chat.data import sources
from tandem.chat.data.fingerprint import Fingerprint
from tandem.chat.data.rows import Rows, gather
from tandem.chat.engine.decoder import Step
from tandem.chat.engine.slots import Slots
from tandem.chat.errors import ResumeError, RowsError, StoppedError
from tandem.chat.run_folder import RunFolder
from tandem.chat.train import check, train
from tests import disks
from tests.chat.test_train import DAPO, EVAL, GRPO, PPO, REWARD, REWARDS, SFT, SPARSE, Recipe, run, same, weights


def left_behind(file: Path, folder: Path, *left: str) -> RunFolder:
    """A run that has begun, with places of models and checkpoints that nothing is read from."""
    found = run(file, folder, stages=[])
    for path in left:
        where = folder / path if path.endswith(".pt") else folder / path / "config.json"
        where.parent.mkdir(parents=True)
        where.write_text("{}")
    return found


@pytest.mark.slow
@pytest.mark.parametrize(
    "stages",
    [SFT + GRPO, SFT + DAPO, SFT + REWARD + PPO, SFT + GRPO + SPARSE],
    ids=["grpo", "dapo", "ppo", "sparse"],
)
def test_a_run_that_is_stopped_after_any_step_ends_with_the_same_bits(
    stages: str, recipe_file: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each step is the last of a run of its own: the signal comes while it learns."""
    file = recipe_file(stages)
    whole = run(file, tmp_path / "whole").path
    seen: list[int] = []
    tell = loop.Loop.tell

    def interrupted(self: loop.Loop, **figures: float) -> None:
        tell(self, **figures)
        if "loss" in figures and not seen:
            seen.append(1)
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(loop.Loop, "tell", interrupted)
    stops = 0
    while not (tmp_path / "stopped" / "models" / "rl").exists():
        seen.clear()
        with contextlib.suppress(StoppedError):
            run(file, tmp_path / "stopped")
        stops += 1
    assert stops >= 10
    assert same(weights(whole), weights(tmp_path / "stopped"))
    told, found = (RunFolder(path).series("rl") for path in (whole, tmp_path / "stopped"))
    assert found["loss"] == told["loss"]


@pytest.mark.parametrize("after", [0, 2])
@pytest.mark.parametrize("stages", [GRPO, DAPO, GRPO + SPARSE], ids=["grpo", "dapo", "sparse"])
def test_a_run_that_is_stopped_while_it_draws_saves_what_was_before_and_ends_with_the_same_bits(
    stages: str, after: int, recipe_file: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, settings = recipe_file(stages), ["rl.steps=3", "save_every_steps=9"]
    whole = run(file, tmp_path / "whole", *settings).path
    folder, done_steps, drawn = RunFolder(tmp_path / "stopped"), [0], []
    step = Slots.step

    def interrupted(self: Slots) -> Step:
        if done_steps[-1] == after:
            drawn.append(1)
            os.kill(os.getpid(), signal.SIGTERM)
        return step(self)

    def progress(stage: str, done: int, of: int) -> None:
        done_steps.append(done)

    monkeypatch.setattr(Slots, "step", interrupted)
    with pytest.raises(StoppedError, match=f"stopped by SIGTERM after step {after} of 3 of stage rl"):
        train(recipes.load(file, settings), folder.path, recipe_folder=file.parent, progress=progress)
    assert len(drawn) == 1
    assert folder.checkpoint("rl").exists() == (after > 0)  # where nothing was learnt, nothing is lost
    monkeypatch.setattr(Slots, "step", step)
    assert same(weights(whole), weights(run(file, folder.path, *settings).path))


def test_a_run_that_is_stopped_while_it_evaluates_ends(
    recipe_file: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, step = recipe_file(GRPO + EVAL), Slots.step
    run(file, tmp_path / "run", "rl.steps=1", stages=["rl"])
    drawn: list[int] = []

    def interrupted(self: Slots) -> Step:
        drawn.append(1)
        os.kill(os.getpid(), signal.SIGTERM)
        return step(self)

    monkeypatch.setattr(Slots, "step", interrupted)
    with pytest.raises(StoppedError, match="stopped by SIGTERM in the evaluation"):
        run(file, tmp_path / "run", "rl.steps=1")
    assert len(drawn) == 1


@pytest.mark.parametrize("when", ["rows are read", "a model begins", "rows are looked at", "a stage fits its rows"])
def test_a_run_that_is_stopped_while_it_is_prepared_ends_at_once(
    when: str, recipe_file: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = recipe_file(SFT)
    of: object
    of, name = {
        "rows are read": (sources, "read"),
        "a model begins": (models, "start"),
        "rows are looked at": (PreTrainedTokenizerBase, "apply_chat_template"),
        "a stage fits its rows": (PreTrainedTokenizerBase, "apply_chat_template"),
    }[when]
    real, met, seen = getattr(of, name), list[str](), list[str]()

    def interrupted(*given: object, **named: object) -> object:
        seen.append(when)
        after = {"rows are looked at": 1, "a stage fits its rows": 5}.get(when)
        if after is None or (len(seen) > after and (tmp_path / "run" / "models" / "start").exists()):
            met.append(when)
            os.kill(os.getpid(), signal.SIGINT)
            met.append("went on")
        return real(*given, **named)

    with monkeypatch.context() as patched:
        patched.setattr(of, name, interrupted)
        with pytest.raises(StoppedError, match="stopped by SIGINT between steps"):
            run(file, tmp_path / "run")
    assert met == [when]
    assert same(weights(run(file, tmp_path / "whole").path, "sft"), weights(run(file, tmp_path / "run").path, "sft"))


@pytest.mark.slow
@pytest.mark.parametrize("wait_for", ['sft/step":3', 'rl/step":1', 'rl/step":4'])
def test_a_killed_run_goes_on_and_ends_with_the_same_bits(wait_for: str, recipe_file: Recipe, tmp_path: Path) -> None:
    file = recipe_file(SFT + REWARD + PPO)
    whole = run(file, tmp_path / "whole").path
    code = (
        "import os, signal, sys; from pathlib import Path; from tandem.chat import recipe, run_folder, train\n"
        "import torch; torch.set_num_threads(1)\n"
        "record = run_folder.RunFolder.record\n"
        "def killed(self, **what):\n"
        "    record(self, **what)\n"
        "    if sys.argv[3] in self.events.read_text(): os.kill(os.getpid(), signal.SIGKILL)\n"
        "run_folder.RunFolder.record = killed\n"
        "file = Path(sys.argv[1])\n"
        "train.train(recipe.load(file), Path(sys.argv[2]), recipe_folder=file.parent)\n"
    )
    command = [sys.executable, "-c", code, str(file), str(tmp_path / "killed"), wait_for]
    done = subprocess.run(command, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"}, timeout=120)
    assert done.returncode == -signal.SIGKILL
    assert not (tmp_path / "killed" / "models" / "rl").exists()
    run(file, tmp_path / "killed")
    assert same(weights(whole), weights(tmp_path / "killed"))
    assert same(weights(whole, "rl-average"), weights(tmp_path / "killed", "rl-average"))


def test_the_checkpoint_signal_saves_and_the_run_goes_on(recipe_file: Recipe, tmp_path: Path) -> None:
    file = recipe_file(SFT)
    saved: list[int] = []

    def progress(stage: str, done: int, of: int) -> None:
        del stage, of
        if (tmp_path / "run" / "checkpoints" / "sft.pt").exists():
            saved.append(done)
        if done == 1:
            os.kill(os.getpid(), signal.SIGUSR1)

    train(recipes.load(file, ["save_every_steps=100"]), tmp_path / "run", recipe_folder=file.parent, progress=progress)
    assert saved == [2, 3, 4, 5]
    assert signal.getsignal(signal.SIGUSR1) == signal.SIG_DFL


def test_a_changed_recipe_is_refused_and_told_what_differs_but_a_stage_not_begun_may_change(
    recipe_file: Recipe, tmp_path: Path
) -> None:
    file = recipe_file(SFT + GRPO)
    run(file, tmp_path / "run", stages=["sft"])
    with pytest.raises(ResumeError, match=r"sft\.steps: 5 before, 6 now"):
        run(file, tmp_path / "run", "sft.steps=6")
    with pytest.raises(ResumeError, match=r"model\.width: 16 before, 32 now, seed: 0 before, 1 now"):
        run(file, tmp_path / "run", "model.width=32", "seed=1")
    run(file, tmp_path / "run", "rl.steps=2", "save_every_steps=3")
    assert len(RunFolder(tmp_path / "run").series("rl")["loss"]) == 2


@pytest.mark.parametrize(
    ("stages", "missing", "left", "told"),
    [
        (SFT + REWARD + PPO, "sft", ["models/reward", "models/rl"], "models/reward, models/rl"),
        (SFT + REWARD + PPO, "reward", ["models/sft", "models/rl"], "models/rl"),
        (SFT + REWARD + PPO, "sft", ["models/rl-average"], "models/rl-average"),
        (SFT + GRPO, "sft", ["checkpoints/rl.pt"], "checkpoints/rl.pt"),
        (GRPO, "sft", ["models/rl"], "models/rl"),  # it is put before what began without
    ],
    ids=["sft", "reward", "average", "checkpoint", "before"],
)
def test_a_stage_is_not_trained_under_what_was_trained_from_another_model_of_it(
    stages: str, missing: str, left: list[str], told: str, recipe_file: Recipe, tmp_path: Path
) -> None:
    left_behind(recipe_file(stages), tmp_path / "run", *left)
    file = recipe_file(stages if f"[{missing}]" in stages else SFT + stages)
    before = (tmp_path / "run" / "config.toml").read_bytes()
    instead = f"put back the models/{missing} that was there" if f"[{missing}]" in stages else f"leave .{missing}. out"
    for overrides in ([], [f"{missing}.steps=1"]):
        refused = f"{missing} to train in .*, which holds {told} already.*remove {told} .* or {instead}, or"
        with pytest.raises(ResumeError, match=refused):
            run(file, tmp_path / "run", *overrides)
    differing = rf"{missing}\.steps: " if f"[{missing}]" in stages else rf"\[{missing}\] not there before"
    with pytest.raises(ResumeError, match=f"another recipe: .*{differing}"):
        run(file, tmp_path / "run", f"{missing}.steps=1", "eval={reward='none'}", stages=["eval"])
    assert (tmp_path / "run" / "config.toml").read_bytes() == before


def test_a_changed_recipe_is_told_before_what_to_remove_for_a_stage(recipe_file: Recipe, tmp_path: Path) -> None:
    file = recipe_file(SFT + REWARD)
    left_behind(file, tmp_path / "run", "models/reward")
    with pytest.raises(ResumeError, match=r"another recipe: seed: 0 before, 1 now, sft\.steps: 5 before, 6 now;"):
        run(file, tmp_path / "run", "seed=1", "sft.steps=6")
    left_behind(recipe_file(REWARD), tmp_path / "other", "models/reward")
    recipe_file(SFT + REWARD)
    for overrides in (["seed=1"], ["reward.steps=2"]):
        with pytest.raises(ResumeError, match=f"another recipe: {overrides[0].partition('=')[0]}: . before"):
            run(file, tmp_path / "other", *overrides)
    with pytest.raises(ResumeError, match=r"holds models/reward already, of a recipe without \[sft\]; .* leave"):
        run(file, tmp_path / "other")


def test_a_table_that_came_or_went_is_told_as_one(recipe_file: Recipe, tmp_path: Path) -> None:
    left_behind(recipe_file(GRPO), tmp_path / "run", "models/rl")
    with pytest.raises(ResumeError, match=r"another recipe: \[sft\] not there before; allowed"):
        run(recipe_file(SFT + GRPO), tmp_path / "run", stages=["rl"])
    left_behind(recipe_file(SFT + GRPO), tmp_path / "other", "models/rl", "models/sft")
    with pytest.raises(ResumeError, match=r"another recipe: seed: 0 before, 1 now, \[sft\] not there now; allowed"):
        run(recipe_file(GRPO), tmp_path / "other", "seed=1")


@pytest.mark.parametrize(
    "left", ["models/sft", "models/reward", "models/rl", "models/rl-average", "checkpoints/sft.pt"]
)
def test_a_start_is_not_made_anew_under_what_was_trained_from_it(
    left: str, recipe_file: Recipe, tmp_path: Path
) -> None:
    file = recipe_file(SFT + REWARD + PPO + EVAL)
    shutil.rmtree(left_behind(file, tmp_path / "run", left).model("start"))
    for stages in (None, ["eval"]):
        told = f"which holds {left}, and models/start is not there any more.*put back the models/start .* remove {left}"
        with pytest.raises(ResumeError, match=told):
            check(recipes.load(file), tmp_path / "run", recipe_folder=tmp_path, stages=stages)
        with pytest.raises(ResumeError, match=told):
            run(file, tmp_path / "run", stages=stages)
    assert not (tmp_path / "run" / "models" / "start").exists()


@pytest.mark.parametrize("left", ["models/sft, models/rl", "checkpoints/sft.pt"])
@pytest.mark.parametrize("context_tokens", [32, 24])
def test_a_start_that_went_is_made_anew_once_all_that_is_told_is_removed(
    context_tokens: int, left: str, recipe_file: Recipe, tmp_path: Path
) -> None:
    file = recipe_file(SFT + GRPO)
    first = run(file, tmp_path / "run")
    before = {name: weights(first.path, name) for name in ("start", "sft", "rl")}
    shutil.rmtree(first.model("start"))
    if left == "checkpoints/sft.pt":
        shutil.rmtree(first.path / "models")
        first.checkpoint("sft").write_text("")
    with pytest.raises(ResumeError, match=f"remove {left} to train all of it anew"):
        run(file, first.path)
    shutil.rmtree(first.path / "models", ignore_errors=True)
    first.checkpoint("sft").unlink(missing_ok=True)
    run(file, first.path, f"model.context_tokens={context_tokens}")
    assert models.context_of(first.model("start")) == models.context_of(first.model("rl")) == context_tokens
    if context_tokens == 32:  # the recipe's: all is as it was
        assert all(same(before[name], weights(first.path, name)) for name in before)


@pytest.mark.parametrize("algorithm", ["dpo", "grpo"])
def test_a_reward_model_that_no_policy_learnt_from_may_come_later(
    algorithm: str, recipe_file: Recipe, tmp_path: Path
) -> None:
    learnt = {"dpo": '[rl]\nalgorithm = "dpo"\nsteps = 1\nprompts = 2\n', "grpo": GRPO}[algorithm]
    left_behind(recipe_file(learnt), tmp_path / "run", "models/rl")
    done = run(recipe_file(REWARD + learnt), tmp_path / "run", "reward.steps=1")
    assert done.has("reward")


def test_a_chain_is_trained_anew_once_all_of_it_is_gone(recipe_file: Recipe, tmp_path: Path) -> None:
    file = recipe_file(SFT + REWARD)
    first = run(file, tmp_path / "run", "sft.steps=1", "reward.steps=1")
    shutil.rmtree(first.model("sft"))
    with pytest.raises(ResumeError, match="remove models/reward to train all of it anew"):
        run(file, tmp_path / "run", "sft.steps=2", "reward.steps=1")
    shutil.rmtree(first.model("reward"))
    done = run(file, tmp_path / "run", "sft.steps=2", "reward.steps=1")
    assert [step for step, _ in done.series("sft")["loss"]] == [1, 2]
    assert done.has("reward")


def test_what_an_earlier_attempt_recorded_and_the_later_does_not_go_on_from_is_left_out(
    recipe_file: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, folder = recipe_file(SFT + GRPO), RunFolder(tmp_path / "run")
    run(file, folder.path, stages=["sft"])

    def broken_off(progress_at: int, *overrides: str) -> None:
        def progress(stage: str, done: int, of: int) -> None:
            if done == progress_at:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            train(recipes.load(file, overrides), folder.path, recipe_folder=file.parent, progress=progress)

    def told() -> tuple[list[int], list[int]]:
        return [step for step, _ in folder.series("rl").get("loss", [])], [one["step"] for one in folder.samples()]

    broken_off(3, "save_every_steps=9")
    assert told() == ([1, 2, 3], [0, 1, 2])
    broken_off(1, "save_every_steps=9", "rl.steps=2")  # another recipe, from the first step on
    assert told() == ([1], [0])
    broken_off(3, "rl.steps=4")
    assert told() == ([1, 2, 3], [0, 1, 2])
    with monkeypatch.context() as patch:
        patch.setattr("tandem.chat.drawing.generate", lambda *args, **settings: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            run(file, folder.path, "rl.steps=4")
    assert told() == ([1, 2], [0, 1])  # where its checkpoint is


def test_samples_that_are_damaged_are_passed_over(recipe_file: Recipe, tmp_path: Path) -> None:
    file, folder = recipe_file(GRPO), RunFolder(tmp_path / "run")
    folder.path.mkdir()
    folder.sample("rl", 9, "kept", "\u2028", 0.5)
    whole = (folder.path / "samples.jsonl").read_bytes()
    half = whole.replace(b'"step": 9, ', b"")
    other = whole.replace(b"kept", b"other").replace(b"0.5", b'"high"')
    lines = [b"\xff\xfe", whole[:-9], b"1", b"[]", b"null", b"[" * 100_000, half, other]
    (folder.path / "samples.jsonl").write_bytes(whole + b"\n".join(lines) + b"\n")
    assert [(one["step"], one["prompt"], one["response"]) for one in folder.samples()] == [(9, "kept", "\u2028")]
    done = run(file, folder.path, "rl.steps=1")
    assert [one["step"] for one in done.samples()] == [0]
    assert len((folder.path / "samples.jsonl").read_bytes().splitlines()) == 1


def test_an_average_goes_when_its_stage_is_trained_anew(recipe_file: Recipe, tmp_path: Path) -> None:
    file = recipe_file(GRPO)
    done = run(file, tmp_path / "run", "rl.steps=1", "rl.ema=0.9")
    assert done.has("rl-average")
    shutil.rmtree(done.model("rl"))
    assert run(file, tmp_path / "run", "rl.steps=1").has("rl")
    assert not done.model("rl-average").exists()


def test_what_a_stage_recorded_that_the_recipe_has_no_more_is_left_out(recipe_file: Recipe, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    run(recipe_file(SFT + GRPO), folder.path, stages=["sft"])
    folder.record(**{"rl/step": 1, "rl/loss": 0.5})
    folder.sample("rl", 0, "a", "b", 0.5)
    run(recipe_file(SFT), folder.path)
    assert (folder.series("rl"), folder.samples()) == ({}, [])


def test_a_run_that_could_not_begin_may_have_another_recipe(recipe_file: Recipe, tmp_path: Path) -> None:
    file = recipe_file(SFT)
    with pytest.raises(RowsError):
        run(file, tmp_path / "run", "data.held_out=0.9999")
    assert run(file, tmp_path / "run", "sft.steps=1").has("sft")


def test_a_start_that_nothing_was_learnt_from_is_made_anew_for_another_recipe(
    recipe_file: Recipe, tmp_path: Path
) -> None:
    file = recipe_file(SFT + GRPO)
    for tokens in (6, 5):
        with pytest.raises(RowsError, match="take a model with more context"):
            run(file, tmp_path / "run", "model.context_tokens=7", f"rl.response_tokens={tokens}")
    done = run(file, tmp_path / "run", "rl.response_tokens=8", "seed=1", stages=["sft"])
    assert models.context_of(done.model("sft")) == 32
    assert same(
        weights(done.path, "start"), weights(run(file, tmp_path / "new", "seed=1", stages=["sft"]).path, "start")
    )
    with pytest.raises(ResumeError, match="seed: 1 before, 0 now"):
        run(file, tmp_path / "run", stages=["rl"])


def test_a_run_that_was_killed_before_its_first_checkpoint_keeps_its_recipe(
    recipe_file: Recipe, tmp_path: Path
) -> None:
    file = recipe_file(SFT)
    with RunFolder(tmp_path / "run").begun(recipes.load(file)):
        (tmp_path / "run" / "models" / "start").mkdir(parents=True)
        (tmp_path / "run" / "models" / "start" / "config.json").write_text("{}")
    (tmp_path / "run" / "events.jsonl").write_text("")
    with pytest.raises(ResumeError, match="seed: 0 before, 1 now"):
        run(file, tmp_path / "run", "seed=1")


def test_a_damaged_checkpoint_is_named(recipe_file: Recipe, tmp_path: Path) -> None:
    file = recipe_file(SFT)
    run(file, tmp_path / "run")
    folder = RunFolder(tmp_path / "run")
    (folder.model("sft") / "config.json").unlink()
    folder.checkpoint("sft").write_bytes(b"not a checkpoint")
    with pytest.raises(ResumeError, match=r"sft\.pt cannot be taken over"):
        run(file, tmp_path / "run")


def test_a_checkpoint_that_a_full_disk_does_not_take_is_named_and_the_one_before_stays(tmp_path: Path) -> None:
    with disks.small(tmp_path / "small", 1) as disk:
        checkpoint.save(disk / "rl.pt", 1, {"model": torch.nn.Linear(2, 2)})
        with pytest.raises(OSError, match="No space left") as error:
            checkpoint.save(disk / "rl.pt", 2, {"model": torch.nn.Linear(600, 600)})
        assert error.value.filename == str(disk / "rl.pt")
        assert checkpoint.restore(disk / "rl.pt", {"model": torch.nn.Linear(2, 2)}) == 1
        assert [path.name for path in disk.iterdir()] == ["rl.pt"]


DPO = '[rl]\nalgorithm = "dpo"\nsteps = 4\nprompts = 2\n'
MIXED = GRPO.replace("[rl.settings]", "mixture_coefficient = 0.5\nmixture_tokens = 64\n[rl.settings]")
PATIENT = SFT + "patience = 9\n"


@pytest.mark.parametrize(
    ("stages", "deciding"),
    [
        (SFT, "sft"),
        (PATIENT, "sft held"),
        (REWARD, "reward"),
        (GRPO, "rl"),
        (MIXED, "sft rl"),
        (DPO, "reward"),
    ],
    ids=["sft", "patient", "reward", "grpo", "mixed", "dpo"],
)
def test_a_stage_goes_on_with_other_rows_where_those_that_decide_on_its_weights_are_others(
    stages: str, deciding: str, recipe_file: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "capitals.py").write_text(REWARDS)
    recipe, told = recipes.load(recipe_file(stages)), list[str]()
    rows = gather(recipe.data, seed=recipe.seed, say=print)

    def broken_off(stage: str, done: int, of: int) -> None:
        if done >= 2:  # the last checkpoint is of 2
            raise KeyboardInterrupt

    def attempt(rows: Rows) -> None:
        monkeypatch.setattr(work, "gather", lambda data, seed, say: rows)
        train(recipe, tmp_path / "run", recipe_folder=tmp_path, say=told.append, progress=broken_off)

    with pytest.raises(KeyboardInterrupt):
        attempt(rows)
    for name in ("sft", "reward", "rl", "held"):
        told.clear()
        others = rows.held_out[::-1] if name == "held" else [getattr(rows, name)[0][::-1]]
        with pytest.raises(KeyboardInterrupt):
            attempt(replace(rows, **{"held_out" if name == "held" else name: others}))
        assert any("goes on with other rows" in line for line in told) == (name in deciding.split()), name


@pytest.mark.parametrize(
    ("stages", "stage"), [(SFT, "sft"), (REWARD, "reward"), (GRPO, "rl")], ids=["sft", "reward", "rl"]
)
def test_a_stage_that_goes_on_with_other_rows_says_so(
    stages: str, stage: str, recipe_file: Recipe, tmp_path: Path
) -> None:
    file, told = recipe_file(stages), list[str]()
    (tmp_path / "capitals.py").write_text(REWARDS)

    def attempt(progress: Callable[[str, int, int], None] = lambda stage, done, of: None) -> list[str]:
        told.clear()
        train(recipes.load(file), tmp_path / "run", recipe_folder=tmp_path, say=told.append, progress=progress)
        return [line for line in told if "other rows" in line]

    def broken_off(stage: str, done: int, of: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        attempt(broken_off)
    shutil.copytree(tmp_path / "run", tmp_path / "kept")
    assert attempt() == []
    shutil.rmtree(tmp_path / "run")
    (tmp_path / "kept").rename(tmp_path / "run")
    rows = (tmp_path / "rows.jsonl").read_text().splitlines()
    (tmp_path / "rows.jsonl").write_text("\n".join(reversed(rows)) + "\n")
    (line,) = attempt()
    assert line.startswith(f"stage {stage} goes on with other rows than its checkpoint was made with")


def test_a_checkpoint_of_an_older_version_that_tells_no_rows_is_taken_over(tmp_path: Path) -> None:
    model = torch.nn.Linear(2, 2)
    checkpoint.save(tmp_path / "sft.pt", 3, {"model": model})
    assert checkpoint.restore(tmp_path / "sft.pt", {"model": model, "rows": Fingerprint([], "sft", print)}) == 3
    with pytest.raises(ResumeError, match="it holds model, not model, critic"):
        checkpoint.restore(tmp_path / "sft.pt", {"model": model, "critic": model})


def test_two_runs_do_not_share_a_folder(recipe_file: Recipe, tmp_path: Path) -> None:
    file = recipe_file(SFT)
    with RunFolder(tmp_path / "run").begun(recipes.load(file)), pytest.raises(ResumeError, match="another process"):
        run(file, tmp_path / "run")

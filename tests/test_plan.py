"""The plan: keys, order, dependencies, skips with reasons; and what is left to do of it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from benchmark.cells import Skip, TrainingCell
from benchmark.obstacles import Machine
from benchmark.plan import Plan, plan
from benchmark.plan_text import skip_lines
from benchmark.selection import Choice, Registries, Selection, select
from benchmark.states import trainings_to_do
from registry import (
    AttackProtocol,
    Checkpoint,
    DatasetSpec,
    DefenseEntry,
    Family,
    Need,
    Recipe,
    Registry,
    Source,
    Suite,
    TaskSpec,
    ThreatKind,
    ThreatModel,
    linf,
)
from registry.errors import InvalidEntryError, UnknownEntryError, UserError

ANYWHERE = Machine(datasets=frozenset(), large_inputs=True)


def task(name: str) -> TaskSpec:
    return TaskSpec(name=name, title=name, score="s", quality="accuracy", build="m:b", metrics=())


def dataset(name: str, *, task: str = "classification", size: int = 28, source: Source | None = None) -> DatasetSpec:
    return DatasetSpec(
        name=name,
        title=name,
        task=task,
        input_shape=(1, size, size),
        class_names=("a", "b"),
        splits={"train": 10, "val": 5, "test": 50},
        license="none",
        citation="none",
        reader="m:read",
        source=source,
    )


def defense(name: str, **options) -> DefenseEntry:
    options = {"tasks": ("classification",), "recipe": Recipe(train="m:train")} | options
    return DefenseEntry(name=name, summary=name, family=Family.UNDEFENDED, build="m:build", **options)


def protocol(name: str, *, clean: bool = False, **options) -> AttackProtocol:
    kind = ThreatKind.CLEAN if clean else ThreatKind.BALL
    options = {"tasks": ("classification",), "budgets": () if clean else (linf(4 / 255),)} | options
    return AttackProtocol(
        name=name, title=name, threat_model=ThreatModel(kind=kind), members=lambda facts, budget: (), **options
    )


@pytest.fixture
def registries() -> Registries:
    found = Registries(
        tasks=Registry("task", TaskSpec),
        datasets=Registry("dataset", DatasetSpec),
        defenses=Registry("defense", DefenseEntry),
        protocols=Registry("protocol", AttackProtocol),
    )
    found.tasks.add(task("classification"))
    found.tasks.add(task("segmentation"))
    found.datasets.add(dataset("toy"))
    found.defenses.add(defense("Undefended"))
    found.defenses.add(defense("Trained"))
    found.defenses.add(defense("Wrapped", recipe=None, base="Undefended"))
    found.protocols.add(protocol("clean", clean=True))
    found.protocols.add(protocol("standard", needs=frozenset({Need.TWIN})))
    return found


def everything(registries: Registries, **options) -> Selection:
    return Selection(
        title="test",
        datasets=tuple(registries.datasets),
        defenses=tuple(registries.defenses),
        protocols=tuple(registries.protocols),
        **options,
    )


def planned(registries: Registries, machine: Machine = ANYWHERE, **options) -> Plan:
    return plan(everything(registries, **options), machine, registries)


def keys(cells) -> dict[tuple[str, str], str]:
    return {(cell.defense, cell.protocol): cell.key for cell in cells}


def test_one_cell_for_each_combination(registries):
    result = planned(registries, seeds=(0, 1))
    assert len(result.evaluations) == 3 * 2 * 2
    assert [(cell.defense, cell.seed) for cell in result.trainings] == [
        ("Trained", 0),
        ("Undefended", 0),
        ("Trained", 1),
        ("Undefended", 1),
    ]
    assert result.skips == ()


def test_keys_name_what_they_stand_for(registries):
    cell = planned(registries).evaluations[0]
    assert cell.key.startswith("toy/Trained/clean-s0-")
    assert len(cell.key.rsplit("-", 1)[1]) == 10


def test_keys_are_the_same_every_time_and_all_different(registries):
    first, second = planned(registries, seeds=(0, 1)), planned(registries, seeds=(0, 1))
    assert first == second
    assert len({cell.key for cell in first.evaluations}) == len(first.evaluations)


def test_a_wrapper_has_the_training_of_its_base(registries):
    result = planned(registries)
    trainings = {cell.defense: cell.key for cell in result.trainings}
    wrapped = [cell for cell in result.evaluations if cell.defense == "Wrapped"]
    assert {cell.training for cell in wrapped} == {trainings["Undefended"]}


def test_the_twin_is_trained_where_the_protocol_needs_it(registries):
    only = replace(everything(registries), defenses=(registries.defenses["Trained"],))
    result = plan(only, ANYWHERE, registries)
    needs = {cell.protocol: len(cell.needs) for cell in result.evaluations}
    assert needs == {"clean": 1, "standard": 2}
    assert {cell.defense for cell in result.trainings} == {"Trained", "Undefended"}


def test_the_undefended_model_needs_no_twin(registries):
    cells = [cell for cell in planned(registries).evaluations if cell.defense == "Undefended"]
    assert all(cell.needs == (cell.training,) for cell in cells)
    assert all("twin" not in cell.revisions for cell in cells)


def test_a_trained_wrapper_comes_after_its_base(registries):
    registries.defenses.add(defense("ATop", base="Trained"))
    result = planned(registries)
    order = [cell.key for cell in result.trainings]
    top = next(cell for cell in result.trainings if cell.defense == "ATop")
    assert top.after and all(order.index(key) < order.index(top.key) for key in top.after)


@pytest.mark.parametrize("raised", ["Undefended", "Wrapped"])
def test_a_raised_revision_of_a_defense_or_its_base_gives_new_keys(registries, raised):
    before = keys(planned(registries).evaluations)
    entry = registries.defenses[raised]
    registries.defenses.remove(raised)
    registries.defenses.add(replace(entry, revision=2))
    after = keys(planned(registries).evaluations)
    assert before["Wrapped", "clean"] != after["Wrapped", "clean"]
    assert before["Trained", "clean"] == after["Trained", "clean"]


def test_a_raised_revision_of_the_twin_gives_new_keys_where_it_attacks(registries):
    before = keys(planned(registries).evaluations)
    registries.defenses.remove("Undefended")
    registries.defenses.add(defense("Undefended", revision=2))
    after = keys(planned(registries).evaluations)
    assert before["Trained", "standard"] != after["Trained", "standard"]


def test_more_samples_than_the_split_has_are_all_of_them(registries):
    assert planned(registries, n_samples=1000).evaluations == planned(registries).evaluations
    assert {cell.n_samples for cell in planned(registries, n_samples=7).evaluations} == {7}


def only_skip(result: Plan) -> Skip:
    assert len(result.skips) == 1, result.skips
    return result.skips[0]


def test_absent_data_are_skipped_with_the_command_that_gets_them(registries):
    source = Source(filename="far/far.npz", urls=("https://example.org/far.npz",))
    registries.datasets.add(dataset("far", source=source))
    result = planned(registries)
    skip = only_skip(result)
    assert skip.dataset == "far" and "not in the data folder" in skip.reason
    assert skip.remedy.endswith("python -m benchmark data download far")
    assert {cell.dataset for cell in result.evaluations} == {"toy"}
    present = planned(registries, Machine(datasets=frozenset({"far"}), large_inputs=True))
    assert {cell.dataset for cell in present.evaluations} == {"toy", "far"}


def test_data_without_an_address_say_how_they_are_got(registries):
    registries.datasets.add(dataset("asked", source=Source(filename="asked.npz", how="ask the owner")))
    assert only_skip(planned(registries)).remedy == "ask the owner"


def test_large_inputs_wait_for_a_gpu_unless_the_cpu_is_asked_for(registries):
    registries.datasets.add(dataset("large", size=128))
    small = planned(registries, Machine(datasets=frozenset(), large_inputs=False))
    assert only_skip(small).dataset == "large" and "--device cpu" in only_skip(small).remedy
    assert planned(registries).skips == ()


def test_other_tasks_are_skipped_for_defenses_and_protocols(registries):
    registries.datasets.add(dataset("masks", task="segmentation"))
    skips = planned(registries).skips
    assert {skip.what for skip in skips} == {
        "masks / clean",
        "masks / standard",
        "masks / Trained",
        "masks / Undefended",
        "masks / Wrapped",
    }
    assert all("segmentation" in skip.reason and skip.remedy for skip in skips)


def test_a_defense_is_left_out_where_it_is_not_declared(registries):
    registries.defenses.add(defense("Picky", datasets=("other*",)))
    skip = only_skip(planned(registries))
    assert skip.defense == "Picky" and "other*" in skip.reason


def test_an_unknown_base_is_a_skip_and_the_others_go_on(registries):
    registries.defenses.add(defense("Orphan", base="Undefnded"))
    result = planned(registries)
    assert "did you mean Undefended" in only_skip(result).reason
    assert len(result.evaluations) == 6


def test_bases_in_a_circle_are_a_skip(registries):
    registries.defenses.add(defense("A", base="B"))
    registries.defenses.add(defense("B", base="A"))
    assert {skip.defense for skip in planned(registries).skips} == {"A", "B"}


def test_released_weights_serve_their_data_set_and_seed_only(registries):
    released = Checkpoint(dataset="toy", seed=0, url="https://example.org/w", sha256="0")
    registries.defenses.add(defense("Released", recipe=None, checkpoints=(released,)))
    result = planned(registries, seeds=(0, 1))
    cells = [cell for cell in result.evaluations if cell.defense == "Released"]
    assert {cell.training_seed for cell in cells} == {0} and {cell.training for cell in cells} == {None}
    assert "toy seed 0" in only_skip(result).reason


def test_without_an_undefended_entry_the_protocols_that_need_a_twin_are_skipped(registries):
    registries.defenses.remove("Undefended")
    registries.defenses.remove("Wrapped")
    result = planned(registries)
    assert [cell.protocol for cell in result.evaluations] == ["clean"]
    assert only_skip(result).protocol == "standard"


def test_only_the_trainings_that_missing_evaluations_need_are_done(registries):
    result = planned(registries)
    clean = tuple(cell for cell in result.evaluations if (cell.defense, cell.protocol) == ("Trained", "clean"))

    def untrained(cell: TrainingCell) -> bool:
        return False

    assert [cell.defense for cell in trainings_to_do(result, clean, untrained)] == ["Trained"]
    assert trainings_to_do(result, (), untrained) == ()
    assert trainings_to_do(result, clean, lambda cell: True) == ()


def test_what_is_trained_after_an_absent_base_is_trained_again(registries):
    for name, base in (("Middle", "Trained"), ("Outer", "Middle"), ("Beside", None)):
        registries.defenses.add(defense(name, base=base))
    result = planned(registries)

    def to_do(absent: str) -> list[str]:
        chosen = trainings_to_do(result, result.evaluations, lambda cell: cell.defense != absent)
        return [cell.defense for cell in chosen]

    assert to_do("Trained") == ["Trained", "Middle", "Outer"]
    assert to_do("Middle") == ["Middle", "Outer"]
    assert to_do("Beside") == ["Beside"]
    assert to_do("nothing") == []


def test_skips_of_one_reason_share_a_line_that_names_them_all(registries):
    for name in ("far", "near"):
        source = Source(filename=f"{name}.npz", urls=("https://example.org",))
        registries.datasets.add(dataset(name, source=source))
    together = skip_lines(planned(registries).skips)
    assert together == [
        "skipped: far, near: its file is not in the data folder; get it with: python -m benchmark data download NAME"
    ]
    alone = skip_lines(planned(registries).skips[:1])
    assert alone[0].endswith("data download far")


SUITE = Suite(name="s", title="s", datasets=("toy",), defenses=("Trained",), protocols=("clean",))


def test_options_replace_what_the_suite_names(registries):
    choice = Choice(defenses=("W*",), protocols=("standard",), n_samples=5, seeds=(2, 2))
    chosen = select(SUITE, choice, registries)
    assert [entry.name for entry in chosen.defenses] == ["Wrapped"]
    assert [entry.name for entry in chosen.protocols] == ["standard"]
    assert (chosen.n_samples, chosen.seeds) == (5, (2,))
    assert [entry.name for entry in select(SUITE, Choice(), registries).defenses] == ["Trained"]


@pytest.mark.parametrize(
    ("choice", "near"),
    [
        (Choice(defenses=("Traind",)), "Trained"),
        (Choice(datasets=("toi",)), "toy"),
        (Choice(protocols=("standrad",)), "standard"),
        (Choice(task="segmentatoin"), "segmentation"),
    ],
)
def test_a_misspelt_name_gets_near_matches(registries, choice, near):
    with pytest.raises(UnknownEntryError, match=f"did you mean .*{near}"):
        select(SUITE, choice, registries)


def test_a_task_that_no_selected_data_set_has_is_the_users_mistake(registries):
    with pytest.raises(UserError, match="none of the selected data sets \\(toy\\)"):
        select(SUITE, Choice(task="segmentation"), registries)


def test_zero_samples_are_refused(registries):
    with pytest.raises(InvalidEntryError, match="n must be 1 or more"):
        select(SUITE, Choice(n_samples=0), registries)


def test_a_name_that_only_the_suite_misses_is_a_skip(registries):
    chosen = select(replace(SUITE, datasets=("toy", "gone")), Choice(), registries)
    result = plan(chosen, ANYWHERE, registries)
    assert len(result.evaluations) == 1
    assert "gone" in only_skip(result).reason

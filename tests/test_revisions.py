"""No code behind a number changes unnoticed."""

from dataclasses import replace

from tests import revisions


def test_every_part_is_as_noted():
    assert revisions.problems(revisions.parts(), revisions.read_state()) == []


def test_a_changed_part_is_found():
    now = revisions.parts()
    state = revisions.read_state()
    changed = now | {"engine": replace(now["engine"], digest="0" * 16)}
    assert any("the code of engine changed" in problem for problem in revisions.problems(changed, state))
    raised = now | {"engine": replace(now["engine"], revision=99)}
    assert any("revision 99" in problem for problem in revisions.problems(raised, state))


def test_comments_and_docstrings_do_not_count(tmp_path):
    plain, told = tmp_path / "plain.py", tmp_path / "told.py"
    plain.write_text("def f(x):\n    return x + 1\n")
    told.write_text('"""Module."""\n\n\ndef f(x):\n    """Adds one."""\n    # because\n    return x + 1\n')
    assert revisions._meaning(plain) == revisions._meaning(told)
    told.write_text("def f(x):\n    return x + 2\n")
    assert revisions._meaning(plain) != revisions._meaning(told)


def test_a_line_that_leaves_a_loop_counts(tmp_path):
    inside, outside = tmp_path / "inside.py", tmp_path / "outside.py"
    inside.write_text("for x in y:\n    a += x\n    a *= 2\n")
    outside.write_text("for x in y:\n    a += x\na *= 2\n")
    assert revisions._meaning(inside) != revisions._meaning(outside)


def test_what_readers_and_tasks_import_counts():
    scored = {path.name for path in revisions._with_imports([revisions._module("datasets.tasks.classification")])}
    assert {"classification.py", "base.py", "batch.py"} <= scored
    read = {path.name for path in revisions._with_imports([revisions._module("datasets.medmnist_npz")])}
    assert {"medmnist_npz.py", "npz_arrays.py", "batch.py"} <= read

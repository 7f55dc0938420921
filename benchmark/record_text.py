"""A record as text: result, intervals, what each attack did, flags, costs and where it was made."""

from __future__ import annotations

from collections.abc import Mapping

from benchmark.estimate import format_duration
from benchmark.table import format_table
from registry import RESTORATION, Norm, format_eps
from results.record import BudgetResult, Escalation, Estimate, EvaluationRecord

_IN_PIXELS = ("hd95", "false_positive_px")
"""Metrics in pixels, which are not shown as percent."""
_RESTORATION = frozenset(spec.name for spec in RESTORATION)
"""Metrics in dB and other units, which are not shown as percent."""


def describe(record: EvaluationRecord) -> str:
    """Returns the text of `show`."""
    parts = [_heading(record)]
    if record.failure is not None:
        parts.append(f"FAILED: {record.failure.kind}: {record.failure.message}\n\n{record.failure.traceback.rstrip()}")
    if record.clean:
        parts.append(_clean(record))
    parts.extend(_budget(record, result) for result in record.budgets)
    if record.flags:
        marks = [("RED" if flag.red else "note" if flag.noted else "ok") for flag in record.flags]
        rows = [(mark, flag.name, flag.evidence) for mark, flag in zip(marks, record.flags, strict=True)]
        parts.append("Flags\n" + _indented(format_table(("", "flag", "evidence"), rows)))
    if record.escalation is not None:
        parts.append(_escalation(record.escalation))
    parts.append(_provenance(record))
    return "\n\n".join(parts)


def _heading(record: EvaluationRecord) -> str:
    dataset, defense, protocol = record.dataset, record.defense, record.protocol
    seed = "" if record.checkpoint is None else f", training seed {record.checkpoint.seed}"
    rows = [
        ("status", str(record.status)),
        ("defense", f"{defense.get('name')} ({defense.get('family')}): {defense.get('summary')}"),
        ("data set", f"{dataset.get('name')} ({dataset.get('title')}), {record.n_planned} samples of {record.split}"),
        ("protocol", f"{protocol.get('name')}: {protocol.get('title')}"),
        ("seeds", f"attack seed {record.attack_seed}{seed}"),
        ("revisions", ", ".join(f"{name} {number}" for name, number in sorted(record.revisions.items()))),
    ]
    return f"{record.key}\n" + _indented(_columns(rows))


def _clean(record: EvaluationRecord) -> str:
    lines = [f"Clean {record.quality}", _indented(_columns(_estimates(record.clean)))]
    if record.constant_predictor is not None:
        lines.append(f"  always answering the majority class: {record.constant_predictor:.1%}")
    for title, estimates in (("recall", record.clean_class_recall), ("harmful", record.clean_confusions)):
        if estimates:
            lines.append(_indented(_columns([(f"{title}: {name}", text) for name, text in _estimates(estimates)])))
    return "\n".join(lines)


def _budget(record: EvaluationRecord, result: BudgetResult) -> str:
    lines = [f"Worst case at {_budget_label(result.budget)} ({record.quality})"]
    lines.append(_indented(_columns(_estimates(result.metrics))))
    for title, estimates in (("recall", result.class_recall), ("harmful", result.confusions)):
        if estimates:
            lines.append(_indented(_columns([(f"{title}: {name}", text) for name, text in _estimates(estimates)])))
    rows = [
        (
            *(m.name, m.attempted, m.lowered, m.broken, f"{m.robust_after:.1%}", m.errors, m.violations, m.no_gradient),
            *(m.forwards, m.backwards, format_duration(m.seconds)),
        )
        for m in result.members
    ]
    headings = (
        *("attack", "attempted", "lowered", "broke", "left", "errors", "violations", "no gradient"),
        *("forwards", "backwards", "time"),
    )
    if rows:
        lines.append(_indented(format_table(headings, rows)))
    return "\n".join(lines)


def _escalation(tried: Escalation) -> str:
    names = ", ".join(flag.name for flag in tried.flags)
    lines = [f"Escalation at {_budget_label(tried.budget)}, after {names}"]
    rows = [
        ("robust", f"{tried.robust_before:.1%} before, {tried.robust_after:.1%} after"),
        ("strongest", f"{tried.strongest}: {tried.why}"),
    ]
    if tried.failure:
        rows.append(("UNFINISHED", tried.failure))
    lines.append(_indented(_columns(rows)))
    headings = ("attack", "attempted", "lowered", "broke", "left", "errors")
    members = [(m.name, m.attempted, m.lowered, m.broken, f"{m.robust_after:.1%}", m.errors) for m in tried.members]
    if members:
        lines.append(_indented(format_table(headings, members)))
    return "\n".join(lines)


def _provenance(record: EvaluationRecord) -> str:
    source = record.provenance
    commit = "unknown" if source.commit is None else source.commit[:12] + (" with changes" if source.dirty else "")
    packages = ", ".join(f"{name} {version}" for name, version in sorted(source.packages.items()))
    rows = [
        ("started", source.started_at),
        ("commit", commit),
        ("machine", f"{source.device}, {source.platform}, Python {source.python}"),
        ("packages", packages),
        ("data sha256", record.data_sha256 or "not read"),
    ]
    if record.checkpoint is not None:
        rows.append(("weights", f"{', '.join(record.checkpoint.files)} sha256 {record.checkpoint.sha256}"))
    if record.cost is not None:
        cost = record.cost
        rows.append(
            ("cost", f"{format_duration(cost.seconds)}, {cost.forwards} forward and {cost.backwards} backward calls")
        )
        latency = f"{cost.latency_ms_1:.2f} ms alone, {cost.latency_ms_64:.2f} ms in a batch of 64"
        rows.append(("model", f"{cost.parameters} parameters, {latency}"))
    if record.samples is not None:
        rows.append(("samples", f"{record.samples.rows} rows in samples/{record.samples.name}"))
    if record.adversarials is not None:
        kept = record.adversarials
        known = dict(enumerate(_budget_label(result.budget) for result in record.budgets))
        labels = ", ".join(known.get(index, f"an unknown budget, {index}") for index in kept.certified)
        rows.append(("adversarials", f"{kept.count} in adversarials/{kept.name}, for all that is lowered at {labels}"))
    return "Made\n" + _indented(_columns(rows))


def _estimates(estimates: Mapping[str, Estimate]) -> list[tuple[str, str]]:
    return [(name, _estimate(name, estimate)) for name, estimate in sorted(estimates.items())]


def _estimate(name: str, estimate: Estimate) -> str:
    if name in _IN_PIXELS:
        return f"{estimate.value:.2f}  [{estimate.low:.2f}, {estimate.high:.2f}]  n = {estimate.n}"
    if name in _RESTORATION:
        return f"{estimate.value:.4g}  [{estimate.low:.4g}, {estimate.high:.4g}]  n = {estimate.n}"
    return f"{estimate.value:.1%}  [{estimate.low:.1%}, {estimate.high:.1%}]  n = {estimate.n}"


def _budget_label(card: Mapping[str, object]) -> str:
    """Returns norm and eps of a budget, as they stand there where they make no budget."""
    norm, eps = card.get("norm"), card.get("eps")
    try:
        texts = [format_eps(Norm(norm), value) for value in (eps if isinstance(eps, list) else [eps])]
    except (TypeError, ValueError, OverflowError):
        texts = [str(eps)]
    return f"{norm} {texts[0] if len(texts) == 1 else '(' + ', '.join(texts) + ')'}"


def _columns(rows: list[tuple[str, str]]) -> str:
    width = max((len(name) for name, _ in rows), default=0)
    return "\n".join(f"{name.ljust(width)}  {text}" for name, text in rows)


def _indented(text: str) -> str:
    return "\n".join(f"  {line}" for line in text.split("\n"))

#!/usr/bin/env python3
"""How well `gonogo.plan.speed` predicts measured speeds: error and coverage per engine and card, beside a simple peer.

    .venv/bin/python benchmarks/speed.py [--rows FILE] [--models FILE] [--fit FILE] [--json] [--write FILE]

`--rows` are judged, by default the facts folder's `perf_truth.jsonl`. Each is predicted three ways: by the numbers that
come with gonogo; by a fit to the rows of `--fit` (by default the same file); and by a fit to those of them that are of
other models (left out are all precisions, fine-tunes and variants of one shape). The peer has one constant: bytes that
a step moves ÷ (bandwidth × efficiency), its efficiency fitted to the same other models.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any, Iterator, Mapping, Sequence

import numpy as np
from speed_fit import Array, Table, calibration, fit, predict, spreads, table, unpack, without_models
from speed_rows import Models, NotAttempted, Sample, sample_of

from gonogo.plan.calibration import calibration as shipped
from gonogo.plan.efficiency import Calibration, Spread, efficiency, spread
from gonogo.plan.speed import middles

FACTS = Path(__file__).resolve().parent.parent.parent / "shared" / "facts" / "capacity"
REFERENCE = (
    "AIConfigurator 0.12.0, not run here: TPOT median 21.9 %, TTFT 53 % (399 of 757 rows of its own file answered)"
)
ENOUGH = {"TPOT median": 18.0, "coverage": 80.0}
QUANTITY = {"itl_s": "itl", "tokens_per_s": "throughput", "prompt_s": "ttft", "duration_s": "duration"}


def main(words: Sequence[str]) -> int:
    asked = _arguments(words)
    rows = asked.rows or _found("perf_truth.jsonl")
    if rows is None:
        print("no rows: name a file with --rows; its form is that of perf_truth.jsonl in SCHEMA.md", file=sys.stderr)
        return 2
    models = Models(json.loads(asked.models.read_text(encoding="utf-8")) if asked.models else {})
    tested, reasons = _samples(rows, models)
    base, _ = _samples(asked.fit or _found("perf_truth.jsonl") or rows, models)
    if not tested or not base:
        print(f"no row of {rows} could be attempted: {dict(reasons)}", file=sys.stderr)
        return 2
    judged = _judge(tested, base, same=(asked.fit or _found("perf_truth.jsonl") or rows) == rows)
    if asked.write is not None:
        asked.write.write_text(_stored(judged["calibration"]), encoding="utf-8")
    report = _report(judged, reasons)
    print(json.dumps(report, indent=1) if asked.json else _text(report))
    return 0


def _arguments(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=Path, help="measured rows that are judged")
    parser.add_argument("--models", type=Path, help="models that the catalogue lacks, in the form of models.json")
    parser.add_argument("--fit", type=Path, help="measured rows that are fitted to")
    parser.add_argument("--json", action="store_true", help="everything, as JSON")
    parser.add_argument("--write", type=Path, help="store the fit, for src/gonogo/plan/calibration/speed.json")
    return parser.parse_args(words)


def _found(name: str) -> Path | None:
    for folder in (FACTS, *(parent / "shared" / "facts" / "capacity" for parent in FACTS.parents)):
        if (folder / name).is_file():
            return folder / name
    return None


def _samples(path: Path, models: Models) -> tuple[list[Sample], Counter[str]]:
    found, reasons = [], Counter[str]()
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.strip():
            continue
        try:
            found.append(sample_of(json.loads(line), models))
        except NotAttempted as why:
            reasons[str(why)] += 1
        except (KeyError, TypeError, ValueError) as why:
            reasons[f"row not understood: {type(why).__name__} {why}"] += 1
    return found, reasons


def _judge(tested: list[Sample], base: list[Sample], *, same: bool) -> dict[str, Any]:
    """Everything is predicted in one table, of which the first rows are fitted to and the last are judged."""
    data = table(base if same else [*base, *tested])
    fitted = np.arange(len(data.samples)) < len(base)
    judged = np.ones(len(data.samples), bool) if same else ~fitted
    everything = fit(data, fitted)
    inside = _errors(data, everything)
    outside = {name: np.full(len(data.samples), np.nan) for name in inside}
    for model in sorted(set(data.models)):
        out = data.models == model
        found = _errors(data, fit(data, fitted & ~out))
        for name, errors in found.items():
            outside[name][out] = errors[out]
    left_out = _quantities(data, outside)
    ranges = {}
    for model in sorted(set(data.models[judged])):
        made = spreads(data, left_out, fitted & (data.models != model))
        ranges[model] = calibration(data, everything, made, "")
    stored = calibration(data, everything, spreads(data, left_out, fitted), _source(base))
    return {
        "data": data,
        "judged": judged,
        "inside": inside,
        "outside": outside,
        "covered": _covered(data, judged, outside, ranges),
        "peer": _peer(data, fitted),
        "shipped": _with(data, judged, _shipped()),
        "pure": _with(data, judged, stored),
        "calibration": stored,
        "models": len(set(data.models[fitted])),
    }


def _errors(data: Table, vector: Array) -> dict[str, Array]:
    """ln(measured ÷ predicted): of the row's quantity, and of the time to the first token (NaN: not measured)."""
    main_line, first = predict(data, *unpack(without_models(data, vector), len(data.names)))
    return {"main": data.observed - main_line, "ttft": np.where(data.computed, data.first - first, np.nan)}


def _quantities(data: Table, errors: Mapping[str, Array]) -> dict[str, Array]:
    """By what is asked. A rate errs as the time between tokens does, the other way round; a prompt's time is a TTFT."""
    nan = np.full(len(data.samples), np.nan)
    of = {name: np.where(data.quantity == name, errors["main"], nan) for name in QUANTITY}
    serving = np.array([one.kind == "serving" for one in data.samples])
    rate = np.where(data.quantity == "tokens_per_s", errors["main"], np.where(serving, -errors["main"], nan))
    first = np.where(np.isnan(errors["ttft"]), of["prompt_s"], errors["ttft"])
    return {"itl": of["itl_s"], "ttft": first, "throughput": rate, "duration": of["duration_s"]}


def _covered(
    data: Table, judged: Array, errors: Mapping[str, Array], ranges: Mapping[str, Calibration]
) -> dict[str, Array]:
    """1 where the range of a fit without this model holds what was measured, 0 where not, NaN where not asked."""
    made = {name: np.full(len(data.samples), np.nan) for name in errors}
    for at in map(int, np.flatnonzero(judged)):
        one = data.samples[at]
        for name, quantity in (("main", QUANTITY[one.quantity]), ("ttft", "ttft")):
            error = errors[name][at]
            if not np.isnan(error):
                found = _range(ranges[one.model], quantity, one)
                held = found.low <= error <= found.high
                made[name][at] = float(held and (name != "main" or _possible(data, at, error)))
    return made


def _possible(data: Table, at: int, error: float) -> bool:
    """A range ends where the card's peaks are reached: a time per token below that is outside of it."""
    if data.quantity[at] != "itl_s":
        return True
    floor = np.log(np.maximum(data.memory[at], data.flops[at]).sum())
    return bool(data.observed[at] >= min(floor, data.observed[at] - error))


def _range(made: Calibration, quantity: str, one: Sample) -> Spread:
    return spread(made, quantity, one.deployment.engine, one.deployment.card, one.deployment.scheme)[0]


def _peer(data: Table, fitted: Array) -> Array:
    """ln(measured ÷ predicted) of the peer: only time per token."""
    moved = np.log(data.memory.sum(axis=(1, 2)))
    asked = data.quantity == "itl_s"
    errors = np.full(len(data.samples), np.nan)
    for model in set(data.models):
        out = data.models == model
        errors[out] = (data.observed - moved)[out] - np.median((data.observed - moved)[fitted & asked & ~out])
    return np.where(asked, errors, np.nan)


def _shipped() -> Calibration | None:
    try:
        return shipped()
    except FileNotFoundError:
        return None


def _with(data: Table, judged: Array, made: Calibration | None) -> dict[str, Array]:
    """Errors of the pure code with some calibration, and whether its ranges hold."""
    names = ("main", "ttft", "covered")
    result = {name: np.full(len(data.samples), np.nan) for name in names}
    if made is None:
        return result
    for at in map(int, np.flatnonzero(judged)):
        one = data.samples[at]
        reached = efficiency(made, one.deployment.engine, one.deployment.card, one.deployment.scheme)
        found = middles(one.deployment, one.load, reached)
        first = found.ttft_s
        if one.quantity != "itl_s" and first is None:
            continue
        value = {
            "itl_s": found.itl_s,
            "tokens_per_s": found.output_tokens_per_s,
            "prompt_s": found.prompt_s or 0.0,
            "duration_s": (found.prompt_s or 0.0) + one.load.answer_tokens * found.itl_s,
        }[one.quantity]
        result["main"][at] = data.observed[at] - np.log(value)
        if one.ttft_s is not None and first is not None:
            result["ttft"][at] = np.log(one.ttft_s / first)
        held = _range(made, QUANTITY[one.quantity], one)
        inside = held.low <= result["main"][at] <= held.high
        result["covered"][at] = float(inside and _possible(data, at, result["main"][at]))
    return result


def _source(base: Sequence[Sample]) -> str:
    return (
        f"benchmarks/speed.py --write, {len(base)} rows of perf_truth.jsonl, {len({one.model for one in base})} models"
    )


def _stored(made: Calibration) -> str:
    data = {
        "source": made.source,
        "constants": {name: float(f"{value:.6g}") for name, value in made.constants.items()},
        "effects": {name: asdict(effect) for name, effect in sorted(made.effects.items())},
        "spreads": {
            quantity: {name: asdict(found) for name, found in sorted(by_level.items())}
            for quantity, by_level in made.spreads.items()
        },
    }
    return json.dumps(data, indent=1) + "\n"


def _report(judged: Mapping[str, Any], reasons: Counter[str]) -> dict[str, Any]:
    data, chosen = judged["data"], judged["judged"]
    itl = chosen & (data.quantity == "itl_s")
    serving = itl & np.array([one.kind == "serving" for one in data.samples])
    gap = np.nanmax(np.abs(judged["pure"]["main"] - judged["inside"]["main"])[chosen])
    return {
        "all": {"time per token": _line(judged, itl), "time per token, serving": _line(judged, serving)},
        "groups": {name: _line(judged, rows) for name, rows in _groups(data, chosen)},
        "models": {name: _line(judged, itl & (data.models == name)) for name in sorted(set(data.models[itl]))},
        "attempted": int(chosen.sum()),
        "not attempted": dict(reasons.most_common()),
        "models fitted": judged["models"],
        "largest difference between fit and pure code": float(f"{gap:.2g}"),
        "reference": REFERENCE,
    }


def _groups(data: Table, chosen: Array) -> Iterator[tuple[str, Array]]:
    keys = [
        (one.kind, one.deployment.engine, one.deployment.card.name if one.kind[:5] != "llama" else "all cards")
        for one in data.samples
    ]
    for key in sorted(set(keys)):
        rows = chosen & np.array([one == key for one in keys])
        if rows.any():
            yield " · ".join(key), rows


def _line(judged: Mapping[str, Any], rows: Array) -> dict[str, Any]:
    data = judged["data"]
    return {
        "n": int(rows.sum()),
        "models": len(set(data.models[rows])),
        "peer": _spread_of(judged["peer"][rows]),
        "shipped": _spread_of(judged["shipped"]["main"][rows]),
        "in_sample": _spread_of(judged["inside"]["main"][rows]),
        "left_out": _spread_of(judged["outside"]["main"][rows]),
        "coverage": _percent(judged["covered"]["main"][rows]),
        "shipped_coverage": _percent(judged["shipped"]["covered"][rows]),
        "ttft_left_out": _spread_of(judged["outside"]["ttft"][rows]),
        "ttft_coverage": _percent(judged["covered"]["ttft"][rows]),
    }


def _spread_of(errors: Array) -> dict[str, float] | None:
    """|predicted ÷ measured - 1| in percent."""
    found = 100 * np.abs(np.expm1(-errors[~np.isnan(errors)]))
    if not len(found):
        return None
    made = {"median": np.median(found), "mean": found.mean(), "p90": np.quantile(found, 0.9), "max": found.max()}
    return {name: round(float(value), 1) for name, value in made.items()}


def _percent(held: Array) -> float | None:
    found = held[~np.isnan(held)]
    return round(100 * float(found.mean()), 1) if len(found) else None


def _text(report: Mapping[str, Any]) -> str:
    head = f"{'absolute error in %':44} {'n':>4} {'peer':>6} {'shipped':>8} {'in sample':>22} {'left out':>24}"
    head += f" {'held':>5} {'TTFT':>6} {'held':>5}"
    under = f"{'':44} {'':4} {'median':>6} {'median':>8} {'median mean  p90   max':>22} {'median mean  p90    max':>24}"
    lines = [head, under]
    for part in ("all", "groups"):
        lines += [_row(name, line) for name, line in report[part].items()]
        lines.append("")
    lines.append(f"{report['attempted']} rows attempted, {report['models fitted']} models; not attempted:")
    lines += [f"  {count:4} {why}" for why, count in report["not attempted"].items()]
    lines.append(f"fit and pure code differ by {report['largest difference between fit and pure code']:g} at most (ln)")
    lines.append(f"reference: {report['reference']}")
    return "\n".join(lines)


def _row(name: str, line: Mapping[str, Any]) -> str:
    def one(found: Mapping[str, float] | None, width: int) -> str:
        return f"{'-' if found is None else format(found['median'], '.1f'):>{width}}"

    def four(found: Mapping[str, float] | None, width: int) -> str:
        text = "-" if found is None else " ".join(f"{found[name]:5.0f}" for name in ("mean", "p90", "max"))
        return f"{one(found, 6) + ' ' + text:>{width}}"

    held = "-" if line["coverage"] is None else f"{line['coverage']:.0f}"
    first = "-" if line["ttft_coverage"] is None else f"{line['ttft_coverage']:.0f}"
    return (
        f"{name:44} {line['n']:4} {one(line['peer'], 6)} {one(line['shipped'], 8)} {four(line['in_sample'], 22)} "
        f"{four(line['left_out'], 24)} {held:>5} {one(line['ttft_left_out'], 6)} {first:>5}"
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

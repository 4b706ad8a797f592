"""How environments and what was found of them are shown."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Sequence

from gonogo.checks.environment import blocks
from gonogo.checks.finding import Finding, Verdict
from gonogo.words.environment import environment_finding_text

if TYPE_CHECKING:
    from gonogo.cli.session import Session
    from gonogo.plan.collect import Uses
    from gonogo.runtimes.environments import Made

MIB = 1024**2
SIGNS = {Verdict.PASS: ("✓", "green"), Verdict.FAIL: ("✗", "bold red"), Verdict.UNKNOWN: ("?", "bold yellow")}
ADVICE = ("!", "yellow")


def plain_environment(made: Made) -> dict[str, Any]:
    """For `--json`."""
    return {
        "name": made.name,
        "path": str(made.path),
        "python_path": str(made.python_path),
        "engine": made.engine,
        "version": made.version,
        "answered": made.answered,
        "python": made.python,
        "lock": made.lock,
        "packages": made.packages,
        "disk_bytes": made.disk_bytes,
        "made_at": made.made_at,
    }


def environments_table(session: Session, found: Sequence[Made], uses: Uses) -> Any:
    """One line for each environment, with the revisions that need it."""
    from rich.table import Table

    table = Table(box=None, padding=(0, 1), pad_edge=False, header_style="dim")
    for name in ("name", "engine", "version", "python", "mib", "used_by"):
        table.add_column(session.told(f"env.column.{name}"), justify="right" if name == "mib" else "left")
    for one in found:
        used = ", ".join(_use(session, use) for use in uses.get(one.name, ()))
        table.add_row(one.name, one.engine, one.answered, one.python, str(one.disk_bytes // MIB), used)
    return table


def _use(session: Session, use: str) -> str:
    revision, _, part = use.partition(" ")
    return session.told(f"env.use.{part}", revision=revision)


def environment_lines(session: Session, made: Made) -> list[str]:
    """What a user wants of a new environment: where it is, what its engine said, its lock."""
    values = {"engine": made.engine, "answered": made.answered, "python": made.python}
    shown = session.told("env.answered", **values, packages=made.packages, mib=made.disk_bytes // MIB)
    return [shown, f"  {made.path}", f"  {session.told('env.column.lock')} {made.lock}"]


def print_findings(session: Session, findings: Sequence[Finding]) -> None:
    """One finding a paragraph, as in the checklist."""
    for finding in findings:
        text = environment_finding_text(finding, session.lang)
        sign, style = SIGNS.get(finding.verdict, SIGNS[Verdict.UNKNOWN])
        if finding.verdict is Verdict.FAIL and not blocks(finding):
            sign, style = ADVICE
        session.out.print(f"{sign} {finding.reason}", style=style, markup=False, highlight=False)
        session.out.print(f"    {text.seen}", markup=False, highlight=False)
        if text.remedy and finding.verdict is not Verdict.PASS:
            session.out.print(f"    → {text.remedy}", markup=False, highlight=False)


def plain_finding(session: Session, finding: Finding) -> dict[str, Any]:
    """For `--json`."""
    text = environment_finding_text(finding, session.lang)
    return {
        "reason": finding.reason,
        "verdict": finding.verdict.value,
        "blocks": blocks(finding),
        "subject": finding.subject,
        "values": dict(finding.values),
        "seen": text.seen,
        "remedy": text.remedy,
    }

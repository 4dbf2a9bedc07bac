"""The result of a check: a code from a closed list, what was checked, the evidence, and how to fix it.

Checks yield findings and never print. `found` escapes and cuts text from other servers (URLs, header fields,
documents), so that a finding cannot move a terminal's cursor and no response can flood a report.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, NamedTuple, Self

from asgi_mcp_auth.errors import printable

__all__ = ("Code", "Finding", "Report", "Severity", "cut", "found")

MAX_LENGTH = 500


class Severity(StrEnum):
    """How much a finding matters to MCP clients; the members are in the order of a report."""

    ERROR = "error"
    """Clients will fail, or tokens will be rejected."""
    WARNING = "warning"
    """Some clients will fail, or something is less safe than it should be."""
    INFO = "info"
    """Worth knowing."""
    OK = "ok"
    """The check passed."""


class Code(NamedTuple):
    """A row of the list of codes.

    Attributes:
        name: The stable name.
        severity: The usual severity; a finding may have another one.
        means: What the code means, for people.
        fix: How to fix the finding; a finding may have a more exact text.
        reference: The RFC, the part of MCP or the client behavior that the check follows.
        setting: How to fix the finding with settings of this library; empty if `fix` applies to this library too.
    """

    name: str
    severity: Severity
    means: str
    fix: str
    reference: str
    setting: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that was checked.

    Args:
        code: What was found.
        severity: How much the finding matters here; usually the severity of the code.
        subject: The URL or the file that was checked.
        evidence: What was seen there: escaped, at most 500 characters, never a token.
        fix: How to fix the finding; empty for a check that passed.
        reference: The RFC, the part of MCP or the client behavior that the check follows.
        setting: How to fix the finding with settings of this library; empty if `fix` applies to this library too.
    """

    code: Code
    severity: Severity
    subject: str
    evidence: str
    fix: str
    reference: str
    setting: str

    def with_setting(self) -> Self:
        """Return the finding with the fix in terms of this library's settings, for servers that use this library."""
        return replace(self, fix=self.setting) if self.setting else self

    def to_dict(self) -> dict[str, str]:
        """Return the finding as plain JSON."""
        return {
            "code": self.code.name,
            "severity": self.severity.value,
            "checked": self.subject,
            "means": self.code.means,
            "evidence": self.evidence,
            "fix": self.fix,
            "reference": self.reference,
        }


def cut(value: object, limit: int = 200) -> str:
    """Return a value as text of at most `limit` characters, not escaped: one part of an evidence with several."""
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= limit else f"{text[: limit - 3]}..."


def found(
    code: Code,
    subject: str,
    evidence: object = "",
    *,
    fix: str | None = None,
    setting: str | None = None,
    reference: str | None = None,
    severity: Severity | None = None,
) -> Finding:
    """Return a finding, with subject and evidence escaped and cut.

    Args:
        code: What was found.
        subject: The URL or file that was checked.
        evidence: What was seen; not yet escaped.
        fix: Replaces the code's fix. Values from other servers in the text must be escaped.
        setting: Replaces the code's fix for servers that use this library; escaped like `fix`.
        reference: Replaces the code's reference.
        severity: Replaces the code's severity.
    """
    return Finding(
        code=code,
        severity=code.severity if severity is None else severity,
        subject=printable(subject, MAX_LENGTH),
        evidence=printable(evidence, MAX_LENGTH),
        fix=code.fix if fix is None else fix,
        reference=code.reference if reference is None else reference,
        setting=code.setting if setting is None else setting,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The findings at one target.

    Args:
        target: The target, as the caller wrote it.
        kind: What the target is: `issuer`, `resource` or `config`; None if it could not be recognised.
        findings: Errors first, then warnings, infos and passed checks; each group in the order of the checks.
    """

    target: str
    kind: str | None
    findings: tuple[Finding, ...]

    @classmethod
    def of(cls, target: str, kind: str | None, findings: Iterable[Finding]) -> Self:
        """Return a report that lists each finding once, by severity."""
        order = list(Severity)
        unique = dict.fromkeys(findings)
        ordered = sorted(unique, key=lambda finding: order.index(finding.severity))
        return cls(target=target, kind=kind, findings=tuple(ordered))

    def count(self, severity: Severity) -> int:
        """Return the number of findings of one severity."""
        return sum(finding.severity is severity for finding in self.findings)

    def to_dict(self) -> dict[str, Any]:
        """Return the report as plain JSON."""
        return {
            "target": self.target,
            "kind": self.kind,
            "counts": {severity.value: self.count(severity) for severity in Severity},
            "findings": [finding.to_dict() for finding in self.findings],
        }

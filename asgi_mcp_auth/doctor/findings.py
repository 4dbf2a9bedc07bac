"""What a check finds: a code from a closed list, where, the evidence, and how to mend it.

Checks yield findings and never print. What others wrote (URLs, header fields, documents) is escaped and cut here, so
that nothing in a finding can move a cursor, and no answer can flood a report.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NamedTuple

from asgi_mcp_auth.errors import printable

__all__ = ("Code", "Finding", "Report", "Severity", "cut", "found")

LONGEST = 500


class Severity(StrEnum):
    """How much a finding matters to MCP clients."""

    ERROR = "error"
    """Clients or tokens will fail."""
    WARNING = "warning"
    """Some clients will fail, or something is less safe than it should be."""
    INFO = "info"
    """Worth knowing."""
    OK = "ok"
    """It was checked and is as it should be."""


class Code(NamedTuple):
    """A row of the list of codes."""

    name: str
    severity: Severity
    means: str
    fix: str
    """How to mend it; a finding may say it more exactly."""
    reference: str
    """Where it is said: an RFC, MCP, or what clients do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that was checked.

    Args:
        code: What was found.
        severity: How much it matters here; mostly that of the code.
        subject: The URL or the file that was checked.
        evidence: What was seen there: escaped, at most 500 characters, never a token.
        fix: How to mend it; empty for what is good.
    """

    code: Code
    severity: Severity
    subject: str
    evidence: str
    fix: str

    def to_dict(self) -> dict[str, str]:
        """Plain JSON."""
        return {
            "code": self.code.name,
            "severity": self.severity.value,
            "checked": self.subject,
            "means": self.code.means,
            "evidence": self.evidence,
            "fix": self.fix,
            "reference": self.code.reference,
        }


def cut(value: object, limit: int = 200) -> str:
    """A value of others in an evidence that has more to say: raw, as `found` takes it."""
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= limit else f"{text[: limit - 3]}..."


def found(
    code: Code, subject: str, evidence: object = "", *, fix: str | None = None, severity: Severity | None = None
) -> Finding:
    """A finding, everything in it escaped and cut.

    Args:
        code: What was found.
        subject: The URL or file.
        evidence: What was seen; raw.
        fix: Instead of the code's own; text of ours, values of others in it escaped.
        severity: Instead of the code's own.
    """
    return Finding(
        code=code,
        severity=code.severity if severity is None else severity,
        subject=printable(subject, LONGEST),
        evidence=printable(evidence, LONGEST),
        fix=code.fix if fix is None else fix,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What was found at one target.

    Args:
        target: As it was named.
        kind: What it was taken for: `issuer`, `resource` or `config`; None where that could not be told.
        findings: In the order of the checks.
    """

    target: str
    kind: str | None
    findings: tuple[Finding, ...]

    def count(self, severity: Severity) -> int:
        """How many findings of a severity."""
        return sum(finding.severity is severity for finding in self.findings)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        return {
            "target": self.target,
            "kind": self.kind,
            "counts": {severity.value: self.count(severity) for severity in Severity},
            "findings": [finding.to_dict() for finding in self.findings],
        }

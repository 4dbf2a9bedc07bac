"""What leaves the process about decisions: reports, the audit log, OpenTelemetry."""

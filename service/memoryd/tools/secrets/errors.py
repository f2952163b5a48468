"""What can go wrong with a secret. No message holds any of its value."""


class MalformedReferenceError(ValueError):
    """A reference of a known scheme that names nothing. Its message holds none of it."""


class SecretUnavailableError(Exception):
    """A secret that cannot be had: `reason` says why, `remedy` what to do; neither its value."""

    def __init__(self, reason: str, remedy: str) -> None:
        super().__init__(reason, remedy)
        self.reason = reason
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.reason}; {self.remedy}"

"""The errors of secrets. No message contains any of a secret."""


class MalformedReferenceError(ValueError):
    """A reference of a known scheme with an impossible name. The message does not contain it."""


class SecretUnavailableError(Exception):
    """A secret that cannot be read. `reason` says why, `remedy` what to do; neither contains it."""

    def __init__(self, reason: str, remedy: str) -> None:
        super().__init__(reason, remedy)
        self.reason = reason
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.reason}; {self.remedy}"

"""What the launcher says when it cannot go on."""


class Refusal(Exception):
    """A reason not to go on, for the person at the terminal: what is wrong and what to do about it."""

    def __init__(self, what: str, advice: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.advice = advice

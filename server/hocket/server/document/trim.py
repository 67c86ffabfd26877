"""Text without the white space around it, while it is still being written. Pure."""


class Trim:
    """Drops leading white space, and holds back what may be trailing.

    What `push` returned joins to the whole text stripped, however it came in parts.
    """

    def __init__(self) -> None:
        self._held = ""
        self._has_begun = False

    def push(self, text: str) -> str:
        """Return what is final of the text so far and was not returned before."""
        if not self._has_begun:
            text = text.lstrip()
            self._has_begun = bool(text)
        text = self._held + text
        shown = text.rstrip()
        self._held = text[len(shown) :]
        return shown

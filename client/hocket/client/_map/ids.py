"""Which ids a file has had so far, without keeping them in memory. Whichever thread takes the rows.

They lie in a temporary table of SQLite, which has no name, keeps some megabytes in memory and the
rest where temporary files go, and is gone with the process, however that ends.
"""

import sqlite3

_CACHE_KIB = 8_192


class SeenIds:
    """A set of ids: exact, and bounded in memory however many there are."""

    def __init__(self) -> None:
        """Begin with none.

        Raises:
            sqlite3.Error: There is no room for it.
        """
        # Rows are taken by one thread after the other, never by two at once.
        self._base = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        self._base.execute("PRAGMA journal_mode = OFF")
        self._base.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
        self._base.execute("CREATE TABLE ids (id BLOB PRIMARY KEY) WITHOUT ROWID")
        self._base.execute("BEGIN")  # never committed: nothing of it is to last

    def add(self, id_: str | int) -> bool:
        """Add an id; False if it was there. A number differs from the text that shows it.

        Raises:
            sqlite3.Error: There is no room for it.
        """
        key = f"{'s' if isinstance(id_, str) else 'i'}{id_}".encode(errors="surrogatepass")
        return self._base.execute("INSERT OR IGNORE INTO ids VALUES (?)", (key,)).rowcount == 1

    def close(self) -> None:
        """Forget all. Repeatable."""
        self._base.close()

"""`hocket map`: a file of texts through a server, resumed wherever it was cut off.

A row has its number `seq`, from 0, which does not change while the file does not. What came of rows
goes to the output in batches; after each the journal is told, so that whatever is killed whenever,
each row is in the output exactly once.
"""

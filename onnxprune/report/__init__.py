"""What a run did: `schema` is the record (JSON), `console` its tables and progress bars in a terminal."""

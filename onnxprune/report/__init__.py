"""What a run did: `schema` is the record (JSON), `console` shows it in a terminal, `html` as a page."""

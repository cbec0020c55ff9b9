"""Both papers reproduced: a script measures, others make the tables and figures from what it wrote."""

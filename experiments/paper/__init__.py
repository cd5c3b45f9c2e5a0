"""The paper's tables, figures and claims: cells, probes, pictures."""

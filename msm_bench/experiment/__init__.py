"""Experiments: a YAML file names arms, tasks and contrasts; its plan is a graph of cells, each made once, none bought twice."""

"""Every figure of a report, as a description (Vega-Lite) that is drawn once for pages and screens and once for files.

draw      the theme, and description -> SVG and PNG
dots      arms with intervals: the arms, the values and the reasoning patterns
heat      conditions by arms
forest    contrasts
dose      curves over tokens
bars      judge health and cost
all       which figures a report has, from the evidence
"""

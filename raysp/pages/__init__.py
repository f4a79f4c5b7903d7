"""HTML pages: one file each, without scripts or links; charts as SVG, tables, and texts with differences marked."""

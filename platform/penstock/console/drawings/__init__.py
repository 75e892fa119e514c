"""Drawings: charts and pictures, as geometry for SVG."""

//! Style sheet, SVG charts and overlays.

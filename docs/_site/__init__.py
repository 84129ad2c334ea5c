"""What the build of the site makes by itself: API pages, help texts, plots, the gallery's pictures."""

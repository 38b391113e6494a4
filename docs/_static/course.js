// The theme's arrows that fold the table of contents have no words for a screen reader.
document.addEventListener('DOMContentLoaded', () => {
  document.querySelectorAll('.has-children > details > summary').forEach(arrow => {
    arrow.setAttribute('aria-label', 'Pages of ' + arrow.closest('li').querySelector('a').textContent.trim());
  });
  // What scrolls must be reachable by keyboard.
  document.querySelectorAll('.cell_output, .cell_output .output, .cell_output pre, div.math').forEach(box => {
    if (box.scrollWidth > box.clientWidth) box.tabIndex = 0;
  });
});

// Formulas first, then the slides; a slide that is a little too full is set in smaller type, down to a limit.
"use strict";

const SMALLEST = 0.75, SMALLEST_FORMULA = 0.6;

// What sticks out of a slide, or into the line of its number. Figures do not: they take what is left.
function cutOff(slide) {
  const box = slide.getBoundingClientRect(), bottom = box.bottom - 0.03 * box.height;
  return [...slide.querySelectorAll("h1, h2, h3, p, li, pre, table, label, mjx-container > svg, img")].filter(part => {
    const it = part.getBoundingClientRect();
    return !part.closest("aside") && it.height > 0
      && (it.right > box.right + 1 || it.left < box.left - 1 || it.bottom > bottom || it.top < box.top - 1);
  });
}

function fit(slide) {
  if (slide.dataset.fitted) return;
  slide.dataset.fitted = "yes";
  for (const formula of slide.querySelectorAll('mjx-container[display="true"]')) {
    const ratio = formula.clientWidth / formula.firstElementChild.clientWidth;
    if (ratio < 1) formula.style.fontSize = `${Math.max(ratio, SMALLEST_FORMULA).toFixed(2)}em`;
  }
  for (let size = 0.95; size > SMALLEST - 0.01 && crowded(slide); size -= 0.05) {
    slide.style.setProperty("--size", size.toFixed(2));
  }
}

// A comma stays with the formula before it.
function keepTogether(formula) {
  const sign = /^[,.;:)?!]+/.exec(formula.nextSibling?.nodeType === Node.TEXT_NODE ? formula.nextSibling.data : "");
  if (!sign) return;
  const together = document.createElement("span");
  together.className = "unbroken";
  formula.nextSibling.splitText(sign[0].length);
  formula.before(together);
  together.append(formula, together.nextSibling);
}

// Controls in one row: the picture below them needs the height.
function inOneRow(box) {
  const row = document.createElement("div");
  row.className = "course-controls";
  row.append(...box.querySelectorAll("label"));
  box.prepend(row);
}

const figures = slide => [...slide.querySelectorAll(".celltag_figure")].filter(figure => !figure.closest("aside"));
const squeezed = slide => figures(slide).some(figure => figure.offsetHeight < 360);
const crowded = slide => cutOff(slide).length > 0 || squeezed(slide);

window.Deck = {
  // The slide with this number, all of it.
  show(number) {
    const {h, v} = Reveal.getIndices(Reveal.getSlides()[number]);
    Reveal.slide(h, v, 99);
  },
  // What is wrong with the slide that is shown.
  complaints() {
    const slide = Reveal.getCurrentSlide();
    const found = cutOff(slide).map(part => `cut off: ${(part.alt || part.textContent).trim().slice(0, 60) || part.tagName}`);
    if (slide.getBoundingClientRect().height < 0.9 * innerHeight) found.push("the slide does not fill the screen");
    if (squeezed(slide)) found.push("the figure has less than half of the height");
    if (!slide.querySelector("aside.notes")) found.push("no speaker notes");
    return [...new Set(found)];
  },
};

MathJax.startup.promise
  .then(() => MathJax.typesetPromise())
  .then(() => {
    document.querySelectorAll('mjx-container:not([display="true"])').forEach(keepTogether);
    document.querySelectorAll(".course-frames").forEach(inOneRow);
    Reveal.on("ready", event => fit(event.currentSlide));
    Reveal.on("slidechanged", event => fit(event.currentSlide));
    return Reveal.initialize({
      width: 1280, height: 720, margin: 0.02, center: false, display: "flex", hash: true, transition: "none",
      navigationMode: "linear", slideNumber: "c/t", plugins: [RevealNotes],
    });
  })
  .then(() => document.body.classList.add("deck-ready"));

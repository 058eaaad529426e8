"use strict";
/* Draws every chart of the page from the JSON beside it. Title gets "ready" last: without it, something failed. */
(async () => {
  const read = (id) => JSON.parse(document.getElementById(id).textContent);
  const specs = read("charts"), config = read("config");
  const views = new Map();

  async function draw(box) {
    if (views.has(box.id)) return;
    views.set(box.id, null); // taken: a second call while this one waits must not draw it twice
    const { view } = await vegaEmbed(box, specs[box.id], {
      config, renderer: "svg", actions: false, defaultStyle: false, ast: true, tooltip: { theme: "page" },
    });
    views.set(box.id, view);
  }
  const within = (part) => [...part.querySelectorAll(".chart")];
  const visible = (box) => !box.closest("details:not([open])");

  for (const box of within(document).filter(visible)) await draw(box);
  for (const fold of document.querySelectorAll("details")) {
    fold.addEventListener("toggle", () => within(fold).filter(visible).forEach(draw));
  }

  /* A legend lights up one series in every chart of its section; pressed again, all of them. */
  for (const legend of document.querySelectorAll(".legend")) {
    const buttons = [...legend.querySelectorAll("button")];
    const show = (name) => {
      for (const box of within(legend.parentElement)) {
        const view = views.get(box.id);
        if (view && "focus" in view.getState({ signals: (n) => n === "focus" }).signals) view.signal("focus", name).runAsync();
      }
    };
    for (const button of buttons) {
      button.disabled = false;
      button.addEventListener("click", () => {
        const on = button.getAttribute("aria-pressed") !== "true";
        buttons.forEach((other) => other.setAttribute("aria-pressed", String(on && other === button)));
        show(on ? button.dataset.name : null);
      });
    }
  }
  document.title += " · ready";
})();

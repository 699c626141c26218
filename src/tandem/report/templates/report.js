// Draws every picture of the page, again whenever the reader's colours change, and narrow and light for paper.
"use strict";
(() => {
  const PAPER_PX = 800; // report.css shrinks it onto the paper
  const dark = JSON.parse(document.getElementById("dark-colours").textContent);
  const prefersDark = window.matchMedia("(prefers-color-scheme: dark)");
  const pictures = [...document.querySelectorAll(".plot")].map((place) => {
    const source = place.querySelector("script");
    const picture = { place, plot: JSON.parse(source.textContent) };
    source.remove();
    return picture;
  });

  // Only what stands under a key about colour is a colour: a job may be named like one.
  const recoloured = (value, isColour) => {
    if (typeof value === "string") return isColour && dark[value] ? dark[value] : value;
    if (Array.isArray(value)) return value.map((item) => recoloured(item, isColour));
    if (value === null || typeof value !== "object") return value;
    return Object.fromEntries(
      Object.entries(value).map(([key, item]) => [key, recoloured(item, isColour || /color/i.test(key))]),
    );
  };

  const draw = (onPaper) => {
    for (const { place, plot } of pictures) {
      const { data, layout } = structuredClone(plot);
      const sized = onPaper ? { ...layout, autosize: false, width: PAPER_PX } : layout;
      const shown = prefersDark.matches && !onPaper ? recoloured({ data, layout: sized }, false) : { data, layout: sized };
      Plotly.react(place, shown.data, shown.layout, {
        responsive: !onPaper,
        displaylogo: false,
        modeBarButtons: [["toImage", "resetScale2d"]],
      });
    }
  };

  draw(window.matchMedia("print").matches);
  prefersDark.addEventListener("change", () => draw(false));
  window.addEventListener("beforeprint", () => draw(true));
  window.addEventListener("afterprint", () => draw(false));
})();

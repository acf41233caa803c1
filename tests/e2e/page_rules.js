// What every state of the page owes: [] if all is well, else what is wrong and where.
() => {
  const found = [];
  const visible = (element) => element.checkVisibility({ visibilityProperty: true }) && !element.closest(".unseen, dialog:not([open]), noscript");
  const where = (element) => `<${element.tagName.toLowerCase()} class="${element.getAttribute("class") ?? ""}" id="${element.id}"> ${element.textContent.slice(0, 40)}`;

  for (const element of document.querySelectorAll("button, a, input, select, textarea, [role=img], [role=group], [role=region], progress, dialog")) {
    if (element.closest("dialog:not([open])")) continue;
    const labelled = (element.getAttribute("aria-labelledby") ?? "").split(" ").map((id) => document.getElementById(id)?.textContent ?? "").join("");
    const own = /^(BUTTON|A)$/.test(element.tagName) ? element.textContent : "";
    const label = [...(element.labels ?? [])].map((each) => each.textContent).join("");
    if (!(element.getAttribute("aria-label") || labelled || label || own).trim()) found.push(`name: ${where(element)}`);
  }
  const ids = [...document.querySelectorAll("[id]")].map(({ id }) => id);
  for (const id of ids) if (ids.indexOf(id) !== ids.lastIndexOf(id)) found.push(`id: ${id} is there twice`);
  const headings = [...document.querySelectorAll("h1")].filter(visible);
  if (headings.length !== 1) found.push(`headings: ${headings.length} of the first level`);

  const colour = (text) => {
    const numbers = text.match(/[\d.]+(e-\d+)?/g).map(Number);
    const [r, g, b, a = 1] = text.startsWith("color(srgb") ? [...numbers.slice(0, 3).map((x) => 255 * x), ...numbers.slice(3)] : numbers;
    return [r, g, b, a];
  };
  const over = ([r, g, b, a], below) => [r, g, b].map((value, i) => a * value + (1 - a) * below[i]);
  const behind = (element) => {
    const layers = [];
    for (let at = element; at; at = at.parentElement) {
      const layer = colour(getComputedStyle(at).backgroundColor);
      if (layer[3]) layers.unshift(layer);
    }
    return layers.reduce((below, layer) => over(layer, below), [255, 255, 255]);
  };
  const light = (rgb) => {
    const [r, g, b] = rgb.map((value) => value / 255).map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    if (!walker.currentNode.textContent.trim() || !visible(element) || /^(TITLE|DESC|OPTION|SCRIPT)$/i.test(element.tagName)) continue;
    const style = getComputedStyle(element);
    const ink = colour(element.namespaceURI.endsWith("svg") ? style.fill : style.color);
    const paper = behind(element);
    const [a, b] = [light(over(ink, paper)), light(paper)].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    if (ratio < 4.5) found.push(`contrast: ${ratio.toFixed(2)} ${where(element)}`);
    const words = /\p{Letter}{2}/u.test(walker.currentNode.textContent);
    if (words && !element.closest("[translate=no], [lang]:not(html)") && !(element.dataset.en && element.dataset.zh)) found.push(`language: ${where(element)}`);
  }
  const wide = document.documentElement.scrollWidth;
  if (wide > innerWidth) found.push(`sideways: ${wide} in ${innerWidth}`);
  return found;
}

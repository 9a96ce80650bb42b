// The few strokes of DOM that every view needs.

/** The element that `selector` names; a missing one is a mistake of ours, so it is said at once. */
export function find(selector, root = document) {
  const element = root.querySelector(selector);
  if (!element) throw new Error(`the page has no ${selector}`);
  return element;
}

/** make("button", {class: "x", onclick: f}, "text", child): an element. Attributes that are false or null are left out. */
export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

/** An icon of the sprite in index.html. */
export function icon(name) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const use = document.createElementNS("http://www.w3.org/2000/svg", "use");
  use.setAttribute("href", `#i-${name}`);
  svg.setAttribute("class", "icon");
  svg.setAttribute("aria-hidden", "true");
  svg.append(use);
  return svg;
}

/** Whether `button` does anything now. Unlike `disabled` it keeps the focus, so that the keyboard stays where it is. */
export function enable(button, able) {
  button.setAttribute("aria-disabled", String(!able));
}

export const enabled = (button) => button.getAttribute("aria-disabled") !== "true";

/** Set text only where it changed, so that nothing is announced or laid out again in vain. */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

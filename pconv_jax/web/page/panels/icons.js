/**
 * The page's icons. They are part of the document, so that none is missing when the server does not answer.
 */

/** Loads the icons into the document, where `<use href="#name">` refers to them. */
export async function loadIcons() {
  const text = await (await fetch("icons.svg")).text();
  const icons = new DOMParser().parseFromString(text, "image/svg+xml").documentElement;
  icons.classList.add("unseen");
  icons.setAttribute("aria-hidden", "true");
  document.body.append(icons);
}

/** Returns an icon's element. */
export function icon(name) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  element.classList.add("icon");
  element.setAttribute("aria-hidden", "true");
  const use = document.createElementNS("http://www.w3.org/2000/svg", "use");
  use.setAttribute("href", `#${name}`);
  element.append(use);
  return element;
}

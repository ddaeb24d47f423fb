/**
 * Places a panel beside the button that opens it.
 */

const MARGIN = 8;

export function placePanels() {
  for (const button of document.querySelectorAll("[popovertarget]")) {
    const panel = document.getElementById(button.getAttribute("popovertarget"));
    button.setAttribute("aria-expanded", "false");
    panel.addEventListener("toggle", (event) => {
      const open = event.newState === "open";
      button.setAttribute("aria-expanded", open);
      if (open) {
        place(panel, button);
      }
    });
    panel.addEventListener("submit", (event) => event.preventDefault());
  }
}

function place(panel, button) {
  const from = button.getBoundingClientRect();
  const { offsetWidth: width, offsetHeight: height } = panel;
  const left = Math.min(from.left, window.innerWidth - width - MARGIN);
  const above = from.top > window.innerHeight / 2;
  const top = above ? from.top - height - MARGIN : from.bottom + MARGIN;
  panel.style.left = `${Math.max(MARGIN, left)}px`;
  panel.style.top = `${Math.max(MARGIN, top)}px`;
}

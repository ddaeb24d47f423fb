/**
 * Connects each button that has a `data-command` with its command.
 */

/** Connects the buttons and returns a function that brings them up to date. */
export function buttons(app) {
  const connected = [...document.querySelectorAll("[data-command]")].map((button) => {
    const command = app.commands.find(({ name }) => name === button.dataset.command);
    const [key] = command.keys;
    button.title = key ? `${command.title} (${key})` : command.title;
    if (!button.textContent.trim()) {
      button.setAttribute("aria-label", command.title);
    }
    if (key) {
      button.setAttribute("aria-keyshortcuts", key.replace("Ctrl", "Control"));
    }
    button.type = "button";
    button.addEventListener("click", (event) => {
      app.run(command.name);
      // Whoever uses a pointer goes on painting, with keys for the stage; `detail` is 0 for a click by the keyboard.
      if (event.detail && !button.closest("[popover]") && !app.element.hidden) {
        app.element.focus({ focusVisible: false });
      }
    });
    return { button, command };
  });
  return () => {
    for (const { button, command } of connected) {
      const disabled = !(command.enabled?.() ?? true) && !command.otherwise;
      if (button.disabled !== disabled) {
        button.disabled = disabled;
      }
      if (command.pressed) {
        const state = button.getAttribute("role") === "switch" ? "aria-checked" : "aria-pressed";
        button.setAttribute(state, command.pressed());
      }
    }
  };
}

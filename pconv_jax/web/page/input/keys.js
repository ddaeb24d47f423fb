/**
 * Keys: which command a key runs, and the keys that are held.
 */

import { focusNext } from "./focus.js";

const HOLD_MILLISECONDS = 180; // Tab that is pressed shorter moves the focus, longer shows the original.
const TYPING = "input:not([type=range], [type=checkbox], [type=radio]), select, textarea";
const OPERABLE = "button, a, select, input:not([type=range]), textarea, summary";

export class Keys {
  constructor(app) {
    this.app = app;
    this.holdingTab = null;
    document.addEventListener("keydown", (event) => this.#down(event));
    document.addEventListener("keyup", (event) => this.#up(event));
    window.addEventListener("blur", () => this.#release());
  }

  get #letters() {
    return document.getElementById("letters").checked;
  }

  #down(event) {
    const { app } = this;
    if (document.querySelector("dialog[open]") || event.isComposing) {
      return;
    }
    const name = keyName(event);
    const onStage = event.target === app.element || event.target === document.body;
    if (app.ready && onStage && this.#onStage(event, name)) {
      event.preventDefault();
      return;
    }
    const operated = ["Enter", " "].includes(event.key) && event.target.closest(OPERABLE);
    const typed = event.target.closest(TYPING) && !event.ctrlKey && !event.metaKey;
    const closesPanel = name === "Escape" && document.querySelector(":popover-open");
    const selected = name === "Ctrl+C" && String(document.getSelection());
    const letter = name.length === 1 || /^Shift\+.$/.test(name);
    if (operated || typed || closesPanel || selected || (letter && !this.#letters)) {
      return;
    }
    const command = app.commands.find(({ keys }) => keys.includes(name));
    if (command && (command.name !== "cancel" || command.enabled())) {
      event.preventDefault();
      if (!event.repeat || ["smaller", "larger", "zoom-in", "zoom-out", "undo", "redo"].includes(command.name)) {
        app.run(command.name);
      }
    }
  }

  /** Handles the keys that belong to the stage. Returns whether it was one. */
  #onStage(event, name) {
    const { app } = this;
    if (name === " ") {
      app.pointer.holdSpace(true);
      app.showCursor(null);
      return true;
    }
    if ((name === "Tab" || name === "Shift+Tab") && event.target === app.element) {
      this.holdingTab ??= {
        backward: event.shiftKey,
        pressed: event.timeStamp,
        timer: setTimeout(() => this.#showOriginal(), HOLD_MILLISECONDS),
        shown: false,
      };
      return true;
    }
    return app.keyboardBrush.move(event);
  }

  #showOriginal() {
    this.holdingTab.shown = true;
    this.app.element.dataset.original = "true";
    this.app.stage.before = 1;
    this.app.stage.draw();
    this.app.refresh();
  }

  #up(event) {
    if (event.key === " ") {
      this.app.pointer.holdSpace(false);
    } else if (event.key === "Tab" && this.holdingTab) {
      const { pressed, backward } = this.holdingTab;
      this.#release();
      if (event.timeStamp - pressed < HOLD_MILLISECONDS) { // The timer may be late on a busy machine.
        focusNext(this.app.element, backward);
      }
    }
  }

  /** Ends whatever is held. */
  #release() {
    this.app.pointer.holdSpace(false);
    if (this.holdingTab) {
      clearTimeout(this.holdingTab.timer);
      if (this.holdingTab.shown) {
        delete this.app.element.dataset.original;
        this.app.stage.before = this.app.comparing ? 0.5 : 0;
        this.app.stage.draw();
      }
      this.holdingTab = null;
      this.app.refresh();
    }
  }
}

/** Returns a key's name, such as "Ctrl+Shift+Z". Shift is left out where it is needed to type the character. */
function keyName(event) {
  const { key } = event;
  const character = key.length === 1;
  const letter = character && key.toLowerCase() !== key.toUpperCase();
  const typedWithAltGr = event.getModifierState("AltGraph") || (character && !letter && event.ctrlKey && event.altKey);
  const control = (event.ctrlKey || event.metaKey) && !typedWithAltGr ? "Ctrl+" : "";
  const alt = event.altKey && !typedWithAltGr ? "Alt+" : "";
  const shift = event.shiftKey && (letter || !character) ? "Shift+" : "";
  return control + alt + shift + (letter ? key.toUpperCase() : key);
}

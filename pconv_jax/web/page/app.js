/**
 * What the parts of the page share: the photographs, the tool, and how to tell the person something.
 */

import { KeyboardBrush } from "./input/keyboard_brush.js";
import { Painter, UNFINISHED } from "./input/painter.js";
import { PointerInput } from "./input/pointer.js";
import { changing } from "./mask/change.js";
import { complain, say } from "./panels/messages.js";
import { resume } from "./photographs/filling.js";
import { Collection } from "./photographs/collection.js";
import { Cursor } from "./view/cursor.js";
import { Stage } from "./view/stage.js";

const SMALLEST_BRUSH = 1; // Diameters in pixels of the photograph.
const FIRST_BRUSH = 0.06; // Diameter of the first brush, as a share of the photograph's shorter side.

export class App {
  constructor() {
    const element = document.getElementById("stage");
    this.element = element;
    this.photos = new Collection();
    this.stage = new Stage(
      element,
      () => this.refresh(),
      () => this.showCursor(null),
    );
    this.cursor = new Cursor(element, this.stage);
    this.painter = new Painter(this);
    this.keyboardBrush = new KeyboardBrush(this);
    this.pointer = new PointerInput(this, element);
    this.tool = "brush";
    this.brushShare = null; // Diameter of the brush as a share of the photograph's shorter side, once chosen.
    this.sizes = new WeakMap(); // Diameters of the brush by photograph.
    this.areaVisible = true;
    this.comparing = false;
    this.lastArea = null; // The area that was filled last: {width, height, data}.
    this.settings = {};
    this.session = null;
    this.parts = []; // Functions that bring a part of the page up to date.
    this.commands = [];
    this.requested = false;
  }

  get photo() {
    return this.photos.current;
  }

  /** Whether a photograph is on the stage. */
  get ready() {
    return Boolean(this.photo?.picture);
  }

  /** Diameter of the brush in pixels of the photograph. */
  get size() {
    const { photo } = this;
    if (!this.sizes.has(photo)) {
      const side = Math.min(photo.info.width, photo.info.height);
      this.sizes.set(photo, Math.max(SMALLEST_BRUSH, Math.round(side * (this.brushShare ?? FIRST_BRUSH))));
    }
    return this.sizes.get(photo);
  }

  set size(value) {
    const { width, height } = this.photo.info;
    const size = Math.min(this.largestSize, Math.max(SMALLEST_BRUSH, Math.round(value)));
    this.brushShare = size / Math.min(width, height);
    this.sizes.set(this.photo, size);
  }

  get largestSize() {
    return Math.max(200, Math.round(Math.max(this.photo.info.width, this.photo.info.height) / 2));
  }

  /** Changes the brush's diameter by a factor, and by at least one pixel. */
  changeSize(factor) {
    const before = this.size;
    const after = Math.round(before * factor);
    this.size = after === before ? before + Math.sign(factor - 1) : after;
    this.refresh();
  }

  start(session) {
    this.session = session;
    this.photos.restore(session);
    for (const photo of this.photos.photos) {
      this.#connect(photo);
    }
    for (const filling of session.fillings) {
      const photo = this.photos.photos.find(({ id }) => id === filling.photograph);
      if (photo && (filling.state === "queued" || filling.state === "running")) {
        resume(photo, filling, () => this.refresh()).catch((error) => this.fail(error));
      }
    }
    this.refresh();
    if (this.photos.photos.length) {
      this.show(this.photos.photos[0]);
    }
  }

  #connect(photo) {
    photo.redraw = (rect) => {
      if (photo === this.photo) {
        this.stage.drawArea(rect);
        this.stage.draw();
      }
      this.refresh();
    };
  }

  /** Opens files, one after another, and shows the first. */
  async open(files) {
    let first = true;
    for (const file of files) {
      this.say(files.length > 1 ? `Opening ${file.name} …` : "Opening the photograph …", { key: "open" });
      try {
        const photo = await this.photos.add(file);
        this.#connect(photo);
        this.say("", { key: "open" });
        if (first) {
          first = false;
          await this.show(photo);
        }
        this.warn(photo.info.warnings, files.length > 1 ? photo.name : "");
      } catch (error) {
        this.say("", { key: "open" });
        this.fail(error);
      }
      this.refresh();
    }
  }

  /** Shows a photograph on the stage. */
  async show(photo) {
    this.painter.cancel();
    this.comparing = false;
    this.stage.before = 0;
    const shown = this.photos.show(photo);
    this.stage.show(null);
    this.refresh();
    await shown;
    if (photo === this.photo && photo?.picture) {
      this.stage.show(photo);
    }
    this.refresh();
    requestAnimationFrame(() => {
      if (document.activeElement === document.body) {
        this.element.focus({ focusVisible: false }); // What had the focus may be hidden by now.
      }
    });
  }

  /** Returns whether the area may be painted now, and explains it if not. */
  mayPaint() {
    if (this.photo.filling) {
      this.say("The photograph is being filled. You can paint again when that has ended, or cancel it.");
      return false;
    }
    if (this.comparing) {
      this.run("compare"); // The painted area is hidden while before and after are compared.
    }
    if (!this.areaVisible) {
      this.areaVisible = true;
      this.refresh();
    }
    return true;
  }

  /** Adds a change of the mask to the history. */
  pushChange(photo, change) {
    if (change?.finish()) {
      const swap = () => photo.redraw(change.swap());
      photo.history.push({ undo: swap, redo: swap });
    }
    this.refresh();
  }

  /** Changes the mask inside a rectangle by `edit(mask)`, as one step of the history. Returns whether it may. */
  edit(rect, edit) {
    const { photo } = this;
    if (this.painter.active) {
      this.say(UNFINISHED); // The history keeps one change at a time.
      return false;
    }
    if (!this.mayPaint()) {
      return false;
    }
    if (rect) {
      this.pushChange(photo, changing(photo.mask, rect, edit));
      photo.redraw(rect);
    }
    return true;
  }

  /** Shows where the brush is, or hides it. */
  showCursor(point) {
    const hidden = !this.ready || !point || this.comparing || this.photo.filling;
    const look = this.tool === "rectangle" ? "cross" : this.tool;
    this.cursor.show(hidden ? null : point, hidden ? 0 : this.size, look);
  }

  /** Brings all parts of the page up to date with the next frame. */
  refresh() {
    if (!this.requested) {
      this.requested = true;
      requestAnimationFrame(() => {
        this.requested = false;
        for (const update of this.parts) {
          update();
        }
      });
    }
  }

  /** Runs a command by its name, if it can be run now. */
  run(name) {
    const command = this.commands.find((other) => other.name === name);
    if (command.enabled?.() ?? true) {
      Promise.resolve(command.run()).catch((error) => this.fail(error));
      this.refresh();
      return true;
    }
    if (command.otherwise) {
      this.say(command.otherwise());
    }
    return false;
  }

  /** Tells something that passes. */
  say(text, options) {
    say(text, options);
  }

  /** Tells what the server warns about, until it is closed. */
  warn(warnings, name = "") {
    for (const warning of warnings ?? []) {
      say(name ? `${name}: ${warning}` : warning, { stays: true });
    }
  }

  /** Tells what went wrong, until it is closed. */
  fail(error) {
    console.error(error);
    complain(error.message);
  }
}
